"""What a run starts and stops: backend, client, task apps with their tunnels."""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib import import_module
from inspect import Parameter, signature
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit

from pytest_synth.errors import ConfigError, SynthError, TaskAppError

if TYPE_CHECKING:
    from pytest_synth._serving import ServerThread
    from pytest_synth.client import SynthClient
    from pytest_synth.evals.settings import Settings

KEY_VARIABLE = "ENVIRONMENT_API_KEY"


@dataclass(frozen=True)
class AppReference:
    """A task app by its import string; imported only where it is served."""

    target: str
    rootpath: Path


@dataclass(frozen=True)
class AppAddress:
    """Where the backend reaches a task app, and the key that it has to send (None: the user's own)."""

    url: str
    tunnel: str
    key: str | None


class CurrentTunnel:
    """The tunnel to the task app of the test that is running.

    One object for the session, as a session fixture must be; two folders of tests with two apps still
    see each its own.
    """

    def __init__(self, locate: Callable[[], AppAddress]) -> None:
        self._locate = locate

    @property
    def url(self) -> str:
        return self._locate().url

    @property
    def backend(self) -> str:
        """Kind of the tunnel, as in `--synth-tunnel`."""
        return self._locate().tunnel


class Owner(Protocol):
    """Another process that owns the backend and the app of the settings, such as xdist's controller."""

    def backend(self) -> tuple[str, str]: ...

    def app(self, target: str, rootpath: Path) -> AppAddress: ...


class Resources:
    """Starts each thing when it is first asked for, once, and stops all of them in `close`.

    Args:
        owner: Asked for the backend and for apps by import string, which then are not started here.
    """

    def __init__(self, settings: Settings, owner: Owner | None = None) -> None:
        self._settings = settings
        self._owner = owner
        self._stack = ExitStack()
        self._client: SynthClient | None = None
        self._apps: dict[object, AppAddress | SynthError] = {}
        self._kept: list[object] = []  # apps are keyed by identity, so they must stay alive
        self._key: str | None = None
        self._servers: list[ServerThread] = []

    def default_app(self) -> object:
        """The app that `--synth-app` names, not imported yet."""
        assert self._settings.app is not None, "checked at collection"
        return AppReference(self._settings.app, self._settings.rootpath)

    def client(self) -> SynthClient:
        """Client of the configured backend; starts the embedded one at the first call."""
        if self._client is None:
            self._client = self._open_client()
        return self._client

    @property
    def is_local(self) -> bool:
        return self._settings.backend == "local"

    def address_of(self, app: object) -> AppAddress:
        """Serve a task app once and say where it is.

        Args:
            app: An ASGI app, an `AppReference`, or the URL of a task app that runs already.

        Raises:
            SynthError: If it cannot be imported, served or reached; the same again at every call.
        """
        key = app if isinstance(app, str | AppReference) else id(app)
        if key not in self._apps:
            self._kept.append(app)
            try:
                self._apps[key] = self._serve(app)
            except SynthError as error:
                self._apps[key] = error
        found = self._apps[key]
        if isinstance(found, SynthError):
            raise found
        return found

    def close(self) -> None:
        for server in self._servers:
            server.begin_stop()  # while the backend stops, which cuts their rollouts
        self._stack.close()
        self._client = None

    def _open_client(self) -> SynthClient:
        from pytest_synth.client import SynthClient
        from pytest_synth.client.credentials import backend_url, synth_api_key
        from pytest_synth.client.transport import StdlibTransport

        if self._owner is not None:
            url, key = self._owner.backend()
        elif self.is_local:
            from pytest_synth.backend import BackendSettings, start
            from pytest_synth.evals.certainty import is_certain

            settings = BackendSettings(concurrency=self._settings.concurrency, is_certain=is_certain)
            backend = self._stack.enter_context(start(settings))
            url, key = backend.url, backend.key
        else:
            named = self._settings.backend
            url = backend_url(None if named == "hosted" else named)
            key = synth_api_key()
        # A respx.mock of the user's test patches httpcore in the whole process; calls to our own
        # loopback backend must not be caught by it.
        transport = StdlibTransport() if _is_loopback(url) else None
        return SynthClient(url, key, transport=transport)

    def _serve(self, app: object) -> AppAddress:
        if isinstance(app, str):
            if not app.startswith(("http://", "https://")):
                raise ConfigError(f"the task app is {app!r}; give an ASGI app or an http(s) URL")
            return AppAddress(app.rstrip("/"), "none", os.environ.get(KEY_VARIABLE))
        if isinstance(app, AppReference):
            if self._owner is not None:
                return self._owner.app(app.target, app.rootpath)
            app = load_app(app)
        if not callable(app):
            raise ConfigError(
                f"the task app is an object of type {type(app).__name__}; give an ASGI app or an http(s) URL"
            )
        from pytest_synth._serving import ServerDied, ServerThread

        if self._key is None:
            self._key = self._stack.enter_context(environment_key())
        try:
            server = self._stack.enter_context(ServerThread(app, name="synth-task-app"))
        except ServerDied as error:
            cause = error.__cause__ or error
            raise TaskAppError(f"the task app did not start: {_describe(cause)}") from error
        self._servers.append(server)
        return AppAddress(server.url, "localhost", self._key)


@contextmanager
def environment_key() -> Iterator[str]:
    """The key that backend and task app share: the user's ENVIRONMENT_API_KEY, else one for this run."""
    existing = os.environ.get(KEY_VARIABLE) or os.environ.get(f"DEV_{KEY_VARIABLE}")
    if existing:
        yield existing
        return
    key = secrets.token_hex(32)
    os.environ[KEY_VARIABLE] = key  # where every task app looks, the published SDK's included
    try:
        yield key
    finally:
        if os.environ.get(KEY_VARIABLE) == key:
            del os.environ[KEY_VARIABLE]


def load_app(reference: AppReference) -> Any:
    """Import a task app, with the root folder of the tests on the path; call it if it is a factory.

    Raises:
        TaskAppError: If module or attribute is not there, or if importing or calling it fails.
    """
    module_name, _, attribute = reference.target.partition(":")
    root = str(reference.rootpath)
    if root not in sys.path:
        sys.path.insert(0, root)
    try:
        value: Any = import_module(module_name)
        for name in attribute.split("."):
            value = getattr(value, name)
        if _is_factory(value):
            value = value()
    except Exception as error:
        raise TaskAppError(f"cannot load the task app {reference.target!r}: {_describe(error)}") from error
    return value


def _is_factory(value: Any) -> bool:
    """An ASGI app takes three arguments; a factory none."""
    if not callable(value):
        return False
    try:
        parameters = signature(value).parameters.values()
    except (TypeError, ValueError):
        return False
    return not any(
        p.default is Parameter.empty and p.kind not in (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)
        for p in parameters
    )


def _is_loopback(url: str) -> bool:
    parts = urlsplit(url)
    return parts.scheme == "http" and parts.hostname in ("127.0.0.1", "localhost", "::1")


def _describe(error: BaseException) -> str:
    text = str(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
