"""Open a tunnel of any kind; the synchronous core of the package."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from pytest_synth.errors import ConfigError
from pytest_synth.tunnels.binary import find_cloudflared
from pytest_synth.tunnels.keeper import CloudflaredTunnel, Timings
from pytest_synth.tunnels.lease import LeaseSource
from pytest_synth.tunnels.managed import ManagedSource, post_with
from pytest_synth.tunnels.probe import PublicResolver, Resolve
from pytest_synth.tunnels.source import Source
from pytest_synth.tunnels.tunnel import LocalhostTunnel, Tunnel, TunnelBackend

if TYPE_CHECKING:
    from pytest_synth.client import SynthClient

_TIMINGS = Timings()


def open_tunnel(
    port: int,
    kind: TunnelBackend | str,
    *,
    client: SynthClient | None = None,
    probe_key: str | None = None,
    probe: bool = True,
    progress: Callable[[str], None] | None = None,
    resolve: Resolve | None = None,
    timings: Timings = _TIMINGS,
) -> Tunnel:
    """Open a tunnel to `127.0.0.1:port` and return it once the task app answers through it.

    Args: those of `make_tunnel`.

    Raises:
        ConfigError: If there is no such kind; it names those that there are.
        TunnelError: If the tunnel cannot be opened; it says why and what to do.
    """
    tunnel = make_tunnel(
        port,
        kind,
        client=client,
        probe_key=probe_key,
        probe=probe,
        progress=progress,
        resolve=resolve,
        timings=timings,
    )
    tunnel.open()
    return tunnel


def make_tunnel(
    port: int,
    kind: TunnelBackend | str,
    *,
    client: SynthClient | None = None,
    probe_key: str | None = None,
    probe: bool = True,
    progress: Callable[[str], None] | None = None,
    resolve: Resolve | None = None,
    timings: Timings = _TIMINGS,
) -> Tunnel:
    """Make a tunnel that is not open yet.

    Args:
        port: Where the task app listens, on 127.0.0.1.
        kind: Kind of the tunnel, or its value as text.
        client: Of the backend that gives managed tunnels; other kinds need none.
        probe_key: The task app's key, sent as `X-API-Key` when its `/health` is asked.
        probe: Whether that is asked through the public URL before the tunnel counts as open.
        progress: Told what is being waited for, from another thread.
        resolve: Name resolution for that question.
        timings: All waiting.

    Raises:
        ConfigError: If there is no such kind, or a managed one is asked for without a client.
        TunnelError: If cloudflared is needed and not there.
    """
    backend = parse_kind(kind)
    if backend is TunnelBackend.Localhost:
        return LocalhostTunnel(port)
    source = _source(port, backend, client)
    return CloudflaredTunnel(
        source,
        binary=find_cloudflared(),
        probe_key=probe_key,
        probe=probe,
        resolve=resolve or PublicResolver(),
        timings=timings,
        progress=progress,
    )


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


def _source(port: int, backend: TunnelBackend, client: SynthClient | None) -> Source:
    if backend is TunnelBackend.CloudflareQuickTunnel:
        return Source(port)
    if client is None:
        raise ConfigError(f"tunnel {backend.value!r} comes from a backend, and no client of one was given")
    _ = client.api_key  # a missing one is refused here, with its own words
    if backend is TunnelBackend.CloudflareManagedTunnel:
        return ManagedSource(port, post_with(client))
    return LeaseSource(port, post_with(client))
