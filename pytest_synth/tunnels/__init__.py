"""Make a task app on this machine reachable for a backend: on loopback, or through Cloudflare."""

from __future__ import annotations

from pytest_synth.tunnels.local_api import TunneledLocalAPI
from pytest_synth.tunnels.opening import open_tunnel
from pytest_synth.tunnels.tunnel import Tunnel, TunnelBackend

__all__ = ["Tunnel", "TunnelBackend", "TunneledLocalAPI", "open_tunnel"]
