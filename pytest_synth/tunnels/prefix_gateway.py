"""The local end of a leased tunnel: its connector sends everything to one port, under a path prefix."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_synth.tunnels.forwarding import METHODS, Forwarder
from pytest_synth.tunnels.probe import UP

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response


def prefix_gateway(prefix: str, port: int) -> Starlette:
    """Make the app that hands `{prefix}/x` to `http://127.0.0.1:{port}/x`, and answers 404 to all else.

    `{prefix}/__synth/ready` is 200 while the task app answers its `/health`, else 503.

    Args:
        prefix: Of the lease, with a leading slash and without a trailing one.
        port: Where the task app listens.
    """
    import aiohttp
    from starlette.applications import Starlette
    from starlette.responses import JSONResponse
    from starlette.routing import Route

    forwarder = Forwarder(f"http://127.0.0.1:{port}", prefix)

    async def forward(request: Request) -> Response:
        return await forwarder(request)

    async def ready(request: Request) -> Response:
        try:
            timeout = aiohttp.ClientTimeout(total=5)
            async with forwarder.session.get(f"{forwarder.target}/health", timeout=timeout) as answer:
                is_up = answer.status in UP
        except (aiohttp.ClientError, TimeoutError):
            is_up = False
        return JSONResponse({"ready": is_up}, status_code=200 if is_up else 503)

    return Starlette(
        routes=[
            Route(f"{prefix}/__synth/ready", ready),
            Route(prefix, forward, methods=METHODS),
            Route(f"{prefix}/{{path:path}}", forward, methods=METHODS),
        ],
        lifespan=forwarder.lifespan,
    )
