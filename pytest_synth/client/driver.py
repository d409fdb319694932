"""Carries out flows over httpx: the only module that touches the network.

An httpx client lives as long as one flow, so that a poll keeps its connection, a client object holds
nothing open between calls, and none is tied to an event loop.
"""

from __future__ import annotations

import asyncio
import json
import os
import ssl
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, cast

import httpx

from pytest_synth.client.answers import secrets_in
from pytest_synth.client.credentials import backend_url, identity_headers, synth_api_key
from pytest_synth.client.flows import Answer, Effect, Flow, NextChunk, OpenStream, Pause, Send, T
from pytest_synth.client.streams import AsyncStream, InThreads, Kept, Stream
from pytest_synth.client.transport import is_loopback
from pytest_synth.errors import BackendUnreachable, ConfigError


@dataclass(frozen=True)
class Timing:
    """Clock and sleeps, so that a test of a time-out takes no time."""

    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    asleep: Callable[[float], Awaitable[None]] = asyncio.sleep


class Driver:
    """Runs flows against one backend.

    Args:
        base_url, api_key: Default: SYNTH_BACKEND_URL and SYNTH_API_KEY, read at each call.
        timeout: Seconds for connecting and for each read of one request.
        transport: An httpx transport in place of httpx's own; the caller closes it. Asynchronous calls
            use it in a worker thread.
    """

    def __init__(
        self,
        base_url: str | None,
        api_key: str | None,
        *,
        timeout: float,
        transport: httpx.BaseTransport | None,
        timing: Timing,
    ) -> None:
        if not timeout > 0:
            raise ConfigError(f"timeout is {timeout!r}; it must be more than 0 seconds")
        backend_url(base_url)  # a wrong one is refused here and not at the first call
        self._given_url = base_url
        self._given_key = api_key
        self.timeout = timeout
        self._transport = transport
        self.timing = timing

    @property
    def base_url(self) -> str:
        """The backend's base URL, without `/api`."""
        return backend_url(self._given_url)

    @property
    def api_key(self) -> str:
        """The key that calls send."""
        return synth_api_key(self._given_key)

    def run(self, flow: Flow[T]) -> T:
        """Carry out a flow; it blocks its thread, and needs no event loop."""
        value: object = None
        lost: BackendUnreachable | None = None
        with closing(flow), self._client() as http, Stream() as stream:
            while True:
                try:
                    effect = flow.send(value) if lost is None else flow.throw(lost)
                except StopIteration as end:
                    return cast(T, end.value)
                value, lost = None, None
                try:
                    value = self._perform(http, stream, effect)
                except BackendUnreachable as error:
                    lost = error

    async def arun(self, flow: Flow[T]) -> T:
        """Carry out a flow inside a running event loop, without blocking it."""
        value: object = None
        lost: BackendUnreachable | None = None
        with closing(flow):
            async with self._async_client() as http, AsyncStream() as stream:
                while True:
                    try:
                        effect = flow.send(value) if lost is None else flow.throw(lost)
                    except StopIteration as end:
                        return cast(T, end.value)
                    value, lost = None, None
                    try:
                        value = await self._aperform(http, stream, effect)
                    except BackendUnreachable as error:
                        lost = error

    def _perform(self, http: httpx.Client, stream: Stream, effect: Effect) -> object:
        match effect:
            case Pause(seconds):
                self.timing.sleep(seconds)
                return None
            case Send():
                request = self._request(effect)
                with _in_our_words(request):
                    return _answer(request, http.send(request))
            case OpenStream(call):
                request = self._request(call)
                with _in_our_words(request):
                    return _answer(request, stream.open(http, request))
            case NextChunk():
                with _in_our_words(stream.request):
                    return stream.next_chunk()

    async def _aperform(self, http: httpx.AsyncClient, stream: AsyncStream, effect: Effect) -> object:
        match effect:
            case Pause(seconds):
                await self.timing.asleep(seconds)
                return None
            case Send():
                request = self._request(effect)
                with _in_our_words(request):
                    return _answer(request, await http.send(request))
            case OpenStream(call):
                request = self._request(call)
                with _in_our_words(request):
                    return _answer(request, await stream.open(http, request))
            case NextChunk():
                with _in_our_words(stream.request):
                    return await stream.next_chunk()

    def _client(self) -> httpx.Client:
        transport = None if self._transport is None else Kept(self._transport)
        return httpx.Client(transport=transport, **_settings(self.base_url))

    def _async_client(self) -> httpx.AsyncClient:
        transport = None if self._transport is None else InThreads(self._transport)
        return httpx.AsyncClient(transport=transport, **_settings(self.base_url))

    def _request(self, call: Send) -> httpx.Request:
        headers = {"Accept": call.accept, "User-Agent": "pytest-synth", **identity_headers()}
        secrets = set(secrets_in(call.body))
        if call.authenticated:
            key = self.api_key
            # Both forms: the published client sends X-API-Key alone to some routes and Bearer to others.
            headers |= {"Authorization": f"Bearer {key}", "X-API-Key": key}
            secrets.add(key)
        content = None
        if call.body is not None:
            headers["Content-Type"] = "application/json"
            content = _dump(call)
        timeout = httpx.Timeout(self.timeout if call.timeout_s is None else call.timeout_s)
        return httpx.Request(
            call.method,
            self.base_url + call.path,
            params=dict(call.params) or None,
            headers=headers,
            content=content,
            extensions={"timeout": timeout.as_dict(), "synth.secrets": frozenset(secrets)},
        )


