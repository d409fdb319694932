"""A task app whose every rollout does what a test says; it counts what it was asked."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import FastAPI, Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

Behaviour = Callable[[dict[str, Any]], Awaitable[Response | dict[str, Any]]]


def reward_answer(body: dict[str, Any], reward: object = 1.0, **more: Any) -> dict[str, Any]:
    """A rollout's answer as a good task app gives it."""
    return {
        "trace_correlation_id": body["trace_correlation_id"],
        "reward_info": {"outcome_reward": reward, **more},
        "trace": None,
    }


class RolloutApp:
    """The app, what it was asked, and how it answers.

    Attributes:
        behave: What a rollout does; default: reward 1.0.
        bodies, headers: Of the rollouts, in the order in which they arrived.
        runs: How often each seed was run.
        most_in_flight: Most rollouts at once.
        described: How often `/task_info` was asked.
    """

    def __init__(
        self,
        behave: Behaviour | None = None,
        *,
        key: str | None = "env-key-1",
        sizes: dict[str, int] | None = None,
        health: Callable[[], Response] | None = None,
    ) -> None:
        self.behave = behave or _good
        self.key = key
        self.sizes = sizes
        self.health = health
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.runs: Counter[int] = Counter()
        self.in_flight = 0
        self.most_in_flight = 0
        self.described = 0
        self.app = FastAPI()
        self.app.get("/health")(self._health)
        self.app.get("/task_info")(self._task_info)
        self.app.post("/rollout")(self._rollout)

    def _refused(self, request: Request) -> Response | None:
        given = [request.headers.get("x-api-key"), *request.headers.get("x-api-keys", "").split(",")]
        if self.key is None or self.key in given:
            return None
        error = {"error": {"code": "unauthorised", "message": f"wrong key, not {self.key[:5]}"}}
        return JSONResponse({"detail": error}, status_code=400)

    async def _health(self, request: Request) -> Response:
        if self.health is not None:
            return self.health()
        return self._refused(request) or JSONResponse({"healthy": True})

    async def _task_info(self, request: Request) -> Response:
        self.described += 1
        if self.sizes is None:
            return JSONResponse({"detail": "Not Found"}, status_code=404)
        taskset = {"splits": list(self.sizes), "sizes": self.sizes}
        return self._refused(request) or JSONResponse({"taskset": taskset})

    async def _rollout(self, request: Request) -> Response:
        refused = self._refused(request)
        if refused is not None:
            return refused
        body = await request.json()
        self.bodies.append(body)
        self.headers.append(dict(request.headers))
        self.runs[body["env"]["seed"]] += 1
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            answer = await self.behave(body)
        finally:
            self.in_flight -= 1
        return answer if isinstance(answer, Response) else JSONResponse(answer)


class AppStage:
    """One server for many fake task apps, each below a path of its own: a server's stop takes 0.2 s."""

    def __init__(self) -> None:
        self._apps: dict[str, FastAPI] = {}

    def add(self, app: RolloutApp) -> str:
        """Put an app on; gives its path."""
        path = f"/app-{len(self._apps)}"
        self._apps[path] = app.app
        return path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":  # a server without start-up and shutdown work
            raise RuntimeError(f"no {scope['type']} here")
        path, _, rest = scope["path"][1:].partition("/")
        inner = {**scope, "path": f"/{rest}", "raw_path": f"/{rest}".encode()}
        await self._apps[f"/{path}"](inner, receive, send)


async def _good(body: dict[str, Any]) -> dict[str, Any]:
    await asyncio.sleep(0)
    return reward_answer(body)
