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
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from pytest_synth.errors import ConfigError, SynthError, TaskAppError
from pytest_synth.evals.apps import App, GivenApp, OwnedApp, ServedApp
from pytest_synth.evals.apps import AppAddress as AppAddress
from pytest_synth.evals.apps import CurrentTunnel as CurrentTunnel
from pytest_synth.evals.apps import Owner as Owner

if TYPE_CHECKING:
    from pytest_synth._serving import ServerThread
    from pytest_synth.backend import RunningBackend
    from pytest_synth.client import SynthClient
    from pytest_synth.evals.backends import Backend
    from pytest_synth.evals.relaying import Note
    from pytest_synth.evals.settings import Settings
    from pytest_synth.prompts import Prompt

KEY_VARIABLE = "ENVIRONMENT_API_KEY"


@dataclass(frozen=True)
class AppReference:
    """A task app by its import string; imported only where it is served."""

    target: str
    rootpath: Path


class Resources:
    """Starts each thing when it is first asked for, once, and stops all of them in `close`.

    Args:
        owner: Asked for the backend and for apps by import string, which then are not started here.
        announce: Told what takes long: a tunnel may need a minute.
    """

    def __init__(
        self,
        settings: Settings,
        owner: Owner | None = None,
        announce: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._settings = settings
        self._owner = owner
        self._announce = announce
        self._stack = ExitStack()
        self._client: SynthClient | None = None
        self._backend: Backend | None = None
        self._gateway: RunningBackend | None = None
        self._apps: dict[object, App | SynthError] = {}
        self._kept: list[object] = []  # apps are keyed by identity, so they must stay alive
        self._key: str | None = None
        self._is_uploaded = False
        self._embedded: RunningBackend | None = None
        self._servers: list[ServerThread] = []

    def default_app(self) -> object:
        """The app that `--synth-app` names, not imported yet."""
        assert self._settings.app is not None, "checked at collection"
        return AppReference(self._settings.app, self._settings.rootpath)

    def client(self) -> SynthClient:
        """Client of the configured backend; starts the embedded one at the first call.

        Raises:
            SynthError: If there is no key for it, or it cannot start.
        """
        if self._client is None:
            self._client = self._open_client()
        return self._client

    def backend(self) -> Backend:
        """The configured backend, and what it can do; asked for once.

        Raises:
            SynthError: As `client` does; or if it does not answer, or does not accept the key.
        """
        if self._backend is None:
            from pytest_synth.evals.backends import Backend, ask_backend

            client = self.client()
            if self.is_local:
                self._backend = Backend(client, is_ours=True, takes_extensions=True, is_near=True)
            else:
                self._backend = ask_backend(client)
        return self._backend

    def describe_cassette(self, name: str) -> tuple[int, float | None]:
        """Calls that a cassette of the embedded backend holds, and their cost (see `RunningBackend`)."""
        self.client()
        assert self._embedded is not None, "only the embedded backend has cassettes"
        return self._embedded.describe_cassette(name)

    @property
    def is_local(self) -> bool:
        return self._settings.backend == "local"

    def app(self, app: object) -> App:
        """Serve a task app once, and open its tunnel.

        Args:
            app: An ASGI app, an `AppReference`, or the URL of a task app that runs already.

        Raises:
            SynthError: If it cannot be imported, served or reached; the same again at every call.
        """
        key = app if isinstance(app, str | AppReference) else id(app)
        if key not in self._apps:
            self._kept.append(app)
            try:
                self._apps[key] = self._use(app)
            except SynthError as error:
                self._apps[key] = error
        found = self._apps[key]
        if isinstance(found, SynthError):
            raise found
        return found

    def address_of(self, app: object) -> AppAddress:
        """Where a task app is now; it is served at the first call.

        Raises:
            SynthError: As `app` does; or if its tunnel has died for good.
        """
        return self.app(app).address()

    def open_route(self, app: object, prompt: Prompt | None) -> str:
        """Open a path for a job's rollouts (see `App.open_route`)."""
        return self.app(app).open_route(prompt)

    def close_route(self, app: object, path: str) -> tuple[Note, ...]:
        """Close a path for a job's rollouts (see `App.close_route`)."""
        return self.app(app).close_route(path)

    def cancel_evals(self) -> None:
        """Cancel all eval jobs of the embedded backend, so that nobody waits for them any more."""
        if self._embedded is not None:
            self._embedded.cancel_evals()

    def close(self) -> None:
        if self._embedded is not None:
            self._embedded.cut_jobs()  # else the task apps would wait for the rollouts that they answer
        for server in self._servers:
            server.begin_stop()  # all at once; leaving the stack waits for one after the other
        self._stack.close()
        self._client = None

    def _open_client(self) -> SynthClient:
        from pytest_synth.client import SynthClient
        from pytest_synth.client.credentials import backend_url
        from pytest_synth.client.transport import StdlibTransport
        from pytest_synth.evals.backends import is_near

        if self._owner is not None:
            url, key = self._owner.backend()
        elif self.is_local:
            from pytest_synth.backend import BackendSettings, start
            from pytest_synth.evals.certainty import is_certain

            settings = self._settings
            backend = self._stack.enter_context(
                start(
                    BackendSettings(
                        concurrency=settings.concurrency,
                        is_certain=is_certain,
                        cassettes=settings.rootpath,
                        redact=settings.redact,
                        providers=settings.providers,
                        prices=settings.prices,
                        max_cost_usd=settings.max_cost,
                    )
                )
            )
            self._embedded = backend
            url, key = backend.url, backend.key
        else:
            named = self._settings.backend
            url = backend_url(None if named == "hosted" else named)
            key = _synth_api_key(url)
        # A respx.mock of the user's test patches httpcore in the whole process; calls to our own
        # loopback backend must not be caught by it.
        is_here = is_near(url) and urlsplit(url).scheme == "http"
        transport = StdlibTransport() if is_here else None
        return SynthClient(url, key, transport=transport)

    def _use(self, app: object) -> App:
        if isinstance(app, AppReference):
            if self._owner is not None:
                return OwnedApp(self._owner, app.target, app.rootpath)
            app = load_app(app)
        if isinstance(app, str):
            return self._use_url(app)
        if not callable(app):
            raise ConfigError(
                f"the task app is an object of type {type(app).__name__}; give an ASGI app or an http(s) URL"
            )
        self._refuse_one_for_each_worker(needs_key=True)
        if self._key is None:
            self._key = self._stack.enter_context(environment_key())
        self._upload(self._key)
        return self._serve(app, self._key)

    def _use_url(self, url: str) -> App:
        from pytest_synth.evals.backends import is_near

        if not url.startswith(("http://", "https://")):
            raise ConfigError(f"the task app is {url!r}; give an ASGI app or an http(s) URL")
        try:
            if not urlsplit(url).hostname:
                raise ValueError("it names no host")
        except ValueError as error:
            shown = without_login(url)
            raise ConfigError(f"the task app's URL {shown!r} cannot be read: {error}") from error
        url, key = url.rstrip("/"), _users_key()
        if not is_near(url) or (self._tunnel_kind() == "localhost" and self.backend().takes_extensions):
            return GivenApp(url, key)
        from pytest_synth.tunnels.forwarding import forwarding_app

        self._refuse_one_for_each_worker(needs_key=False)
        return self._serve(forwarding_app(url), key)

    def _serve(self, app: Any, key: str | None) -> ServedApp:
        """Serve an app here, and open the tunnel to it."""
        from pytest_synth._serving import ServerDied, ServerThread
        from pytest_synth.evals.named_errors import NamedErrors
        from pytest_synth.tunnels import open_tunnel

        app, routes = NamedErrors(app), None
        if not self.backend().takes_extensions:
            from pytest_synth.evals.relaying import JobRoutes

            app = routes = JobRoutes(app, self._open_gateway(), hidden=[key] if key else [])
        try:
            server = self._stack.enter_context(ServerThread(app, name="synth-task-app"))
        except ServerDied as error:
            why = str(error) if error.__cause__ is None else _describe(error.__cause__)
            raise TaskAppError(f"the task app did not start: {why}") from error
        self._servers.append(server)
        kind = self._tunnel_kind()
        if kind != "localhost":
            self._announce(f"opening a tunnel ({kind}) to the task app")
        tunnel = open_tunnel(server.port, kind, client=self.client(), probe_key=key)
        self._stack.callback(tunnel.close)
        return ServedApp(server.url, tunnel, key, routes)

    def _tunnel_kind(self) -> str:
        if self._settings.tunnel != "auto":
            return self._settings.tunnel
        return "localhost" if self.backend().is_near else "cloudflare_quick"

    def _refuse_one_for_each_worker(self, *, needs_key: bool) -> None:
        """A task app that comes from a fixture lives in every worker; its tunnel and its key must not."""
        if self._owner is None:
            return
        backend, kind = self.backend(), self._tunnel_kind()
        if kind != "localhost" or (needs_key and backend.wants_key_upload):
            what = "an uploaded key" if kind == "localhost" else f"a {kind} tunnel"
            raise ConfigError(
                f"a task app from a fixture would need {what} of its own in each worker of pytest-xdist; "
                "use synth_app = MODULE:ATTR, or -n0"
            )

    def _upload(self, key: str) -> None:
        """Tell the backend the task app's key, once for a run."""
        backend = self.backend()
        if backend.wants_key_upload and not self._is_uploaded:
            backend.client.upload_environment_key(key)
            self._is_uploaded = True

    def _open_gateway(self) -> RunningBackend:
        """A backend of ours that only hands model calls on."""
        if self._gateway is None:
            from pytest_synth.backend import BackendSettings, start

            self._gateway = self._stack.enter_context(start(BackendSettings()))
        return self._gateway


def _synth_api_key(url: str) -> str:
    from pytest_synth.client.credentials import synth_api_key

    try:
        return synth_api_key()
    except ConfigError as error:
        if os.environ.get("SYNTH_API_KEY", "").strip():
            raise ConfigError(f"SYNTH_API_KEY cannot be sent: {error}") from error
        raise ConfigError(
            f"SYNTH_API_KEY is not set, and the backend at {url} needs it; "
            "set it, or use the embedded backend (--synth-backend local)"
        ) from error


def _users_key() -> str | None:
    """The user's own key for task apps; an empty variable is none.

    Raises:
        ConfigError: If it cannot be sent in a header.
    """
    for name in (KEY_VARIABLE, f"DEV_{KEY_VARIABLE}"):
        key = os.environ.get(name, "").strip()
        if key and (not key.isascii() or not key.isprintable() or " " in key):
            raise ConfigError(f"{name} holds a space, a line break or a non-ASCII character")
        if key:
            return key
    return None


def without_login(url: str) -> str:
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}"


@contextmanager
def environment_key() -> Iterator[str]:
    """The key that backend and task app share: the user's ENVIRONMENT_API_KEY, else one for this run."""
    existing = _users_key()
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


def _describe(error: BaseException) -> str:
    text = str(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
