from __future__ import annotations

import asyncio
import functools
import os
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

import aiohttp
import httpx
import pytest
from fakes.task_caller import TaskCaller, answer, instance, rollout_body, toy_config
from fastapi import APIRouter, Request
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Receive, Scope, Send

from pytest_synth._serving import ServerThread
from pytest_synth.errors import ConfigError
from pytest_synth.localapi import RolloutRequest, RolloutResponse, TaskInfo, create_local_api


def generate(seeds: Sequence[int]) -> Iterator[TaskInfo]:
    yield from map(instance, seeds)


async def give_async(seeds: Sequence[int]) -> list[TaskInfo]:
    return [instance(seed) for seed in seeds]


async def generate_async(seeds: Sequence[int]) -> AsyncIterator[TaskInfo]:
    for seed in seeds:
        yield instance(seed)


@pytest.mark.parametrize(
    "provide",
    [
        pytest.param(generate, id="generator"),
        pytest.param(lambda seeds: map(instance, seeds), id="iterator"),
        pytest.param(lambda seeds: [instance(seed).model_dump() for seed in seeds], id="mappings"),
        pytest.param(give_async, id="async"),
        pytest.param(generate_async, id="async generator"),
        pytest.param(lambda seeds: give_async(seeds), id="plain function that gives a coroutine"),
    ],
)
def test_task_instances_may_be_given_in_every_usual_way(provide: Any) -> None:
    caller = TaskCaller(create_local_api(toy_config(provide_task_instances=provide)))
    several = caller.get("/task_info?seed=3&seeds=5").json()
    assert [entry["task_metadata"]["seed"] for entry in several] == [3, 5]
    assert caller.get("/task_info?seed=4").json()["dataset"] == {
        **dict.fromkeys(["name", "version", "splits", "default_split", "description"]),
        "id": "toy",
        "split": "test",
        "index": 4,
    }


def test_seeds_in_a_comma_list_are_refused() -> None:
    assert TaskCaller(create_local_api(toy_config())).get("/task_info?seeds=1,2").status_code == 422


async def describe_async() -> dict[str, Any]:
    return {"splits": ["test"]}


@pytest.mark.parametrize("describe", [lambda: {"splits": ["test"]}, describe_async], ids=["def", "async"])
def test_the_description_is_given_without_seeds(describe: Any) -> None:
    caller = TaskCaller(create_local_api(toy_config(provide_taskset_description=describe)))
    assert caller.get("/task_info").json() == {"taskset": {"splits": ["test"]}}


@pytest.mark.parametrize(
    ("path", "fields", "code", "message"),
    [
        pytest.param(
            "/task_info",
            {"provide_taskset_description": lambda: ["test"]},
            "invalid_task_info",
            "provide_taskset_description returned list; it must return a mapping",
            id="no mapping",
        ),
        pytest.param(
            "/task_info?seed=1&seed=2",
            {"provide_task_instances": lambda seeds: [instance(1)]},
            "invalid_task_info",
            "provide_task_instances gave 1 instances for 2 seeds; it must give one for each",
            id="too few",
        ),
        pytest.param(
            "/task_info?seed=7",
            {"provide_task_instances": lambda seeds: [{"task": {"id": "toy"}, "dataset": {}, "limits": {}}]},
            "invalid_task_info",
            "provide_task_instances gave no TaskInfo for seed 7: task.name is missing; inference is missing",
            id="no TaskInfo",
        ),
        pytest.param(
            "/task_info",
            {"provide_taskset_description": lambda: os.environ["ABSENT"]},
            "task_info_failed",
            "KeyError: 'ABSENT' (",
            id="raises",
        ),
    ],
)
def test_a_wrong_description_is_a_structured_error(
    path: str, fields: dict[str, Any], code: str, message: str
) -> None:
    reply = TaskCaller(create_local_api(toy_config(**fields))).get(path)
    assert reply.status_code == 500
    error = reply.json()["detail"]["error"]
    assert error["code"] == code
    assert error["message"].startswith(message)


def test_info_describes_the_task() -> None:
    caller = TaskCaller(create_local_api(toy_config(rubrics={"outcome": {"goal": "right intent"}})))
    info = caller.get("/info").json()
    assert info["service"] == {
        "task": {"id": "toy", "name": "Toy", "description": "A toy task", "version": None},
        "version": None,
    }
    assert info["dataset"]["id"] == "toy"
    assert info["rubrics"] == {"outcome": {"goal": "right intent"}}
    assert {"inference", "limits"} <= info.keys()


def test_info_takes_the_base_task_info() -> None:
    base = instance(0).model_copy(update={"task": instance(0).task.model_copy(update={"version": "2"})})
    info = TaskCaller(create_local_api(toy_config(base_task_info=base))).get("/info").json()
    assert (info["service"]["version"], info["dataset"]["split"], "rubrics" in info) == ("2", "test", False)


class Callable2:
    async def __call__(self, request: RolloutRequest, _: Request) -> RolloutResponse:
        await asyncio.sleep(0)
        return answer(request, 0.5)


async def rollout_async(request: RolloutRequest, _: Request) -> RolloutResponse:
    return answer(request, 0.5)


async def rollout_with(reward: float, request: RolloutRequest, _: Request) -> RolloutResponse:
    return answer(request, reward)