def _dump(call: Send) -> bytes:
    try:
        return json.dumps(call.body, allow_nan=False).encode()
    except (TypeError, ValueError) as error:
        raise ConfigError(f"the body of {call.method} {call.path} is not JSON: {error}") from error


def _answer(request: httpx.Request, response: httpx.Response) -> Answer:
    return Answer(
        method=request.method,
        url=str(request.url),
        status_code=response.status_code,
        content=response.content if response.is_closed else b"",
        content_type=response.headers.get("content-type", ""),
        retry_after=response.headers.get("retry-after"),
        location=response.headers.get("location"),
        secrets=request.extensions["synth.secrets"],
    )


@contextmanager
def _in_our_words(request: httpx.Request) -> Iterator[None]:
    """Turn what httpx raises for a request into an error of ours; the one place that does."""
    where = f"{request.method} {request.url}"
    try:
        yield
    except httpx.UnsupportedProtocol as error:
        raise ConfigError(f"{where}: {error}") from error
    except httpx.TimeoutException as error:
        waited = request.extensions["timeout"]["read"]
        raise BackendUnreachable(f"{where}: no answer from the backend within {waited:g} s") from error
    except httpx.ConnectError as error:
        raise BackendUnreachable(
            f"{where}: no connection to the backend ({error}); is it running, and is its URL right?"
        ) from error
    except httpx.RequestError as error:
        reason = str(error) or type(error).__name__
        raise BackendUnreachable(f"{where}: the connection to the backend broke ({reason})") from error


def _settings(base_url: str) -> dict[str, Any]:  # Any: keyword arguments of two httpx classes
    url = httpx.URL(base_url)
    if url.scheme == "https":
        tls = _tls(os.environ.get("SSL_CERT_FILE"), os.environ.get("REQUESTS_CA_BUNDLE"))
    else:
        tls = _no_tls()
    # A proxy from the environment never leads to this machine itself.
    return {"verify": tls, "trust_env": not is_loopback(url.host)}


@lru_cache(maxsize=8)
def _tls(cert_file: str | None, requests_bundle: str | None) -> ssl.SSLContext:
    """Make the TLS context once for each choice of CA files; loading them takes about 20 ms (measured)."""
    context = httpx.create_ssl_context()  # honours SSL_CERT_FILE
    if requests_bundle and not cert_file:
        context.load_verify_locations(cafile=requests_bundle)
    return context


@lru_cache(maxsize=1)
def _no_tls() -> ssl.SSLContext:
    """For plain http: a context that trusts nobody, as httpx wants one, and loads no CA files."""
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
