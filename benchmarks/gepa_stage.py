"""A synthetic task over HTTP: task app and models in one process, `pytest-synth serve` in another.

Not a benchmark by itself; `gepa_resume.py` and `gepa_utilisation.py` use it. The task is a world of
`tests/fakes/rule_world.py`: a rollout sends its system message to the model, which answers with what it was
told, and the reward is the world's for that text. So what is judged is the prompt that really ran.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import NormalDist
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

import aiohttp
import httpx
import uvicorn
from fakes.rule_world import RuleReflection, World, chance

from pytest_synth._serving import bind_loopback

JOBS = "/api/prompt-learning/online/jobs"
SEARCH_S = 300.0  # until a search is given up
_POLL_S = 0.02
_NORMAL = NormalDist()


@dataclass
class Scene:
    """What the stage plays, and what it was asked for meanwhile.

    Attributes:
        rollouts: How often each pair of prompt and seed ran.
        questions: How often each question was put to the reflection model.
        worked_s: What the rollouts took by their latency alone.
    """

    world: World = field(default_factory=World)
    rollout_s: float = 0.1
    reflection_s: float = 0.0
    has_heavy_tail: bool = False
    rollouts: Counter[str] = field(default_factory=Counter)
    questions: Counter[str] = field(default_factory=Counter)
    worked_s: float = 0.0

    def latency(self, seed: int, text: str) -> float:
        """Lognormal with a heavy tail, the same each time; else always the same."""
        if not self.has_heavy_tail:
            return self.rollout_s
        place = max(chance("latency", seed, text), 1e-9)
        return float(self.rollout_s * min(2.718281828 ** (0.8 * _NORMAL.inv_cdf(place)), 50))

    def counted(self) -> dict[str, Any]:
        return {
            "rollouts": self.rollouts.total(),
            "repeated": self.rollouts.total() - len(self.rollouts),
            "questions": self.questions.total(),
            "worked_s": self.worked_s,
        }


class Stage:
    """Task app and models, as an ASGI app without a framework, whose time would count as the backend's."""

    def __init__(self) -> None:
        self.scene = Scene()
        self._session: aiohttp.ClientSession | None = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        body, is_more = b"", True
        while is_more:
            message = await receive()
            body, is_more = body + message.get("body", b""), message.get("more_body", False)
        answer = json.dumps(await self._answer(scope["path"], json.loads(body or b"{}"))).encode()
        head = [(b"content-type", b"application/json"), (b"content-length", str(len(answer)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": head})
        await send({"type": "http.response.body", "body": answer})

    async def _answer(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        match path:
            case "/rollout":
                return await self._rollout(body)
            case "/v1/chat/completions":
                return await self._model(body)
            case "/scene" if body:
                self.scene = Scene(World(body.pop("world")), **body)
            case "/scene":
                return self.scene.counted()
            case "/task_info":
                return {"taskset": {"splits": ["train"], "sizes": {"train": 100}}}
        return {"healthy": True}

    async def _rollout(self, body: dict[str, Any]) -> dict[str, Any]:
        scene, seed, policy = self.scene, body["env"]["seed"], body["policy"]["config"]
        if self._session is None:
            self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
        system = {"role": "system", "content": scene.world.baseline}
        call = {"model": policy["model"], "messages": [system, {"role": "user", "content": f"query {seed}"}]}
        async with self._session.post(policy["inference_url"] + "/chat/completions", json=call) as response:
            response.raise_for_status()
            text = (await response.json())["choices"][0]["message"]["content"]
        scene.rollouts[f"{seed} {text}"] += 1
        latency = scene.latency(seed, text)
        await asyncio.sleep(latency)
        scene.worked_s += latency
        reward, remark = scene.world.judge(text, seed)
        return {
            "trace_correlation_id": body["trace_correlation_id"],
            "reward_info": {"outcome_reward": reward, "details": {"feedback": remark}},
            "trace": None,
        }

    async def _model(self, body: dict[str, Any]) -> dict[str, Any]:
        """The policy repeats what it was told; the reflection model acts on the feedback."""
        scene, text = self.scene, body["messages"][0]["content"]
        if body["model"] == "reflection":
            scene.questions[text] += 1
            await asyncio.sleep(scene.reflection_s)
            text = RuleReflection(run=scene.world.number).answer(text, text)  # the same each time
        message = {"role": "assistant", "content": text}
        return {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 1,
            "model": body["model"],
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 7, "completion_tokens": 4, "total_tokens": 11},
        }


@contextmanager
def open_stage() -> Iterator[str]:
    """Run a stage in a process of its own; gives its URL."""
    command = [sys.executable, __file__]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().strip()
        finally:
            process.kill()


class Serving:
    """`pytest-synth serve` on a database, and its client. `kill` is SIGKILL; `start` starts it again."""

    def __init__(self, db: Path, stage: str, concurrency: int) -> None:
        self._command = [sys.executable, "-m", "pytest_synth.cli", "serve", "--db", str(db)]
        self._command += ["--concurrency", str(concurrency)]
        self._environment = {**os.environ, "OPENAI_BASE_URL": f"{stage}/v1", "OPENAI_API_KEY": "sk-stage"}
        self._stage = stage
        self.start()

    def start(self) -> None:
        self._process = subprocess.Popen(
            self._command, stdout=subprocess.PIPE, text=True, env=self._environment
        )
        assert self._process.stdout is not None
        url = self._process.stdout.readline().strip().removeprefix("backend: ")
        key = self._process.stdout.readline().strip().removeprefix("key: ")
        self._http = httpx.Client(base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=60)

    def kill(self) -> None:
        self._http.close()
        self._process.kill()
        self._process.communicate()

    def submit(self, section: dict[str, Any]) -> str:
        answer = self._http.post(
            JOBS, json={"algorithm": "gepa", "config_body": {"prompt_learning": section}}
        )
        answer.raise_for_status()
        return str(answer.json()["job_id"])

    def status(self, job_id: str) -> dict[str, Any]:
        return dict(self._http.get(f"{JOBS}/{job_id}").raise_for_status().json())

    def events(self, job_id: str) -> list[dict[str, Any]]:
        answer = self._http.get(f"{JOBS}/{job_id}/events", params={"limit": 10_000}).raise_for_status()
        return list(answer.json()["events"])

    def wait(
        self, job_id: str, within_s: float = SEARCH_S, *, poll_s: float = _POLL_S
    ) -> dict[str, Any] | None:
        """The status of a job that has ended; None if it has not by then."""
        end = time.monotonic() + within_s
        while True:
            status = self.status(job_id)
            if status["completed_at"] is not None:
                return status
            if time.monotonic() > end:
                return None
            time.sleep(poll_s)


@contextmanager
def serving(db: Path, stage: str, concurrency: int = 64) -> Iterator[Serving]:
    """Serve a backend; it is killed at the end."""
    served = Serving(db, stage, concurrency)
    try:
        yield served
    finally:
        served.kill()


def section(stage: str, world: World, **gepa: Any) -> dict[str, Any]:
    """A search in a world: 50 train seeds, 10 of them the Pareto set, 10 validation seeds."""
    return {
        "algorithm": "gepa",
        "task_app_url": stage,
        "initial_prompt": {"messages": [{"role": "system", "pattern": world.baseline}]},
        "policy": {"model": "policy", "provider": "openai", "inference_mode": "synth_hosted"},
        "env_config": {"split": "train"},
        "gepa": {
            "evaluation": {"seeds": list(range(50)), "validation_seeds": list(range(50, 60))},
            "archive": {"pareto_set_size": 10},
            "reflection": {"model": "reflection"},
            "rng_seed": world.number,
            **gepa,
        },
    }


if __name__ == "__main__":
    sock = bind_loopback()
    print(f"http://127.0.0.1:{sock.getsockname()[1]}", flush=True)
    uvicorn.Server(uvicorn.Config(Stage(), lifespan="off", log_level="critical", access_log=False)).run(
        sockets=[sock]
    )
