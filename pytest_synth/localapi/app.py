"""The FastAPI app around the user's functions: routes, key, errors, lifespan."""

from __future__ import annotations

import asyncio
import inspect
import os
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import Depends, FastAPI, HTTPException, Query, Request, Response
from fastapi.middleware.cors import CORSMiddleware
from pydantic import BaseModel, ValidationError
from starlette.exceptions import HTTPException as AnyHTTPException

from pytest_synth.contracts.rollouts import (
    DatasetInfo,
    InferenceInfo,
    LimitsInfo,
    RolloutRequest,
    TaskDescriptor,
    TaskInfo,
)
from pytest_synth.errors import ConfigError
from pytest_synth.localapi.answers import InvalidAnswer, describe, encode, encode_answer
from pytest_synth.localapi.auth import allowed_keys, presented_keys, require_key
from pytest_synth.localapi.calls import CallerGone, Threads, call, collect, until_gone
from pytest_synth.localapi.config import Hook, LocalAPIConfig
from pytest_synth.localapi.failures import environment_secrets, failure, raised, redact, redact_detail

_SHOWN_KEYS = ("OPENAI_API_KEY", "GROQ_API_KEY")


def create_local_api(config: LocalAPIConfig) -> FastAPI:
    """Make a task app: the HTTP API that a Synth backend calls to run your task.

        app = create_local_api(
            LocalAPIConfig(
                app_id="intents",
                name="Intents",
                description="Classify customer queries",
                provide_taskset_description=lambda: {"splits": ["test"], "sizes": {"test": 120}},
                provide_task_instances=task_instances,
                rollout=rollout,
            )
        )

    `task_app` is shorter where a task is rows, one function that calls the model and a score.

    Routes: `/` (open), `/health`, `/info`, `/task_info`, `/rollout`, `/done` and `/debug/env` (all behind
    the key in ENVIRONMENT_API_KEY). A rollout that raises is answered with 500 and
    `{"detail": {"error": {"code": "rollout_failed", "message": "ValueError: ... (app.py:12 in rollout)"}}}`;
    an answer that does not fit with 500 and `invalid_rollout_response`, naming the field.

    Raises:
        ConfigError: If the config asks for what is not supported (`proxy`).
    """
    return build_app(config, Threads())


def build_app(config: LocalAPIConfig, threads: Threads) -> FastAPI:
    """Make the app with threads that the caller uses, too; the app's lifespan closes them."""
    if config.proxy is not None:
        raise ConfigError(
            "LocalAPIConfig.proxy is not supported; send model calls to policy.config['inference_url']"
        )
    routes = _Routes(config, threads)
    app = FastAPI(title=config.name, description=config.description, lifespan=routes.lifespan)
    for name, value in config.app_state.items():
        setattr(app.state, name, value)
    for middleware in config.middleware:
        app.add_middleware(middleware.cls, *middleware.args, **middleware.kwargs)
    if config.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(config.cors_origins),
            allow_methods=["*"],
            allow_headers=["*"],
        )
    for router in config.routers:
        app.include_router(router)
    guard = [Depends(require_key)] if config.require_api_key else []
    app.add_api_route("/", routes.root, methods=["GET", "HEAD"], include_in_schema=False)
    app.add_api_route("/health", routes.health, dependencies=guard)
    app.add_api_route("/info", routes.info, dependencies=guard)
    app.add_api_route("/task_info", routes.task_info, dependencies=guard)
    app.add_api_route("/rollout", routes.rollout, methods=["POST"], dependencies=guard)
    app.add_api_route("/done", routes.done, methods=["POST"], dependencies=guard)
    if config.expose_debug_env:
        app.add_api_route("/debug/env", routes.debug_env, dependencies=guard)
    return app


