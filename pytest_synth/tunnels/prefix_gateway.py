"""The local end of a leased tunnel: its connector sends everything to one port, under a path prefix."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from pytest_synth.tunnels.probe import UP

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

# RFC 9110 section 7.6.1, and what the next hop sets itself.
_HOP_BY_HOP = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "host",
        "content-length",
    }
)
_METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]


def prefix_gateway(prefix: str, port: int) -> Starlette:
    """Make the app that hands `{prefix}/x` to `http://127.0.0.1:{port}/x`, and answers 404 to all else.

    `{prefix}/__synth/ready` is 200 while the task app answers its `/health`, else 503.

    Args:
        prefix: Of the lease, with a leading slash and without a trailing one.
        port: Where the task app listens.
    """
    import aiohttp
    from starlette.applications import Starlette
    from starlette.responses import JSONResponse, Response
    from starlette.routing import Route
    from yarl import URL

    target = f"http://127.0.0.1:{port}"
    sessions: list[aiohttp.ClientSession] = []

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        # A rollout may take as long as it likes; the backend has the time-out. Bodies pass as they are.
        async with aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=None),
            connector=aiohttp.TCPConnector(limit=0),
            auto_decompress=False,
        ) as session:
            sessions.append(session)
            yield

    async def ready(request: Request) -> Response:
        try:
            timeout = aiohttp.ClientTimeout(total=5)
            async with sessions[0].get(f"{target}/health", timeout=timeout) as answer:
                is_up = answer.status in UP
        except (aiohttp.ClientError, TimeoutError):
            is_up = False
        return JSONResponse({"ready": is_up}, status_code=200 if is_up else 503)

    async def forward(request: Request) -> Response:
        raw = request.scope["raw_path"].decode("ascii").removeprefix(prefix) or "/"
        query = request.scope["query_string"].decode("ascii")
        url = URL(f"{target}{raw}?{query}" if query else f"{target}{raw}", encoded=True)
        try:
            async with sessions[0].request(
                request.method,
                url,
                headers=_passed_on(request.headers.items()),
                data=await request.body() or None,
                allow_redirects=False,
            ) as answer:
                body = await answer.read()
        except aiohttp.ClientError:
            return JSONResponse({"detail": f"no task app answers at {target}"}, status_code=502)
        response = Response(body, answer.status)
        for name, value in _passed_on(answer.headers.items()):
            response.headers.append(name, value)
        return response

    return Starlette(
        routes=[
            Route(f"{prefix}/__synth/ready", ready),
            Route(prefix, forward, methods=_METHODS),
            Route(f"{prefix}/{{path:path}}", forward, methods=_METHODS),
        ],
        lifespan=lifespan,
    )


def _passed_on(headers: Any) -> list[tuple[str, str]]:
    return [(name, value) for name, value in headers if name.lower() not in _HOP_BY_HOP]
