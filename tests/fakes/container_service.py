"""A task in the contract of Synth containers: it upper-cases letters, and records what it was asked."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, HTTPException
from fastapi.responses import JSONResponse

ROWS = {"train": ["a"], "test": ["a", "b", "c"]}


class FakeContainer:
    """Its `answer` is the finished rollout; what the test replaces in it is sent instead.

    Args:
        routes: Where its routes are, by their names in `/metadata`; a route that is None is missing.
        refused: Top-level fields of a rollout that it does not take.
        running: How often a rollout is still running when it is asked for.
    """

    def __init__(
        self, *, routes: dict[str, str | None] | None = None, refused: tuple[str, ...] = (), running: int = 0
    ) -> None:
        usual = {"program": "/program", "taskset": "/taskset", "taskset_tasks": "/taskset/tasks"}
        self.routes = {**usual, "rollout": "/rollout", **(routes or {})}
        self.refused = refused
        self.running = running
        self.rollouts: list[dict[str, Any]] = []
        self.asked: list[str] = []
        self.events: list[str] = []
        self.answer: dict[str, Any] = {
            "status": "completed",
            "success_status": "failed",
            "reward_info": {"outcome_reward": 0.5, "event_rewards": [0.5], "details": {}},
        }
        self.error: HTTPException | None = None

    def fastapi(self) -> FastAPI:
        app = FastAPI(lifespan=self._lifespan)
        handlers: dict[str, tuple[str, Any]] = {
            "program": ("GET", self._program),
            "taskset": ("GET", self._taskset),
            "taskset_tasks": ("POST", self._tasks),
            "rollout": ("POST", self._rollout),
        }
        app.add_api_route("/metadata", self._metadata)
        app.add_api_route("/rollouts/{rollout_id}", self._later)
        for name, (method, handler) in handlers.items():
            route = self.routes[name]
            if route is not None:
                app.add_api_route(route, handler, methods=[method])
        return app

    @asynccontextmanager
    async def _lifespan(self, _: FastAPI) -> AsyncIterator[None]:
        self.events.append("started")
        yield
        self.events.append("stopped")

    async def _metadata(self) -> dict[str, Any]:
        self.asked.append("metadata")
        routes = {f"{name}_route": route for name, route in self.routes.items()}
        return {"metadata": {"optimizer_contracts": {"gepa": routes}}}

    async def _program(self) -> dict[str, Any]:
        self.asked.append("program")
        return {"seed_candidate": {"system": "upper-case it"}}

    async def _taskset(self) -> dict[str, Any]:
        self.asked.append("taskset")
        return {"taskset_id": "letters", "splits": {split: len(rows) for split, rows in ROWS.items()}}

    async def _tasks(self, body: dict[str, Any]) -> dict[str, Any]:
        tasks = []
        for task_id in body["task_ids"]:
            split, _, seed = task_id.partition(":")
            tasks.append(
                {"task_id": task_id, "split": split, "seed": int(seed), "text": ROWS[split][int(seed)]}
            )
        return {"tasks": tasks}

    async def _rollout(self, body: dict[str, Any]) -> Any:
        refused = [name for name in self.refused if name in body]
        if refused:
            detail = [{"type": "extra_forbidden", "loc": ["body", name], "input": 0} for name in refused]
            return JSONResponse({"detail": detail}, 422)
        self.rollouts.append(body)
        if self.error is not None:
            raise self.error
        return self._record(body["rollout_id"])

    async def _later(self, rollout_id: str) -> dict[str, Any]:
        self.asked.append(rollout_id)
        return self._record(rollout_id)

    def _record(self, rollout_id: str) -> dict[str, Any]:
        if self.running:
            self.running -= 1
            return {"rollout_id": rollout_id, "status": "running"}
        return {"rollout_id": rollout_id, **self.answer}
