"""Open a tunnel of any kind; the synchronous core of the package."""

from __future__ import annotations

from pytest_synth.errors import ConfigError
from pytest_synth.tunnels.tunnel import LocalhostTunnel, Tunnel, TunnelBackend


def open_tunnel(port: int, kind: TunnelBackend | str, *, probe_key: str | None = None) -> Tunnel:
    """Open a tunnel to `127.0.0.1:port` and return it once the task app answers through it.

    Args:
        port: Where the task app listens.
        kind: Kind of the tunnel, or its value as text.
        probe_key: The task app's key, sent as `X-API-Key` when its `/health` is asked.

    Raises:
        ConfigError: If there is no such kind; it names those that there are.
    """
    backend = parse_kind(kind)
    if backend is TunnelBackend.Localhost:
        return LocalhostTunnel(port)
    raise ConfigError(f"tunnel {backend.value!r} is not available")


def parse_kind(kind: TunnelBackend | str) -> TunnelBackend:
    """Read the kind of a tunnel.

    Raises:
        ConfigError: If there is no such kind; it names those that there are.
    """
    try:
        return TunnelBackend(kind)
    except ValueError:
        allowed = ", ".join(known.value for known in TunnelBackend)
        raise ConfigError(f"tunnel {str(kind)!r} is not known; allowed: {allowed}") from None
