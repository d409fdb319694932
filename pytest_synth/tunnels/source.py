"""Where a tunnel's name comes from: what to start cloudflared with, and what else has to live meanwhile."""

from __future__ import annotations

from dataclasses import dataclass, field

from pytest_synth.errors import TunnelError
from pytest_synth.tunnels.tunnel import TunnelBackend


@dataclass(frozen=True)
class Launch:
    """How cloudflared is started.

    Attributes:
        arguments: What follows the common options of `cloudflared tunnel`.
        token: Of a managed tunnel.
        url: Public URL, where it is known beforehand; None if cloudflared will tell it.
    """

    arguments: tuple[str, ...]
    token: str | None = field(default=None, repr=False)
    url: str | None = None


class Source:
    """Makes the `Launch` of a tunnel. This one is a quick tunnel's: nothing to ask for, nothing to keep.

    All methods are called from the tunnel's own thread.
    """

    backend = TunnelBackend.CloudflareQuickTunnel

    def __init__(self, port: int) -> None:
        self.port = port

    def prepare(self) -> Launch:
        """Get what is needed before the first start; called once.

        Raises:
            TunnelError: If it cannot be had.
        """
        return Launch(("--url", f"http://127.0.0.1:{self.port}"))

    def report(self, *, connected: bool, trouble: str | None = None) -> None:
        """Hear how cloudflared does; called after every look at it."""

    def wants_restart(self) -> bool:
        """Say once that cloudflared is to be restarted."""
        return False

    def failure(self) -> TunnelError | None:
        """Say that the tunnel cannot go on, whatever cloudflared does."""
        return None

    def close(self) -> None:
        """Give back what `prepare` got, also if it failed half-way; called once."""
