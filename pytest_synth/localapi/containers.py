"""Use a Synth container (`synth-containers` 0.4: `/program`, `/taskset`, `/rollout`) as a task app.

The container keeps its rows, its score and its prompt. The adapter asks it for one rollout at a time, names
the caller's `inference_url` as the model's address, and reads the reward out of its answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Protocol
from uuid import uuid4

from fastapi import FastAPI, Request
from starlette.types import ASGIApp

from pytest_synth.contracts.rollouts import RolloutRequest
from pytest_synth.errors import TaskAppError
from pytest_synth.localapi.app import create_local_api
from pytest_synth.localapi.config import LocalAPIConfig
from pytest_synth.localapi.container_link import ContainerLink
from pytest_synth.localapi.container_shapes import (
    ENDED,
    Routes,
    check_seed,
    choose_split,
    policy_of,
    read_answer,
    refused_fields,
    shorten,
    split_sizes,
)

_POLL_S = 0.25  # a container that does not answer at once runs for seconds


class HasFastAPI(Protocol):
    """What `synth_containers.Container` is."""

    def fastapi(self) -> Any: ...


def container_app(container: str | ASGIApp | HasFastAPI, *, name: str = "container") -> FastAPI:
    """Make a task app of a container.

        from pytest_synth.localapi.containers import container_app

        app = container_app(my_container)                 # a synth_containers.Container
        app = container_app(service.app)                  # or its ASGI app
        app = container_app("http://127.0.0.1:8765")      # or one that runs already

    A seed is the task `{split}:{seed}` of the container's taskset. The container gets its own
    `seed_candidate` as the candidate; a prompt under test is applied by the gateway, on the way to the model.
    So its model calls must go to `policy.inference_url`, as `credential_mode: proxy` asks; the caller's own
    keys are never sent. A container that insists on a provider's key in its environment takes any value.

    Args:
        container: A `Container`, an ASGI app (called in this process, its lifespan included), or the base URL
            of a container that runs.
        name: Name of the task.
    """
    task = _ContainerTask(ContainerLink(container.fastapi() if hasattr(container, "fastapi") else container))
    return create_local_api(
        LocalAPIConfig(
            app_id=name,
            name=name,
            description=f"Task app {name!r}, made of a Synth container",
            provide_taskset_description=task.describe,
            provide_task_instances=task.instances,
            rollout=task.rollout,
            startup_hooks=(task.link.open,),
            shutdown_hooks=(task.link.close,),
        )
    )


class _ContainerTask:
    """Translates between a task app's requests and a container's."""

    def __init__(self, link: ContainerLink) -> None:
        self.link = link
        self._known_routes: Routes | None = None
        self._taskset: dict[str, Any] | None = None
        self._candidate: dict[str, Any] | None = None
        self._refused: frozenset[str] = frozenset()  # fields of a rollout that this container does not take

    async def describe(self) -> dict[str, Any]:
        taskset = await self._read_taskset()
        sizes = split_sizes(taskset)
        return {**taskset, "splits": list(sizes), "sizes": {k: n for k, n in sizes.items() if n is not None}}

    async def instances(self, seeds: Sequence[int]) -> list[dict[str, Any]]:
        """A request for instances names no split: the first one is meant."""
        taskset = await self._read_taskset()
        split = next(iter(split_sizes(taskset)), "train")
        return [await self._instance(taskset, split, seed) for seed in seeds]

    async def rollout(self, request: RolloutRequest, _: Request) -> dict[str, Any]:
        taskset = await self._read_taskset()
        split = choose_split(request.env.config.get("split"), taskset)
        seed = request.env.seed
        check_seed(seed, split, split_sizes(taskset).get(split))
        body = {
            # A retry must run again: containers answer a known id with what they had.
            "rollout_id": f"{request.trace_correlation_id}-{uuid4().hex[:8]}",
            "trace_correlation_id": request.trace_correlation_id,
            "submission_mode": "sync",
            "seed": seed,
            "split": split,
            "env": {"seed": seed, "config": {"split": split}},  # where strict containers may look for it
            "candidate": await self._read_candidate(),
            "policy": policy_of(request.policy.config),
        }
        task = await self._task(split, seed)
        if task is not None:
            body |= {name: task[name] for name in ("task_id", "task_instance_id") if name in task}
            body["task"] = task
        answer = await self._run(body, request.safety.max_time_s)
        return {"trace_correlation_id": request.trace_correlation_id, **read_answer(answer)}

    async def _instance(self, taskset: Mapping[str, Any], split: str, seed: int) -> dict[str, Any]:
        check_seed(seed, split, split_sizes(taskset).get(split))
        task = await self._task(split, seed) or {}
        identity = str(taskset.get("taskset_id") or "container")
        return {
            "task": {"id": identity, "name": identity},
            "dataset": {"id": identity, "split": split, "index": seed},
            "inference": {},
            "limits": {},
            "task_metadata": {"seed": seed, "split": split, "task_id": task.get("task_id")},
        }

    async def _routes(self) -> Routes:
        if self._known_routes is None:
            self._known_routes = Routes.read(await self.link.ask("GET", "/metadata") or {})
        return self._known_routes

    async def _read_taskset(self) -> dict[str, Any]:
        if self._taskset is None:
            self._taskset = await self.link.ask("GET", (await self._routes()).taskset) or {}
        return self._taskset

    async def _read_candidate(self) -> dict[str, Any]:
        if self._candidate is None:
            program = await self.link.ask("GET", (await self._routes()).program) or {}
            candidate = program.get("seed_candidate")
            self._candidate = dict(candidate) if isinstance(candidate, Mapping) else {}
        return self._candidate

    async def _task(self, split: str, seed: int | None) -> dict[str, Any] | None:
        """The container's row of a seed; None if it tells no rows."""
        task_id = f"{split}:{seed}"
        route = (await self._routes()).tasks
        answer = await self.link.ask("POST", route, {"split": split, "task_ids": [task_id]})
        if answer is None:
            return None
        tasks = answer.get("tasks")
        if not isinstance(tasks, list) or len(tasks) != 1 or not isinstance(tasks[0], Mapping):
            raise TaskAppError(f"the container gave no task {task_id!r}: {route} answered {shorten(answer)}")
        return dict(tasks[0])

    async def _run(self, body: dict[str, Any], time_s: float) -> dict[str, Any]:
        """Run a rollout to its end, whether the container answers at once or later."""
        answer = await self._submit(body)
        deadline = asyncio.get_running_loop().time() + time_s
        while answer.get("status") not in ENDED:
            if not isinstance(answer.get("status"), str):
                raise TaskAppError(f"the container's answer to a rollout has no status: {shorten(answer)}")
            if asyncio.get_running_loop().time() > deadline:
                raise TaskAppError(
                    f"the container's rollout is still {answer['status']!r} after {time_s:g} s"
                )
            await asyncio.sleep(_POLL_S)
            found = await self.link.ask("GET", f"/rollouts/{answer.get('rollout_id') or body['rollout_id']}")
            if found is None:
                raise TaskAppError(f"the container left a rollout {answer['status']!r} and forgot it")
            answer = found
        return answer

    async def _submit(self, body: dict[str, Any]) -> dict[str, Any]:
        """Submit a rollout; a container that takes fewer fields says so once, and is then spared them."""
        route = (await self._routes()).rollout
        while True:
            sent = {name: value for name, value in body.items() if name not in self._refused}
            status, answer = await self.link.exchange("POST", route, sent)
            refused = refused_fields(answer) & sent.keys() if status == 422 else frozenset()
            if not refused:
                return self.link.read("POST", route, status, answer)
            self._refused |= refused