class _Routes:
    """The handlers of one task app."""

    def __init__(self, config: LocalAPIConfig, threads: Threads) -> None:
        self._config = config
        self._threads = threads
        self._task = config.base_task_info or TaskInfo(
            task=TaskDescriptor(id=config.app_id, name=config.name, description=config.description),
            dataset=DatasetInfo(id=config.app_id),
            inference=InferenceInfo(),
            limits=LimitsInfo(),
        )

    @asynccontextmanager
    async def lifespan(self, app: FastAPI) -> AsyncIterator[None]:
        self._threads.open()
        try:
            for hook in self._config.startup_hooks:
                await _call_hook(hook, app)
            yield
        finally:
            try:
                for hook in self._config.shutdown_hooks:
                    await _call_hook(hook, app)
            finally:
                self._threads.close()

    async def root(self) -> dict[str, Any]:
        return {"status": "ok", "service": self._config.app_id}

    async def health(self) -> dict[str, Any]:
        return {"healthy": True, "auth": {"required": self._config.require_api_key}}

    async def done(self) -> dict[str, Any]:
        return {"ok": True, "service": self._config.app_id}

    async def debug_env(self) -> dict[str, Any]:
        """The published field names; a key that is set shows as `***` and tells nothing of itself."""
        shown = {f"{name}_prefix": "***" if os.environ.get(name) else "" for name in _SHOWN_KEYS}
        return {"has_ENVIRONMENT_API_KEY": bool(allowed_keys()), **shown}

    async def info(self) -> Response:
        task = self._task
        document = {
            "service": {"task": task.task, "version": task.task.version},
            "dataset": task.dataset,
            "inference": task.inference,
            "limits": task.limits,
        }
        if self._config.rubrics is not None:
            document["rubrics"] = self._config.rubrics
        return _json(encode(document))

    async def task_info(
        self,
        request: Request,
        seed: Annotated[list[int] | None, Query()] = None,
        seeds: Annotated[list[int] | None, Query()] = None,
    ) -> Response:
        asked = [*(seed or ()), *(seeds or ())]
        answer = self._instances(asked) if asked else self._description()
        return _json(await self._answer(request, "task_info_failed", answer, ()))

    async def rollout(self, request: Request) -> Response:
        body = await request.body()
        try:
            asked = RolloutRequest.model_validate_json(body)
        except ValidationError as error:
            # The input is left out: it may hold the caller's key.
            detail = error.errors(include_url=False, include_context=False, include_input=False)
            raise HTTPException(
                422, [{**entry, "loc": ["body", *entry["loc"]]} for entry in detail]
            ) from None
        key = asked.policy.config.get("api_key")
        secrets = [key] if isinstance(key, str) else []
        work = self._answer(request, "rollout_failed", self._rollout(asked, request), secrets)
        try:
            return _json(await until_gone(request, work))
        except CallerGone as error:
            raise failure(499, "caller_gone", str(error)) from error  # nginx's status; nobody reads it

    async def _rollout(self, asked: RolloutRequest, request: Request) -> bytes:
        answer = await call(self._threads, self._config.rollout, asked, request)
        return encode_answer(answer, asked.trace_correlation_id)

    async def _description(self) -> bytes:
        description = await call(self._threads, self._config.provide_taskset_description)
        if not isinstance(description, Mapping | BaseModel):
            raise InvalidAnswer(
                f"provide_taskset_description returned {type(description).__name__}; it must return a mapping"
            )
        return encode({"taskset": description})

    async def _instances(self, seeds: Sequence[int]) -> bytes:
        entries = await collect(self._threads, self._config.provide_task_instances, seeds)
        if len(entries) != len(seeds):
            raise InvalidAnswer(
                f"provide_task_instances gave {len(entries)} instances for {len(seeds)} seeds; "
                "it must give one for each"
            )
        instances = [_instance(entry, seed) for entry, seed in zip(entries, seeds, strict=True)]
        return encode(instances[0] if len(instances) == 1 else instances)

    async def _answer(
        self, request: Request, code: str, work: Awaitable[bytes], secrets: Sequence[str]
    ) -> bytes:
        """Await an answer; whatever goes wrong becomes a structured error without keys.

        Raises:
            HTTPException: The error.
        """
        try:
            return await work
        except InvalidAnswer as error:
            problem = str(error)
            invalid = "invalid_rollout_response" if code == "rollout_failed" else "invalid_task_info"
            keys = self._secrets(request, secrets)
            raise failure(500, invalid, redact(problem, keys)) from error
        except AnyHTTPException as error:
            detail = redact_detail(error.detail, self._secrets(request, secrets))
            raise HTTPException(error.status_code, detail, error.headers) from error
        # Also SystemExit, and pytest's outcomes (pytest.fail): neither may stop the server.
        except BaseException as error:
            if isinstance(error, GeneratorExit) or _is_being_cancelled(error) or _is_interrupt(error):
                raise
            raise raised(code, error, self._secrets(request, secrets)) from error

    def _secrets(self, request: Request, more: Sequence[str]) -> list[str]:
        return [*more, *presented_keys(request), *allowed_keys(), *environment_secrets()]


def _instance(entry: object, seed: int) -> TaskInfo:
    try:
        return entry if isinstance(entry, TaskInfo) else TaskInfo.model_validate(entry, from_attributes=True)
    except ValidationError as error:
        raise InvalidAnswer(
            f"provide_task_instances gave no TaskInfo for seed {seed}: {describe(error)}"
        ) from error


def _is_being_cancelled(error: BaseException) -> bool:
    """Whether the request is being cancelled, and not the user's code cancelling something of its own."""
    task = asyncio.current_task()
    return isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling() > 0


def _is_interrupt(error: BaseException) -> bool:
    """Whether somebody has pressed Ctrl-C, which only the main thread hears; elsewhere the code raised it."""
    return isinstance(error, KeyboardInterrupt) and threading.current_thread() is threading.main_thread()


async def _call_hook(hook: Hook, app: FastAPI) -> None:
    parameters = inspect.signature(hook).parameters
    started: Callable[..., Any] = hook
    result = started(app) if parameters else started()
    if inspect.isawaitable(result):
        await result


def _json(body: bytes) -> Response:
    return Response(body, media_type="application/json")
