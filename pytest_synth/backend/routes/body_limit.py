"""The longest body of a request: a longer one is refused before it fills the memory."""

from __future__ import annotations

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MAX_BODY_BYTES = 64 * 1024 * 1024  # model calls with images have some MB, a job of 100000 seeds below one


class BodyLimit:
    """ASGI middleware: who reads a body that is longer than allowed gets an HTTPException (413).

    So nothing happens to requests whose body nobody reads, such as those without a key.
    """

    def __init__(self, app: ASGIApp, most_bytes: int = MAX_BODY_BYTES) -> None:
        self._app = app
        self._most_bytes = most_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        announced = dict(scope["headers"]).get(b"content-length", b"")
        is_too_long = announced.isdigit() and int(announced) > self._most_bytes
        seen = 0

        async def receive_some() -> Message:
            nonlocal seen
            if not is_too_long:
                message = await receive()
                seen += len(message.get("body", b""))
                if seen <= self._most_bytes:
                    return message
            raise HTTPException(413, f"the body has more than {self._most_bytes} bytes")

        await self._app(scope, receive_some, send)
