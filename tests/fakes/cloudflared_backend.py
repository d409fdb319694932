"""The tunnel routes of a hosted backend, whose tunnels are those of the fake cloudflared."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fakes.cloudflared import make_token
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

API_KEY = "synth-key-of-the-test"
HOST = "task-1.usesynth.test"


class TunnelRoutes:
    """An ASGI app; it records the bodies that it gets.

    Attributes:
        refusal: Status that `/rotate` and `/lease` answer instead of a tunnel.
        answer: Changed or further fields of the answer to `/rotate` and `/lease`; None removes one.
        heartbeat: What a heartbeat is answered.
        heartbeat_status: With which status.
    """

    def __init__(self, gateway_port: int = 0) -> None:
        self.gateway_port = gateway_port
        self.rotations: list[dict[str, Any]] = []
        self.leases: list[dict[str, Any]] = []
        self.heartbeats: list[dict[str, Any]] = []
        self.releases: list[str] = []
        self.refusal: int | None = None
        self.answer: dict[str, Any] = {}
        self.heartbeat: dict[str, Any] = {"action": "none", "next_heartbeat_seconds": 0.02}
        self.heartbeat_status = 200
        self._app = Starlette(
            routes=[
                Route("/api/v1/tunnels/rotate", self._rotate, methods=["POST"]),
                Route("/api/v1/tunnels/lease", self._lease, methods=["POST"]),
                Route("/api/v1/tunnels/lease/{lease_id}/heartbeat", self._beat, methods=["POST"]),
                Route("/api/v1/tunnels/lease/{lease_id}/release", self._release, methods=["POST"]),
            ]
        )

    async def __call__(self, scope: Any, receive: Callable[..., Any], send: Callable[..., Any]) -> None:
        await self._app(scope, receive, send)

    def _refused(self, request: Request) -> Response | None:
        if request.headers.get("Authorization") != f"Bearer {API_KEY}":
            return JSONResponse({"detail": "this key is not known"}, status_code=401)
        if self.refusal is not None:
            return JSONResponse({"detail": "refused by the test"}, status_code=self.refusal)
        return None

    def _made(self, target_port: int, **fields: Any) -> Response:
        token = make_token(f"http://127.0.0.1:{target_port}", HOST)
        document = {"hostname": HOST, "tunnel_token": token, **fields, **self.answer}
        return JSONResponse({name: value for name, value in document.items() if value is not None})

    async def _rotate(self, request: Request) -> Response:
        if refused := self._refused(request):
            return refused
        body = await request.json()
        self.rotations.append(body)
        return self._made(body["local_port"], dns_verified=False)

    async def _lease(self, request: Request) -> Response:
        if refused := self._refused(request):
            return refused
        self.leases.append(await request.json())
        prefix = "/s/abc123"
        return self._made(
            self.gateway_port,
            lease_id="lease-7",
            managed_tunnel_id="tunnel-9",
            route_prefix=prefix,
            public_url=f"https://{HOST}{prefix}",
            expires_at="2026-12-01T12:00:00Z",
            gateway_port=self.gateway_port,
        )

    async def _beat(self, request: Request) -> Response:
        self.heartbeats.append(await request.json())
        return JSONResponse(self.heartbeat, status_code=self.heartbeat_status)

    async def _release(self, request: Request) -> Response:
        self.releases.append(request.path_params["lease_id"])
        return JSONResponse({"released": True})
