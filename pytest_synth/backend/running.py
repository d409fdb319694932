"""Start the embedded backend in a thread of this process, and stop it for certain."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pytest_synth._serving import ServerThread, bind_loopback
from pytest_synth.backend.app import BackendApp
from pytest_synth.backend.gateway import Budget, Gateway, Relay
from pytest_synth.backend.jobs.curtailment import IsCertain
from pytest_synth.backend.jobs.feeds import LINGER_S
from pytest_synth.backend.store import RootSecret, Store, Tenants
from pytest_synth.errors import ConfigError
from pytest_synth.prompts import Prompt

_CUT_S = 1.0  # for jobs to let go of what they hold; they need milliseconds


@dataclass(frozen=True)
class BackendSettings:
    """How a backend is started.

    Attributes:
        host, port: Where it listens; port 0 lets the system choose.
        db: File that keeps jobs and keys beyond the process, with `<db>.key` beside it. None: a temporary
            file without a name, which is gone when the process is, however it ends.
        local_key: API key of the machine's own user. None: a random one, for the same `db` the same.
        concurrency: Rollouts in flight in the whole backend.
        resume: Go on with the unfinished jobs of `db`.
        stream_linger_s: How long a stream of events, read without a cursor, holds back the event of a job's
            end; published clients ask for the status every 2 s, and need to have seen it by then.
        is_certain: Decides for evals that ask for `fail_fast` whether their gate can still pass; without it
            they run to their end.
        cassettes: Folder below which model calls are recorded and replayed; None: they are not.
        redact: Regular expressions of what must not get into a cassette.
        providers, prices: The user's own (see `Gateway`).
        max_cost_usd: Ceiling for the model calls of all jobs together.
        environ: Where keys and base URLs of model providers are read. None: the process's environment.
    """

    host: str = "127.0.0.1"
    port: int = 0
    db: Path | None = None
    local_key: str | None = field(default=None, repr=False)
    concurrency: int = 16
    resume: bool = False
    stream_linger_s: float = LINGER_S
    is_certain: IsCertain | None = None
    cassettes: Path | None = None
    redact: Sequence[str] = ()
    providers: Mapping[str, Mapping[str, Any]] | None = None
    prices: Mapping[str, Mapping[str, Any]] | None = None
    max_cost_usd: float | None = None
    environ: Mapping[str, str] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.concurrency < 1:
            raise ConfigError(f"concurrency is {self.concurrency}; it must be at least 1")
        if self.local_key is not None and len(self.local_key) < 16:
            raise ConfigError("local_key is shorter than 16 characters; leave it out for a random one")


class RunningBackend:
    """A backend that serves until `stop`, or until its `with` block is left.

    Attributes:
        url: Base URL, without `/api`.
        key: Local API key.
    """

    def __init__(self, settings: BackendSettings) -> None:
        self._stack = ExitStack()
        with ExitStack() as stack:  # unwinds what was opened when a later step fails
            environ = dict(os.environ if settings.environ is None else settings.environ)
            root = RootSecret.random() if settings.db is None else RootSecret.beside(settings.db)
            limit = settings.max_cost_usd
            self.key = settings.local_key if settings.local_key is not None else root.local_key
            store = stack.enter_context(Store(settings.db, root))
            tenants = Tenants(store.api_keys, self.key)
            self._app = BackendApp(
                store=store,
                tenants=tenants,
                gateway=Gateway(
                    environ=environ,
                    authorize=tenants.authorize,
                    providers=settings.providers,
                    prices=settings.prices,
                    cassettes=settings.cassettes,
                    redact=settings.redact,
                ),
                environ=environ,
                concurrency=settings.concurrency,
                resume=settings.resume,
                linger_s=settings.stream_linger_s,
                is_certain=settings.is_certain,
                budget=None if limit is None else Budget(limit, name="the run's max_cost"),
            )
            try:
                sock = bind_loopback(settings.port, settings.host)
            except OSError as error:
                raise ConfigError(
                    f"cannot listen on {settings.host}:{settings.port}: {error.strerror or error};"
                    " port 0 takes a free one"
                ) from error
            self._server = server = ServerThread(self._app.asgi, sock=sock, name="synth-backend")
            self.url = server.url.replace("//0.0.0.0:", "//127.0.0.1:").replace("//[::]:", "//[::1]:")
            self._app.gateway.base_url = self.url
            stack.enter_context(server)
            stack.callback(self._app.cut, _CUT_S)
            self._stack = stack.pop_all()

    async def open_relay(self, chat_url: str, *, prompt: Prompt | None, correlation_id: str) -> Relay:
        """Let the model calls of another backend's rollout pass through this one's gateway.

        Called, as the relay's `close` is, on any event loop but the backend's own.

        Args:
            chat_url: Where the other backend wants the rollout's chat completions.
            prompt: Replaces the task app's own, as in our own rollouts.
            correlation_id: The other backend's, for the URL that the task app gets.

        Raises:
            ConfigError: If `chat_url` is none.
        """
        return await Relay.open(self._app.gateway, chat_url, prompt=prompt, correlation_id=correlation_id)

    def describe_cassette(self, name: str) -> tuple[int, float | None]:
        """Calls that a cassette holds, and what they cost in US dollars (None: not known); for a plan.

        Raises:
            SynthError: If the name or the file is no cassette.
        """
        summary = self._app.gateway.describe_cassette(name)
        return summary.calls, summary.cost_usd

    @property
    def is_alive(self) -> bool:
        """Whether the server's thread still runs."""
        return self._server.is_alive

    def cancel_evals(self) -> None:
        """Cancel all eval jobs, and go on serving: who waits for one is told."""
        self._app.cancel_evals(_CUT_S)

    def cut_jobs(self) -> None:
        """Cut what runs, and go on serving: for the time until `stop`, in which others end too."""
        self._app.cut_jobs(_CUT_S)

    def stop(self) -> None:
        """Cut what runs, stop serving, remove the temporary database. A second call does nothing."""
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def start(settings: BackendSettings | None = None) -> RunningBackend:
    """Start a backend; it serves when this returns.

    Raises:
        ConfigError: If the port is taken, or the database is in use, newer, or none of ours.
    """
    return RunningBackend(settings if settings is not None else BackendSettings())
