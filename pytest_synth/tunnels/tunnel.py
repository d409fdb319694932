"""What a tunnel is: its kinds, and what every open one can do."""

from __future__ import annotations

from abc import ABC, abstractmethod
from enum import StrEnum
from types import TracebackType
from typing import Self

from pytest_synth.errors import TunnelError


class TunnelBackend(StrEnum):
    """How the task app becomes reachable. Names and values are those of the published SDK."""

    Localhost = "localhost"
    CloudflareQuickTunnel = "cloudflare_quick"
    CloudflareManagedTunnel = "cloudflare_managed"
    CloudflareManagedLease = "cloudflare_managed_lease"


class Tunnel(ABC):
    """A tunnel to a port of 127.0.0.1; closed by `close` or at the end of its `with` block.

    The attributes may be read from any thread, and change when the tunnel is restarted: whoever gives the
    URL away reads `generation` first, then `url`, and looks later whether `generation` is still the same.

    Attributes:
        backend: Kind of the tunnel.
        port: Port of 127.0.0.1 that requests arrive at.
    """

    def __init__(self, backend: TunnelBackend, port: int) -> None:
        self.backend = backend
        self.port = port

    @property
    @abstractmethod
    def url(self) -> str:
        """Base URL of the task app, without a trailing slash; that of the last start."""

    @property
    @abstractmethod
    def generation(self) -> int:
        """Number of restarts so far. Requests that were under way at a restart are lost."""

    @property
    @abstractmethod
    def failure(self) -> TunnelError | None:
        """Why the tunnel has died for good; None while it works or is being restarted."""

    @property
    @abstractmethod
    def is_alive(self) -> bool:
        """Neither closed nor dead for good."""

    @property
    @abstractmethod
    def is_up(self) -> bool:
        """Requests come through now, as far as this machine can tell; False while it is being restarted."""

    @abstractmethod
    def open(self) -> None:
        """Open the tunnel and return once the task app answers through it; called once.

        Raises:
            TunnelError: If that cannot be; what was started is ended.
        """

    @abstractmethod
    def close(self) -> None:
        """Close the tunnel and end what it started; a second call does nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class LocalhostTunnel(Tunnel):
    """No tunnel at all: the backend runs on this machine."""

    def __init__(self, port: int) -> None:
        super().__init__(TunnelBackend.Localhost, port)
        self._is_open = False

    @property
    def url(self) -> str:
        # The number, not the name: `localhost` may be ::1, where somebody else may listen.
        return f"http://127.0.0.1:{self.port}"

    @property
    def generation(self) -> int:
        return 0

    @property
    def failure(self) -> TunnelError | None:
        return None

    @property
    def is_alive(self) -> bool:
        return self._is_open

    @property
    def is_up(self) -> bool:
        return self._is_open

    def open(self) -> None:
        self._is_open = True

    def close(self) -> None:
        self._is_open = False
