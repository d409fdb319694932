"""Models that break their answers off: the rollout is run again, and a seed stands in the result once."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import aiohttp
import pytest
from fakes.backend_api import Api
from fakes.gateway_server import chat
from fakes.model_provider import completion
from fakes.rollout_app import RolloutApp, reward_answer
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from pytest_synth._serving import ServerThread
from pytest_synth.backend.gateway.chat import events_of
from pytest_synth.backend.jobs.rollouts import TRIES

Serve = Callable[[RolloutApp], str]
POLICY = {"provider": "openai", "model": "m"}


class Cutting:
    """A provider that cuts the first streams of each user message: `cuts` says how many."""

    def __init__(self) -> None:
        self.cuts: dict[str, int] = {}
        self.calls: Counter[str] = Counter()

    @property
    def app(self) -> Starlette:
        return Starlette(routes=[Route("/{path:path}", self._answer, methods=["POST"])])

    async def _answer(self, request: Request) -> Response:
        user = json.loads(await request.body())["messages"][-1]["content"]
        self.calls[user] += 1
        is_cut = self.calls[user] <= self.cuts.get(user, 0)
        return StreamingResponse(_stream(user, is_cut=is_cut), media_type="text/event-stream")


async def _stream(text: str, *, is_cut: bool) -> AsyncIterator[bytes]:
    for number, event in enumerate(events_of(completion(text), usage=True)):
        if is_cut and number == 2:
            raise ConnectionAbortedError
        yield event


@pytest.fixture
def cutting(open_api: Callable[..., Api]) -> Iterator[tuple[Cutting, Api]]:
    provider = Cutting()
    with ServerThread(provider.app) as server:
        prices = {"openai/m": {"input": 1.0, "output": 1.0}}
        yield provider, open_api(environ={"OPENAI_BASE_URL": f"{server.url}/v1"}, prices=prices)


async def asks(body: dict[str, Any]) -> Response | dict[str, Any]:
    """Ask twice, streaming, as a client does that takes an error event for an exception."""
    url = f"{body['policy']['config']['inference_url']}/chat/completions"
    async with aiohttp.ClientSession() as session:
        for user in ("warm up", str(body["env"]["seed"])):
            async with session.post(url, json=chat(user, stream=True)) as answer:
                if '"error"' in await answer.text():
                    return JSONResponse({"detail": "the model broke off"}, 500)
    return reward_answer(body)


def test_a_rollout_whose_answer_broke_off_is_run_again(serve: Serve, cutting: tuple[Cutting, Api]) -> None:
    provider, api = cutting
    provider.cuts = {"1": 1, "3": TRIES - 1}
    app = RolloutApp(asks)
    results = api.run(serve(app), range(4), policy=POLICY)
    assert [(row["seed"], row["score"]) for row in results["results"]] == [(n, 1.0) for n in range(4)]
    assert [app.runs[n] for n in range(4)] == [1, 2, 1, TRIES]
    assert [row["calls"] for row in results["results"]] == [2, 4, 2, 2 * TRIES]
    whole = results["results"][0]
    assert results["results"][1]["tokens"] > whole["tokens"]
    correlation_ids = [body["trace_correlation_id"] for body in app.bodies]
    assert len(set(correlation_ids)) == len(correlation_ids)


def test_a_model_that_breaks_off_again_and_again_is_given_up(
    serve: Serve, cutting: tuple[Cutting, Api]
) -> None:
    provider, api = cutting
    provider.cuts = {"1": 100}
    app = RolloutApp(asks)
    row = api.run(serve(app), range(2), policy=POLICY)["results"][1]
    assert (row["score"], row["error_kind"], app.runs[1]) == (None, "model", TRIES)
    said = (
        "task app answered 500: the model broke off; its last model call failed: openai at http://127.0.0.1:"
    )
    assert row["error"].startswith(said)
    assert " broke its answer off: " in row["error"]


def test_a_rollout_that_failed_for_another_reason_is_not_run_again(
    serve: Serve, cutting: tuple[Cutting, Api]
) -> None:
    async def fails(body: dict[str, Any]) -> Response | dict[str, Any]:
        answer = await asks(body)
        return answer if isinstance(answer, Response) else JSONResponse({"detail": "no label"}, 500)

    app = RolloutApp(fails)
    cutting[1].run(serve(app), range(1), policy=POLICY)
    assert app.runs[0] == 1


def test_an_app_that_copes_with_a_broken_answer_is_not_run_again(
    serve: Serve, cutting: tuple[Cutting, Api]
) -> None:
    async def copes(body: dict[str, Any]) -> Response | dict[str, Any]:
        await asks(body)
        return await asks(body)

    provider, api = cutting
    provider.cuts = {"0": 1}
    app = RolloutApp(copes)
    results = api.run(serve(app), range(1), policy=POLICY)
    assert (results["results"][0]["score"], app.runs[0]) == (1.0, 1)
