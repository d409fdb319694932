"""A task app as a run has it: where the backend reaches it, and a path of its own for a job's rollouts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from pytest_synth.errors import ConfigError

if TYPE_CHECKING:
    from pytest_synth.evals.relaying import JobRoutes, Note
    from pytest_synth.prompts import Prompt
    from pytest_synth.tunnels import Tunnel

NO_TUNNEL = "none"


@dataclass(frozen=True)
class AppAddress:
    """Where a task app is.

    Attributes:
        url: Where the backend reaches it.
        tunnel: Kind of the tunnel, as in `--synth-tunnel`; `none` for a URL that the user gave.
        key: That the backend has to send; None: the user's own.
        here: Where this machine reaches it.
        generation: Number of restarts of the tunnel; rollouts that were under way at one are lost.
        is_up: Requests come through the tunnel now.
    """

    url: str
    tunnel: str
    key: str | None = field(repr=False)
    here: str
    generation: int = 0
    is_up: bool = True


class App(Protocol):
    """A task app in use."""

    def address(self) -> AppAddress:
        """Where it is now.

        Raises:
            SynthError: If its tunnel has died for good.
        """

    def open_route(self, prompt: Prompt | None) -> str:
        """Give a job a path below the app's URL, where its rollouts get the prompt and are noted.

        Returns:
            The path; empty where there is no need for one.

        Raises:
            ConfigError: If a prompt cannot be applied.
        """

    def close_route(self, path: str) -> tuple[Note, ...]:
        """Say what was seen of a job's rollouts; later ones are refused."""


class GivenApp:
    """A task app at a URL that the user gave and the backend reaches."""

    def __init__(self, url: str, key: str | None) -> None:
        self._address = AppAddress(url, NO_TUNNEL, key, url)

    def address(self) -> AppAddress:
        return self._address

    def open_route(self, prompt: Prompt | None) -> str:
        if prompt is not None:
            raise ConfigError(
                f"with this backend no prompt can be applied to a task app elsewhere ({self._address.url}); "
                "let pytest serve the app (synth_app = MODULE:ATTR)"
            )
        return ""

    def close_route(self, path: str) -> tuple[Note, ...]:
        return ()


class ServedApp:
    """A task app that this process serves.

    Args:
        routes: For a backend that knows the published API only.
    """

    def __init__(self, here: str, tunnel: Tunnel, key: str | None, routes: JobRoutes | None) -> None:
        self._here = here
        self._tunnel = tunnel
        self._key = key
        self._routes = routes

    def address(self) -> AppAddress:
        tunnel = self._tunnel
        if tunnel.failure is not None:
            raise tunnel.failure
        generation = tunnel.generation  # first: the URL may be newer than it, never older
        return AppAddress(tunnel.url, tunnel.backend.value, self._key, self._here, generation, tunnel.is_up)

    def open_route(self, prompt: Prompt | None) -> str:
        return "" if self._routes is None else self._routes.open(prompt)

    def close_route(self, path: str) -> tuple[Note, ...]:
        return () if self._routes is None or not path else self._routes.close(path)


class Owner(Protocol):
    """Another process that owns the backend and the app of the settings, such as xdist's controller."""

    def backend(self) -> tuple[str, str]: ...

    def app(self, target: str, rootpath: Path) -> AppAddress: ...

    def open_route(self, target: str, rootpath: Path, prompt: Prompt | None) -> str: ...

    def close_route(self, target: str, rootpath: Path, path: str) -> tuple[Note, ...]: ...


class OwnedApp:
    """A task app that another process serves.

    A loopback address does not change and is asked for once.
    """

    def __init__(self, owner: Owner, target: str, rootpath: Path) -> None:
        self._owner = owner
        self._app = (target, rootpath)
        self._address: AppAddress | None = None

    def address(self) -> AppAddress:
        if self._address is None or self._address.tunnel != "localhost":
            self._address = self._owner.app(*self._app)
        return self._address

    def open_route(self, prompt: Prompt | None) -> str:
        return self._owner.open_route(*self._app, prompt)

    def close_route(self, path: str) -> tuple[Note, ...]:
        return self._owner.close_route(*self._app, path)


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
