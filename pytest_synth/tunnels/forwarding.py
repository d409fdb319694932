"""Hand requests on to another HTTP server, unchanged."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import aiohttp
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
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


class Forwarder:
    """Hands requests on; a Starlette endpoint that needs `lifespan` as the lifespan of its app.

    Args:
        target: Base URL that requests go to, without a trailing slash.
        prefix: Taken off their paths, with a leading slash and without a trailing one.
    """

    def __init__(self, target: str, prefix: str = "") -> None:
        self.target = target
        self._prefix = prefix
        self._session: aiohttp.ClientSession | None = None

    @asynccontextmanager
    async def lifespan(self, app: object) -> AsyncIterator[None]:
        import aiohttp

        # A rollout may take as long as it likes; the backend has the time-out. Bodies pass as they are.
        async with aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=None),
            connector=aiohttp.TCPConnector(limit=0),
            auto_decompress=False,
        ) as self._session:
            yield

    @property
    def session(self) -> aiohttp.ClientSession:
        assert self._session is not None, "the app's lifespan has not begun"
        return self._session

    async def __call__(self, request: Request) -> Response:
        """Send a request on and return its answer; 502 if there is none."""
        import aiohttp
        from starlette.responses import JSONResponse, Response
        from yarl import URL

        raw = request.scope["raw_path"].decode("ascii").removeprefix(self._prefix) or "/"
        query = request.scope["query_string"].decode("ascii")
        try:
            async with self.session.request(
                request.method,
                URL(f"{self.target}{raw}?{query}" if query else f"{self.target}{raw}", encoded=True),
                headers=_passed_on(request.headers.items()),
                data=await request.body() or None,
                allow_redirects=False,
            ) as answer:
                body = await answer.read()
        except aiohttp.ClientError:
            return JSONResponse({"detail": f"no task app answers at {self.target}"}, status_code=502)
        response = Response(body, answer.status)
        for name, value in _passed_on(answer.headers.items()):
            response.headers.append(name, value)
        return response


def forwarding_app(target: str) -> Starlette:
    """Make an app that hands every request on to another server."""
    from starlette.applications import Starlette
    from starlette.routing import Route

    forwarder = Forwarder(target)

    async def forward(request: Request) -> Response:
        return await forwarder(request)

    return Starlette(routes=[Route("/{path:path}", forward, methods=METHODS)], lifespan=forwarder.lifespan)


def _passed_on(headers: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    return [(name, value) for name, value in headers if name.lower() not in _HOP_BY_HOP]
