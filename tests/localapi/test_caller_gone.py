"""When the caller of a rollout closes the connection, nobody would get its result: the rollout ends."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from fakes.model_provider import FakeProvider, completion
from fakes.task_caller import KEY, answer, rollout_body, toy_config
from starlette.requests import Request

from pytest_synth._serving import ServerThread
from pytest_synth.localapi import LLM, AsyncLLM, RolloutRequest, RolloutResponse, create_local_api, task_app


def post_and_leave(url: str, started: threading.Event, **fields: Any) -> None:
    with (
        httpx.Client() as client,
        socket.create_connection((httpx.URL(url).host, httpx.URL(url).port or 0)) as s,
    ):
        request = client.build_request(
            "POST", f"{url}/rollout", json=rollout_body(**fields), headers={"X-API-Key": KEY}
        )
        lines = [f"{name}: {value}" for name, value in request.headers.items()]
        s.sendall("\r\n".join(["POST /rollout HTTP/1.1", *lines, "", ""]).encode() + request.read())
        assert started.wait(10)


def test_an_async_rollout_is_cancelled() -> None:
    started, ended = threading.Event(), threading.Event()

    async def rollout(request: RolloutRequest, _: Any) -> RolloutResponse:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        return answer(request)

    with ServerThread(create_local_api(toy_config(rollout=rollout))) as server:
        post_and_leave(server.url, started)
        assert ended.wait(10)


def ask(row: str, llm: LLM) -> str:
    return llm.chat([{"role": "user", "content": row}]).text


async def ask_async(row: str, llm: AsyncLLM) -> str:
    return (await llm.chat([{"role": "user", "content": row}])).text


@pytest.mark.parametrize("run", [ask, ask_async], ids=["def", "async def"])
def test_a_model_call_in_flight_is_cut(run: Callable[..., Any]) -> None:
    started, cut = threading.Event(), threading.Event()

    async def endless(request: Request) -> Any:
        started.set()
        while not await request.is_disconnected():
            await asyncio.sleep(0.01)
        cut.set()
        return completion()

    provider = FakeProvider(script=[endless])
    app = task_app(rows=["row"], run=run, score=lambda row, answer: 1)
    with ServerThread(provider.app) as model, ServerThread(app) as server:
        post_and_leave(server.url, started, policy={"inference_url": f"{model.url}/v1"})
        assert cut.wait(10)


def test_a_blocking_rollout_can_call_the_model_no_more() -> None:
    started, left, ended = threading.Event(), threading.Event(), threading.Event()
    problems: list[str] = []

    def run(row: str, llm: LLM) -> str:
        started.set()
        assert left.wait(10)
        for _ in range(10_000):
            try:
                llm.chat([])
            except BaseException as error:
                problems.append(f"{type(error).__name__}: {error}")
                if "rollout is over" in str(error):
                    break
        ended.set()
        return ""

    provider = FakeProvider()
    app = task_app(rows=["row"], run=run, score=lambda row, answer: 1)
    with ServerThread(provider.app) as model, ServerThread(app) as server:
        post_and_leave(server.url, started, policy={"inference_url": f"{model.url}/v1"})
        left.set()
        assert ended.wait(10)
    assert problems[-1] == "RuntimeError: the rollout is over: its caller has gone"


def test_the_server_goes_on_with_other_rollouts() -> None:
    started = threading.Event()

    async def rollout(request: RolloutRequest, _: Any) -> RolloutResponse:
        if request.env.seed == 0:
            started.set()
            await asyncio.Event().wait()
        return answer(request)

    with ServerThread(create_local_api(toy_config(rollout=rollout))) as server:
        post_and_leave(server.url, started)
        reply = httpx.post(f"{server.url}/rollout", json=rollout_body(1), headers={"X-API-Key": KEY})
    assert reply.status_code == 200
