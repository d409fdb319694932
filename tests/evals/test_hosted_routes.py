"""The app around a task app: paths of jobs, the exchange of the inference URL, and the notes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

import httpx
import pytest
from fakes.rollout_app import RolloutApp, reward_answer

from pytest_synth.backend import RunningBackend
from pytest_synth.backend.gateway import RelayUse
from pytest_synth.evals.relaying import JobRoutes, Note
from pytest_synth.prompts import Prompt

PROMPT = Prompt.parse("P")
SEEN = RelayUse(
    calls=1,
    tokens=11,
    prompt_applied=True,
    prompt_reason=None,
    prompt_fingerprint=PROMPT.fingerprint,
    replaced_fingerprint=None,
    query="the key is policy-key-1",
    answer="a",
    model_error=None,
)


@dataclass
class FakeGateway:
    """Records what it was asked to open, and whether that was closed."""

    opened: list[tuple[str, Prompt | None, str]] = field(default_factory=list)
    closed: int = 0

    inference_url = "http://127.0.0.1:1/api/interceptor/v1/trial_1/trace_1"

    async def open_relay(self, url: str, *, prompt: Prompt | None, correlation_id: str) -> FakeGateway:
        self.opened.append((url, prompt, correlation_id))
        return self

    async def close(self) -> RelayUse:
        self.closed += 1
        return SEEN


class Stage:
    """The routes around a fake task app, called without a server."""

    def __init__(self, app: Any = None) -> None:
        self.app = RolloutApp()
        self.gateway = FakeGateway()
        inner = self.app.app if app is None else app
        self.routes = JobRoutes(inner, cast(RunningBackend, self.gateway), hidden=["env-key-1"])

    def send(self, method: str, path: str, **more: Any) -> httpx.Response:
        async def exchange() -> httpx.Response:
            transport = httpx.ASGITransport(self.routes, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url="http://app") as http:
                return await http.request(method, path, headers={"X-API-Key": "env-key-1"}, **more)

        return asyncio.run(exchange())

    def rollout(self, path: str, seed: int = 3, **config: Any) -> httpx.Response:
        return self.send("POST", f"{path}/rollout", json=request(seed, **config))


def request(seed: int = 3, **config: Any) -> dict[str, Any]:
    config = {"inference_url": "https://there.test/api/interceptor/v1/t/trace_9", **config}
    return {
        "trace_correlation_id": "trace_9",
        "env": {"seed": seed, "config": {"split": "test"}},
        "policy": {"config": config},
    }


@pytest.fixture
def stage() -> Stage:
    return Stage()


def test_a_rollout_gets_another_inference_url_and_nothing_else_changes(stage: Stage) -> None:
    path = stage.routes.open(PROMPT)
    answer = stage.rollout(path, temperature=0.5)
    assert (answer.status_code, answer.json()["reward_info"]["outcome_reward"]) == (200, 1.0)
    assert stage.gateway.opened == [
        ("https://there.test/api/interceptor/v1/t/trace_9/chat/completions", PROMPT, "trace_9")
    ]
    sent = request(temperature=0.5)
    sent["policy"]["config"]["inference_url"] = FakeGateway.inference_url
    assert stage.app.bodies == [sent]
    assert stage.app.headers[0]["x-api-key"] == "env-key-1"
    assert int(stage.app.headers[0]["content-length"]) == len(json.dumps(sent))


@pytest.mark.parametrize(
    ("given", "asked", "got"),
    [
        ("https://t.test/v1", "https://t.test/v1/chat/completions", ""),
        (
            "https://t.test/i/v1/t?cid=trace_9",
            "https://t.test/i/v1/t/chat/completions?cid=trace_9",
            "",
        ),
        (
            "https://t.test/v1/chat/completions",
            "https://t.test/v1/chat/completions",
            "/chat/completions",
        ),
    ],
)
def test_the_task_app_makes_the_same_of_both_urls(stage: Stage, given: str, asked: str, got: str) -> None:
    stage.rollout(stage.routes.open(None), inference_url=given)
    assert stage.gateway.opened[0][0] == asked
    assert stage.app.bodies[0]["policy"]["config"]["inference_url"] == FakeGateway.inference_url + got


def test_a_rollout_is_noted() -> None:
    async def behave(body: dict[str, Any]) -> dict[str, Any]:
        details = {"expected": "x", "sent": ["env-key-1", {"own": "policy-key-1"}]}
        return reward_answer(body, 0.5, details=details, outcome_objectives={"speed": 2.0})

    stage = Stage()
    stage.app.behave = behave
    path = stage.routes.open(PROMPT)
    stage.rollout(path, api_key="policy-key-1")
    [found] = stage.routes.close(path)
    assert found.latency_ms > 0
    assert found == Note(
        seed=3,
        correlation_id="trace_9",
        is_answered=True,
        reward=0.5,
        latency_ms=found.latency_ms,
        calls=1,
        tokens=11,
        prompt_applied=True,
        prompt_fingerprint=PROMPT.fingerprint,
        query="the key is [hidden]",
        answer="a",
        objectives={"speed": 2.0},
        details={"expected": "x", "sent": ["[hidden]", {"own": "[hidden]"}]},
    )


def test_the_note_is_there_before_the_backend_has_the_answer(stage: Stage) -> None:
    path = stage.routes.open(None)
    noted_before: list[int] = []

    async def exchange() -> None:
        body = json.dumps(request()).encode()
        scope = {
            "type": "http",
            "method": "POST",
            "path": f"{path}/rollout",
            "raw_path": f"{path}/rollout".encode(),
            "query_string": b"",
            "headers": [(b"x-api-key", b"env-key-1"), (b"content-type", b"application/json")],
        }
        messages = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive() -> Any:
            return messages.pop() if messages else {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            if message["type"] == "http.response.body" and not message.get("more_body"):
                noted_before.append(stage.gateway.closed)

        await stage.routes(scope, receive, send)

    asyncio.run(exchange())
    assert noted_before == [1]
    assert len(stage.routes.close(path)) == 1


def test_a_rollout_of_an_app_that_fails_is_noted_without_a_reward() -> None:
    async def broken(scope: Any, receive: Any, send: Any) -> None:
        raise RuntimeError("boom")

    stage = Stage(broken)
    path = stage.routes.open(PROMPT)
    assert stage.rollout(path).status_code == 500
    [found] = stage.routes.close(path)
    assert (found.seed, found.is_answered, found.reward) == (3, False, None)
    assert stage.gateway.closed == 1


@pytest.mark.parametrize("url", [None, "", "no url"])
def test_without_an_inference_url_a_prompt_is_not_applied(stage: Stage, url: Any) -> None:
    path = stage.routes.open(PROMPT)
    assert stage.rollout(path, inference_url=url).status_code == 200
    [found] = stage.routes.close(path)
    assert (found.prompt_applied, found.prompt_reason) == (
        False,
        "the backend gave the rollout no inference_url to which model calls could be handed on",
    )
    assert stage.gateway.opened == []


@pytest.mark.parametrize(
    "send",
    [
        pytest.param(lambda stage, path: stage.send("POST", f"{path}/rollout", content=b"{"), id="no JSON"),
        pytest.param(lambda stage, path: stage.send("POST", f"{path}/rollout", json=[]), id="no object"),
        pytest.param(
            lambda stage, path: stage.send("POST", f"{path}/rollout", json={"env": {}}), id="no seed"
        ),
    ],
)
def test_what_is_no_rollout_is_left_to_the_task_app(send: Callable[[Stage, str], httpx.Response]) -> None:
    async def refuse(scope: Any, receive: Any, send_on: Any) -> None:
        body = (await receive())["body"]
        await send_on({"type": "http.response.start", "status": 422, "headers": []})
        await send_on({"type": "http.response.body", "body": b"the app got " + body})

    stage = Stage(refuse)
    answer = send(stage, stage.routes.open(PROMPT))
    assert answer.status_code == 422
    assert answer.text.startswith("the app got ")
    assert len(answer.text) > len("the app got ")


def test_other_routes_of_the_app_are_below_the_path_and_at_the_root(stage: Stage) -> None:
    path = stage.routes.open(None)
    assert stage.send("GET", f"{path}/health").json() == {"healthy": True}
    assert stage.send("GET", "/health").json() == {"healthy": True}


def test_jobs_have_paths_of_their_own_and_a_closed_one_is_refused(stage: Stage) -> None:
    one, two = stage.routes.open(PROMPT), stage.routes.open(None)
    assert one != two
    stage.rollout(one)
    stage.rollout(two)
    assert [prompt for _, prompt, _ in stage.gateway.opened] == [PROMPT, None]
    stage.routes.close(one)
    refused = stage.rollout(one)
    assert (refused.status_code, refused.json()) == (
        404,
        {"detail": "no job has this path: it never existed, or is over"},
    )
    assert len(stage.app.bodies) == 2, "a job that is over spends nothing more"
    assert len(stage.routes.close(two)) == 1


def test_start_up_of_the_app_passes_through(stage: Stage) -> None:
    seen: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["type"])

    routes = JobRoutes(app, cast(RunningBackend, stage.gateway))
    asyncio.run(routes({"type": "lifespan"}, cast(Any, None), cast(Any, None)))
    assert seen == ["lifespan"]
