"""Open answers that are read piece by piece, and the wrappers that let one transport serve both ways."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from types import TracebackType
from typing import Self

import httpx


class Stream:
    """At most one open answer; opening the next one, or leaving, closes it."""

    def __init__(self) -> None:
        self._response: httpx.Response | None = None
        self._chunks: Iterator[bytes] = iter(())
        self.request = httpx.Request("GET", "http://localhost")

    def open(self, http: httpx.Client, request: httpx.Request) -> httpx.Response:
        self._close()
        self.request = request
        response = http.send(request, stream=True)
        self._response = response
        if not response.is_success:
            response.read()
        else:
            self._chunks = response.iter_bytes()
        return response

    def next_chunk(self) -> bytes:
        return next(self._chunks, b"")

    def _close(self) -> None:
        if self._response is not None:
            self._response.close()
        self._response, self._chunks = None, iter(())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()


class AsyncStream:
    """As `Stream`, inside an event loop."""

    def __init__(self) -> None:
        self._response: httpx.Response | None = None
        self._chunks: AsyncIterator[bytes] | None = None
        self.request = httpx.Request("GET", "http://localhost")

    async def open(self, http: httpx.AsyncClient, request: httpx.Request) -> httpx.Response:
        await self._close()
        self.request = request
        response = await http.send(request, stream=True)
        self._response = response
        if not response.is_success:
            await response.aread()
        else:
            self._chunks = response.aiter_bytes()
        return response

    async def next_chunk(self) -> bytes:
        return b"" if self._chunks is None else await anext(self._chunks, b"")

    async def _close(self) -> None:
        if self._response is not None:
            await self._response.aclose()
        self._response, self._chunks = None, None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._close()


class Kept(httpx.BaseTransport):
    """A transport that stays open when the httpx client around it is closed; its owner closes it."""

    def __init__(self, transport: httpx.BaseTransport) -> None:
        self._transport = transport

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        return self._transport.handle_request(request)


class InThreads(httpx.AsyncBaseTransport):
    """A synchronous transport, used by asynchronous code: each blocking step runs in a worker thread."""

    def __init__(self, transport: httpx.BaseTransport) -> None:
        self._transport = transport

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        response = await asyncio.to_thread(self._transport.handle_request, request)
        return httpx.Response(
            response.status_code,
            headers=response.headers,
            stream=_InThreadsBody(response),
            extensions=response.extensions,
        )


class _InThreadsBody(httpx.AsyncByteStream):
    def __init__(self, response: httpx.Response) -> None:
        self._response = response

    async def __aiter__(self) -> AsyncIterator[bytes]:
        chunks = iter(self._response.stream)  # type: ignore[arg-type]  # a synchronous transport's stream
        while (chunk := await asyncio.to_thread(next, chunks, None)) is not None:
            yield chunk

    async def aclose(self) -> None:
        await asyncio.to_thread(self._response.close)
