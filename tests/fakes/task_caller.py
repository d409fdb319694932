"""A small task app, and calls of a task app as a backend makes them, in the test's own process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import httpx
from fastapi import FastAPI

from pytest_synth.localapi import LocalAPIConfig, RolloutMetrics, RolloutRequest, RolloutResponse, TaskInfo

KEY = "env-key-0123456789abcdef"


def answer(request: RolloutRequest, reward: float = 1.0, **details: Any) -> RolloutResponse:
    """A response that fits a request."""
    return RolloutResponse(
        trace_correlation_id=request.trace_correlation_id,
        reward_info=RolloutMetrics(outcome_reward=reward, details=details),
    )


def instance(seed: int) -> TaskInfo:
    """The toy task's description of one seed."""
    return TaskInfo.model_validate(
        {
            "task": {"id": "toy", "name": "Toy"},
            "dataset": {"id": "toy", "split": "test", "index": seed},
            "inference": {},
            "limits": {},
            "task_metadata": {"seed": seed},
        }
    )


def toy_config(**fields: Any) -> LocalAPIConfig:
    """The toy task: every rollout earns 1; every field can be replaced."""
    usual: dict[str, Any] = {
        "app_id": "toy",
        "name": "Toy",
        "description": "A toy task",
        "provide_taskset_description": lambda: {"splits": ["test"], "sizes": {"test": 3}},
        "provide_task_instances": lambda seeds: [instance(seed) for seed in seeds],
        "rollout": lambda request, _: answer(request),
    }
    return LocalAPIConfig(**{**usual, **fields})


def rollout_body(seed: int | None = 0, **more: Any) -> dict[str, Any]:
    """A rollout request; `config` and `policy` go into `env.config` and `policy.config`."""
    config, policy = more.pop("config", {}), more.pop("policy", {})
    return {
        "trace_correlation_id": "trace_1",
        "env": {"env_name": "test", "seed": seed, "config": config},
        "policy": {"config": {"model": "m-1", "provider": "fake", **policy}},
        "on_done": "reset",
        **more,
    }


@asynccontextmanager
async def _no_lifespan(_: FastAPI) -> AsyncIterator[None]:
    yield


class TaskCaller:
    """Sends requests to one app, with the right key unless told otherwise.

    The app starts and stops for each request, unless `lifespan` is False: then it does neither.
    """

    def __init__(self, app: FastAPI, *, lifespan: bool = True) -> None:
        self._app = app
        self._lifespan = app.router.lifespan_context if lifespan else _no_lifespan

    def request(
        self,
        method: str,
        path: str,
        *,
        json: Any = None,
        headers: Mapping[str, str | bytes] | None = None,
        **more: Any,
    ) -> httpx.Response:
        async def send() -> httpx.Response:
            transport = httpx.ASGITransport(self._app)
            async with (
                self._lifespan(self._app),
                httpx.AsyncClient(transport=transport, base_url="http://task-app") as client,
            ):
                given = {"X-API-Key": KEY} if headers is None else headers
                sent = {k.encode(): v if isinstance(v, bytes) else v.encode() for k, v in given.items()}
                return await client.request(method, path, json=json, headers=sent, **more)

        return asyncio.run(send())

    def get(self, path: str, **more: Any) -> httpx.Response:
        return self.request("GET", path, **more)

    def rollout(self, seed: int | None = 0, **more: Any) -> httpx.Response:
        return self.request("POST", "/rollout", json=rollout_body(seed, **more))

    def refused(self, seed: int | None = 0, **more: Any) -> tuple[int, str, str]:
        """A rollout that must fail: its status, code and message."""
        answer = self.rollout(seed, **more)
        error = answer.json()["detail"]["error"]
        return answer.status_code, error["code"], error["message"]
