"""Leased tunnels: a managed tunnel for a while, kept by heartbeats and given back at the end."""

from __future__ import annotations

import logging
import threading
import uuid
from typing import Any

from pytest_synth._serving import ServerDied, ServerThread, bind_loopback
from pytest_synth.errors import NotFoundError, SynthError, TunnelError
from pytest_synth.tunnels.managed import ROOT, Post, ask, text_of
from pytest_synth.tunnels.prefix_gateway import prefix_gateway
from pytest_synth.tunnels.probe import UP, get_local
from pytest_synth.tunnels.source import Launch, Source
from pytest_synth.tunnels.tunnel import TunnelBackend

logger = logging.getLogger(__name__)

_TTL_S = 3600  # what the published SDK asks for; heartbeats prolong it
_HEARTBEAT_S = 30.0  # until the backend says otherwise
_LONGEST_HEARTBEAT_S = 300.0
_GATEWAY_PORT = 8016
_TROUBLE_CHARACTERS = 1000
# One id for each process. A stable one would have to be kept in the home directory, and two runs with the
# same one would take the tunnel from each other.
_INSTANCE = f"pytest-synth-{uuid.uuid4().hex}"


class LeaseSource(Source):
    """A lease by `POST /api/v1/tunnels/lease`, with its local gateway and its heartbeats.

    Args:
        port: Where the task app listens.
        post: Sends to the backend.
        heartbeat_s: Seconds between heartbeats, until the backend says otherwise.
    """

    backend = TunnelBackend.CloudflareManagedLease

    def __init__(self, port: int, post: Post, *, heartbeat_s: float = _HEARTBEAT_S) -> None:
        super().__init__(port)
        self._post = post
        self._interval_s = heartbeat_s
        self._lease_id = ""
        self._gateway: ServerThread | None = None
        self._is_connected = False
        self._trouble: str | None = None
        self._restart = threading.Event()
        self._wake = threading.Event()
        self._closing = False
        self._failure: TunnelError | None = None
        self._thread = threading.Thread(target=self._beat, name="synth-tunnel-lease", daemon=True)

    def prepare(self) -> Launch:
        path = f"{ROOT}/lease"
        answer = ask(
            self._post,
            path,
            {
                "client_instance_id": _INSTANCE,
                "local_host": "127.0.0.1",
                "local_port": self.port,
                "app_name": None,
                "requested_ttl_seconds": _TTL_S,
                "reuse_connector": True,
                "idempotency_key": uuid.uuid4().hex,
            },
        )
        self._lease_id = text_of(answer, "lease_id", path)
        token = text_of(answer, "tunnel_token", path)
        url = text_of(answer, "public_url", path).rstrip("/")
        prefix = "/" + text_of(answer, "route_prefix", path).strip("/")
        gateway_port = answer.get("gateway_port", _GATEWAY_PORT)
        if not isinstance(gateway_port, int):
            raise TunnelError(f"the backend answered POST {path} with the gateway_port {gateway_port!r}")
        self._gateway = _serve(prefix, self.port, gateway_port)
        self._thread.start()
        return Launch(("run",), token, url)

    def report(self, *, connected: bool, trouble: str | None = None) -> None:
        has_changed = connected != self._is_connected
        self._is_connected = connected
        self._trouble = trouble
        if has_changed:
            self._wake.set()  # the backend hears of it at once

    def wants_restart(self) -> bool:
        wanted = self._restart.is_set()
        self._restart.clear()
        return wanted

    def failure(self) -> TunnelError | None:
        return self._failure

    def close(self) -> None:
        self._closing = True
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(5.0)
        if self._gateway is not None:
            self._gateway.stop()
        if self._lease_id:
            try:
                self._post(f"{ROOT}/lease/{self._lease_id}/release", {})
            except SynthError as error:
                logger.warning("the lease of the tunnel was not given back, it expires by itself: %s", error)

    def _beat(self) -> None:
        while True:
            self._wake.wait(self._interval_s)
            self._wake.clear()
            if self._closing:
                return
            try:
                answer = self._post(f"{ROOT}/lease/{self._lease_id}/heartbeat", self._state())
            except NotFoundError as error:
                self._failure = TunnelError(
                    f"the backend has ended the lease of the tunnel to 127.0.0.1:{self.port} ({error}); "
                    "open the tunnel again"
                )
                return
            except Exception as error:
                # Whatever it was, the next one may get through; the lease outlives many heartbeats.
                logger.warning("a heartbeat of the tunnel's lease failed: %s", error)
                continue
            seconds = answer.get("next_heartbeat_seconds")
            if isinstance(seconds, int | float) and seconds > 0:
                self._interval_s = min(float(seconds), _LONGEST_HEARTBEAT_S)
            if answer.get("action") == "restart_connector":
                self._restart.set()

    def _state(self) -> dict[str, Any]:
        health = get_local(self.port, "/health")
        return {
            "connected_to_edge": self._is_connected,
            "gateway_ready": self._gateway is not None and self._gateway.is_alive,
            "local_ready": health is not None and health[0] in UP,
            "last_error": self._trouble[:_TROUBLE_CHARACTERS] if self._trouble else None,
        }


def _serve(prefix: str, port: int, gateway_port: int) -> ServerThread:
    try:
        sock = bind_loopback(gateway_port)
    except OSError as error:
        raise TunnelError(
            f"port {gateway_port} of 127.0.0.1, where this lease's requests arrive, is not free "
            f"({error.strerror or error}); end the other tunnel, or use the tunnel cloudflare_managed"
        ) from error
    try:
        return ServerThread(prefix_gateway(prefix, port), sock=sock, name="synth-tunnel-gateway").start()
    except ServerDied as error:
        raise TunnelError(f"the gateway of the leased tunnel does not start: {error.__cause__}") from error