@pytest.mark.parametrize(
    "rollout",
    [
        pytest.param(lambda request, _: answer(request, 0.5), id="def"),
        pytest.param(rollout_async, id="async def"),
        pytest.param(functools.partial(rollout_with, 0.5), id="partial"),
        pytest.param(Callable2(), id="object"),
        pytest.param(lambda request, _: rollout_async(request, _), id="def that gives a coroutine"),
        pytest.param(lambda request, _: answer(request, 0.5).model_dump(), id="mapping"),
        pytest.param(
            lambda request, _: {
                "trace_correlation_id": request.trace_correlation_id,
                "metrics": {"reward_mean": 0.5},
            },
            id="older mapping",
        ),
    ],
)
def test_a_rollout_may_be_any_callable(rollout: Any) -> None:
    reply = TaskCaller(create_local_api(toy_config(rollout=rollout))).rollout()
    assert reply.status_code == 200, reply.text
    assert reply.json()["reward_info"]["outcome_reward"] == 0.5


def test_a_plain_rollout_runs_in_a_thread_and_an_async_one_in_the_loop() -> None:
    threads: list[str] = []

    def plain(request: RolloutRequest, _: Request) -> RolloutResponse:
        threads.append(threading.current_thread().name)
        return answer(request)

    async def in_loop(request: RolloutRequest, _: Request) -> RolloutResponse:
        threads.append(threading.current_thread().name)
        return answer(request)

    for rollout in (plain, in_loop):
        TaskCaller(create_local_api(toy_config(rollout=rollout))).rollout()
    assert threads == ["synth-rollout_0", threading.current_thread().name]


def test_a_rollout_gets_the_request_and_can_read_its_body_again() -> None:
    seen: list[Any] = []

    async def rollout(request: RolloutRequest, fastapi_request: Request) -> RolloutResponse:
        seen.extend([request.env.seed, request.policy.config["model"], await fastapi_request.json()])
        return answer(request)

    body = rollout_body(7, run_id="unknown keys are ignored")
    TaskCaller(create_local_api(toy_config(rollout=rollout))).request("POST", "/rollout", json=body)
    assert seen == [7, "m-1", body]


def test_64_blocking_rollouts_run_at_once() -> None:
    together = threading.Barrier(64)

    def rollout(request: RolloutRequest, _: Request) -> RolloutResponse:
        together.wait(20)
        return answer(request)

    async def main(url: str) -> list[int]:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

            async def post(seed: int) -> int:
                async with session.post(f"{url}/rollout", json=rollout_body(seed)) as reply:
                    return reply.status

            return await asyncio.gather(*map(post, range(64)))

    with ServerThread(create_local_api(toy_config(rollout=rollout, require_api_key=False))) as server:
        assert asyncio.run(main(server.url)) == [200] * 64


class Stamp:
    def __init__(self, app: ASGIApp, name: str) -> None:
        self.app, self.name = app, name

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope.setdefault("state", {})["stamp"] = self.name
        await self.app(scope, receive, send)


def test_routers_middleware_and_state_are_added() -> None:
    router = APIRouter()

    @router.get("/own")
    async def own(request: Request) -> list[str]:
        return [request.app.state.greeting, request.scope["state"]["stamp"]]

    app = create_local_api(
        toy_config(routers=[router], middleware=[Middleware(Stamp, name="x")], app_state={"greeting": "hi"})
    )
    assert TaskCaller(app).get("/own", headers={}).json() == ["hi", "x"]


@pytest.mark.parametrize(
    ("origins", "allowed"),
    [(["*"], "*"), (["http://a.test"], "http://a.test"), (None, None), ([], None)],
    ids=["all", "named", "none", "empty"],
)
def test_cors_is_for_the_origins_that_were_named(origins: list[str] | None, allowed: str | None) -> None:
    caller = TaskCaller(create_local_api(toy_config(cors_origins=origins)))
    reply = caller.get("/", headers={"Origin": "http://a.test"})
    assert reply.headers.get("access-control-allow-origin") == allowed


def test_hooks_run_at_start_and_stop_with_or_without_the_app() -> None:
    log: list[Any] = []

    async def opened(app: Any) -> None:
        log.append(("opened", app.title))

    async def closed() -> None:
        log.append("closed")

    app = create_local_api(
        toy_config(
            startup_hooks=[lambda: log.append("start"), opened],
            shutdown_hooks=[closed, lambda app: log.append(("stop", app.title))],
        )
    )
    with ServerThread(app):
        assert log == ["start", ("opened", "Toy")]
    assert log[2:] == ["closed", ("stop", "Toy")]


def test_threads_end_with_the_app_and_start_again_with_it() -> None:
    app = create_local_api(toy_config(require_api_key=False))

    def workers() -> list[str]:
        return [thread.name for thread in threading.enumerate() if thread.name.startswith("synth-rollout")]

    for _ in range(2):
        with ServerThread(app) as server:
            assert httpx.post(f"{server.url}/rollout", json=rollout_body()).status_code == 200
            assert workers() == ["synth-rollout_0"]
        for thread in threading.enumerate():
            if thread.name.startswith("synth-rollout"):
                thread.join(5)
        assert workers() == []


def test_a_proxy_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"LocalAPIConfig\.proxy is not supported; send model calls to"):
        create_local_api(toy_config(proxy=object()))


def test_the_openapi_document_names_the_routes() -> None:
    paths = TaskCaller(create_local_api(toy_config())).get("/openapi.json").json()["paths"]
    assert {"/health", "/info", "/task_info", "/rollout", "/done"} <= paths.keys()
