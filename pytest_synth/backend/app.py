"""The backend's ASGI app: its parts put together, started and stopped on its loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any

from fastapi import FastAPI
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pytest_synth.backend.gateway import Budget, Gateway
from pytest_synth.backend.jobs.credentials import Credentials
from pytest_synth.backend.jobs.curtailment import IsCertain
from pytest_synth.backend.jobs.evals import EvalJobs
from pytest_synth.backend.jobs.feeds import Feeds
from pytest_synth.backend.jobs.gepa_optimizer import GepaOptimizer
from pytest_synth.backend.jobs.parts import Parts
from pytest_synth.backend.jobs.probe import Probe
from pytest_synth.backend.jobs.prompt_jobs import PromptJobs
from pytest_synth.backend.jobs.rollouts import RolloutRunner
from pytest_synth.backend.jobs.scheduler import Scheduler
from pytest_synth.backend.jobs.task_apps import TaskAppCaller
from pytest_synth.backend.routes import answers, evals, health, keys, prompt_learning, sundry
from pytest_synth.backend.routes.body_limit import BodyLimit
from pytest_synth.backend.routes.services import Services
from pytest_synth.backend.store import Store, Tenants


class OpenRequests:
    """ASGI middleware that can cut all requests that are being answered.

    Without it a stop would wait for model calls and event streams until uvicorn's patience ends.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._tasks: set[asyncio.Task[object]] = set()
        self._stopping = False

    def cut(self) -> None:
        """Answer what is open with 503, and end streams."""
        self._stopping = True
        for task in self._tasks:
            task.cancel()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        task = asyncio.current_task()
        if scope["type"] != "http" or task is None:
            await self._app(scope, receive, send)
            return
        started = False

        async def send_on(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        self._tasks.add(task)
        try:
            await self._app(scope, receive, send_on)
        except asyncio.CancelledError:
            if not self._stopping:
                raise
            if not started:
                await answers.Json({"detail": "the backend is stopping"}, status_code=503)(
                    scope, receive, send
                )
        finally:
            self._tasks.discard(task)


class BackendApp:
    """Everything that runs on the backend's loop.

    Attributes:
        asgi: The app to serve.
        gateway: Its `base_url` is set once the port is known.
    """

    def __init__(
        self,
        *,
        store: Store,
        tenants: Tenants,
        gateway: Gateway,
        environ: Mapping[str, str],
        concurrency: int,
        resume: bool,
        linger_s: float,
        is_certain: IsCertain | None = None,
        budget: Budget | None = None,
    ) -> None:
        self.gateway = gateway
        self._caller = TaskAppCaller()
        self._resume = resume
        self._loop: asyncio.AbstractEventLoop | None = None
        parts = Parts(
            store,
            gateway,
            Scheduler(concurrency),
            RolloutRunner(gateway, self._caller),
            Probe(self._caller),
            Credentials(store, tenants.local, environ),
            is_certain,
            budget,
        )
        self._evals = EvalJobs(parts)
        self._prompts = PromptJobs(parts, GepaOptimizer(store, gateway, ceiling=budget))
        api = FastAPI(
            title="pytest-synth backend",
            version=version("pytest-synth"),
            lifespan=self._lifespan,
            docs_url=None,  # its pages load scripts from the network
            redoc_url=None,
            default_response_class=answers.Json,
        )
        api.state.services = Services(
            store, tenants, self._evals, self._prompts, Feeds(store, linger_s=linger_s)
        )
        answers.install(api)
        api.add_middleware(BodyLimit)
        api.router.routes.extend(gateway.routes())  # first: tried in order, and asked for most (measured)
        for routes in (health, keys, sundry, evals, prompt_learning):
            api.include_router(routes.router)
        self._requests = OpenRequests(api)
        self.asgi: ASGIApp = self._requests

    @asynccontextmanager
    async def _lifespan(self, _: FastAPI) -> AsyncIterator[None]:
        self._loop = asyncio.get_running_loop()
        self._caller.open()
        await self.gateway.startup()
        if self._resume:
            self._evals.resume()
            self._prompts.resume()
        try:
            yield
        finally:
            await self._stop_jobs()
            try:
                await self.gateway.shutdown()
            finally:  # it raises if a cassette cannot be written
                await self._caller.close()

    def cancel_evals(self, timeout_s: float) -> None:
        """From another thread: cancel all eval jobs, at most `timeout_s` seconds long."""
        self._await(self._evals.cancel_all(), timeout_s)

    def cut_jobs(self, timeout_s: float) -> None:
        """From another thread: stop all jobs, at most `timeout_s` seconds long."""
        self._await(self._stop_jobs(), timeout_s)

    def cut(self, timeout_s: float) -> None:
        """From another thread: stop all jobs and cut all requests, at most `timeout_s` seconds long."""
        self._await(self._cut(), timeout_s)

    def _await(self, work: Coroutine[Any, Any, None], timeout_s: float) -> None:
        if self._loop is None or self._loop.is_closed():
            work.close()
            return
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            future.result(timeout_s)
        except TimeoutError:
            future.cancel()

    async def _cut(self) -> None:
        self._requests.cut()
        await self._stop_jobs()

    async def _stop_jobs(self) -> None:
        await asyncio.gather(self._evals.stop(), self._prompts.stop())
