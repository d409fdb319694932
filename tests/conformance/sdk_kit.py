"""What the drivers share: a task app made with the SDK's own `create_local_api`, and how they report.

Runs where synth-ai is installed and nothing of ours is.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import socket
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from enum import Enum
from pathlib import Path
from typing import Any

import httpx
from intents_world import INTENTS, intent_of, user_message
from synth_ai.core.streaming import StreamHandler
from synth_ai.core.tunnels import TunnelBackend, TunneledLocalAPI, wait_for_health_check
from synth_ai.sdk.localapi import LocalAPIConfig, create_local_api
from synth_ai.sdk.localapi._impl.contracts import RolloutMetrics, RolloutRequest, RolloutResponse, TaskInfo
from synth_ai.sdk.localapi._impl.server import run_server_background
from synth_ai.sdk.localapi._impl.trace_correlation_helpers import extract_trace_correlation_id
from synth_ai.sdk.localapi._impl.validators import normalize_inference_url

POLICY = {"model": "gpt-4.1-nano", "provider": "openai"}
TOOL = {
    "type": "function",
    "function": {
        "name": "banking77_classify",
        "description": "Say the intent of the query",
        "parameters": {
            "type": "object",
            "properties": {"intent": {"type": "string"}},
            "required": ["intent"],
        },
    },
}


class IntentApp:
    """A task app that keeps what it was asked.

    A rollout does what `env.config["does"]` says for its seed, or else for "all": `raise`, `zero` (a reward
    of 0.0 whatever the model says), `wait` (a minute), `mapping` (an answer that is no RolloutResponse).

    Attributes:
        app: The ASGI app.
        seen: What each rollout was sent, in the order in which they came.
    """

    def __init__(self, system: str) -> None:
        self.system = system
        self.seen: list[dict[str, Any]] = []
        self._in_flight: dict[str | None, int] = {}
        self.app = create_local_api(
            LocalAPIConfig(
                app_id="banking77",
                name="Banking77 Intent Classification",
                description="Classify customer queries into intents.",
                provide_taskset_description=lambda: {
                    "splits": ["train", "test"],
                    "sizes": {"train": 1000, "test": 1000},
                },
                provide_task_instances=_task_instances,
                rollout=self._rollout,
                cors_origins=["*"],
            )
        )

    def seen_for(self, env_name: str) -> list[dict[str, Any]]:
        return [entry for entry in self.seen if entry["env_name"] == env_name]

    def until_seen(self, env_name: str) -> None:
        """Return once a rollout with this name has come."""
        while not self.seen_for(env_name):
            time.sleep(0.02)

    async def _rollout(self, request: RolloutRequest, fastapi_request: Any) -> Any:
        env, policy = request.env, request.policy.config
        in_flight = self._in_flight.get(env.env_name, 0) + 1
        self._in_flight[env.env_name] = in_flight
        extracted = extract_trace_correlation_id(policy, inference_url=policy["inference_url"])
        self.seen.append(
            {
                "env_name": env.env_name,
                "seed": env.seed,
                "env_config": env.config,
                "policy": {name: value for name, value in policy.items() if name != "inference_url"},
                "inference_url": policy["inference_url"],
                "correlation_id": request.trace_correlation_id,
                "extracted_id": extracted,
                "max_time_s": request.safety.max_time_s,
                "in_flight": in_flight,
                "keys": len(fastapi_request.headers.get("x-api-keys", "").split(",")),
            }
        )
        try:
            return await self._answer(env, policy, extracted)
        finally:
            self._in_flight[env.env_name] -= 1

    async def _answer(self, env: Any, policy: dict[str, Any], correlation_id: str | None) -> Any:
        does = env.config.get("does", {})
        what = does.get(str(env.seed), does.get("all"))
        if what == "raise":
            raise ValueError("this row is broken")
        if what == "wait":
            await asyncio.sleep(60)
        if what == "mapping":
            return {"reward": 1.0}
        said = await self._ask(policy, env.seed)
        reward = 0.0 if what == "zero" else float(said == intent_of(env.seed))
        return RolloutResponse(
            trace_correlation_id=correlation_id,
            reward_info=RolloutMetrics(
                outcome_reward=reward, details={"expected": intent_of(env.seed), "predicted": said}
            ),
            trace={"event_history": [{"said": said}], "metadata": {"seed": env.seed}},
        )

    async def _ask(self, policy: dict[str, Any], seed: int) -> str:
        body = {
            "model": policy["model"],
            "messages": [
                {"role": "system", "content": self.system},
                {"role": "user", "content": user_message(seed)},
            ],
            "tools": [TOOL],
            "tool_choice": {"type": "function", "function": {"name": "banking77_classify"}},
        }
        url = normalize_inference_url(policy["inference_url"])
        headers = {"X-API-Key": policy["api_key"]} if policy.get("api_key") else {}
        async with httpx.AsyncClient(timeout=30) as client:
            reply = await client.post(url, json=body, headers=headers)
        reply.raise_for_status()
        (call,) = reply.json()["choices"][0]["message"]["tool_calls"]
        return json.loads(call["function"]["arguments"])["intent"]


def _task_instances(seeds: Any) -> Any:
    for seed in seeds:
        yield TaskInfo(
            task={"id": "banking77", "name": "Banking77 Intent Classification"},
            dataset={"id": "banking77", "split": "train", "index": seed},
            inference={"tool": "banking77_classify"},
            limits={"max_turns": 1},
            task_metadata={"seed": seed, "intents": list(INTENTS)},
        )


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def serve(app: Any) -> str:
    """Serve an app on loopback until this process ends; gives the URL that its tunnel has."""
    port = free_port()
    run_server_background(app, port, host="127.0.0.1")

    async def open_tunnel() -> TunneledLocalAPI:
        await wait_for_health_check("127.0.0.1", port)
        return await TunneledLocalAPI.create(local_port=port, backend=TunnelBackend.Localhost)

    return asyncio.run(open_tunnel()).url


class Recorder(StreamHandler):
    """Keeps what a stream brings."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self.statuses: list[str] = []

    def handle(self, message: Any) -> None:
        if message.stream_type.name == "EVENTS":
            self.events.append({"seq": message.seq, **message.data})
        elif message.stream_type.name == "STATUS":
            self.statuses.append(message.data["status"])


def plain(value: Any) -> Any:
    """Make JSON of what the SDK gives back."""
    if isinstance(value, Enum):
        return value.value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


def refusal(call: Callable[[], Any]) -> dict[str, Any]:
    """Make a call that must fail, and tell how it did."""
    try:
        value = call()
    except Exception as error:
        return {"kind": type(error).__name__, "text": str(error)}
    return {"kind": None, "text": f"no error, but {value!r}"}


def report(*groups: Sequence[Callable[[], Any]]) -> None:
    """Run groups of scenarios, those of one group at once, and write what each has brought.

    The file is named by the first argument of the script.
    """
    document: dict[str, Any] = {}
    for group in groups:
        with ThreadPoolExecutor(8) as pool:
            document |= zip((scenario.__name__ for scenario in group), pool.map(_bring, group), strict=True)
    Path(sys.argv[1]).write_text(json.dumps(document), encoding="utf-8")


def _bring(scenario: Callable[[], Any]) -> dict[str, Any]:
    try:
        return {"brought": plain(scenario())}
    except Exception:
        return {"failed": traceback.format_exc()}
