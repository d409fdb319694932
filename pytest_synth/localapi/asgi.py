"""Send requests to an ASGI app in this process, and run its lifespan. No sockets here."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote

from starlette.types import ASGIApp, Message


async def send(app: ASGIApp, method: str, path: str, body: bytes = b"") -> tuple[int, bytes]:
    """Send one request and return status and body of the answer.

    Raises:
        Exception: Whatever the app raises.
    """
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": quote(path).encode(),
        "root_path": "",
        "query_string": b"",
        "headers": [(b"host", b"in-process"), (b"content-type", b"application/json")],
        "client": ("127.0.0.1", 0),
        "server": ("in-process", 80),
    }
    status = 500
    parts: list[bytes] = []

    asked = False
    answered = asyncio.Event()

    async def receive() -> Message:
        nonlocal asked
        if asked:  # whoever asks again waits for the end of the connection
            await answered.wait()
            return {"type": "http.disconnect"}
        asked = True
        return {"type": "http.request", "body": body, "more_body": False}

    async def answer(message: Message) -> None:
        nonlocal status
        if message["type"] == "http.response.start":
            status = message["status"]
        elif message["type"] == "http.response.body":
            parts.append(message.get("body", b""))
            if not message.get("more_body", False):
                answered.set()

    await app(scope, receive, answer)
    return status, b"".join(parts)


@asynccontextmanager
async def lifespan(app: Any) -> AsyncIterator[None]:
    """Start and stop a Starlette or FastAPI app; any other app is taken to need neither."""
    context = getattr(getattr(app, "router", None), "lifespan_context", None)
    if context is None:
        yield
        return
    async with context(app):
        yield
