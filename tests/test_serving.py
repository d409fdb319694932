"""Servers in threads: they start, say why they did not, and always end."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from pytest_synth._serving import GRACE_S, ServerDied, ServerThread, bind_loopback


async def hello(request: Request) -> PlainTextResponse:
    return PlainTextResponse("hello")


def get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=5) as answer:
        return str(answer.read().decode())


def test_answers_go_out_at_once() -> None:
    """Head and body are two writes; with Nagle's algorithm the second one waits 40 ms for the first's ACK."""

    async def delays() -> list[int]:
        found: list[int] = []

        async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            found.append(writer.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            writer.close()

        async with await asyncio.start_server(answer, sock=bind_loopback()) as server:
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            await reader.read()
            writer.close()
        return found

    assert asyncio.run(delays()) == [1]


def test_app_is_served_and_the_port_is_free_again_after_the_stop() -> None:
    with ServerThread(Starlette(routes=[Route("/", hello)])) as server:
        assert get(server.url) == "hello"
    assert not server.is_alive
    with pytest.raises(urllib.error.URLError):
        get(server.url)
    bind_loopback(server.port).close()


def test_client_that_connects_before_the_server_runs_is_served() -> None:
    sock = bind_loopback()
    answers: list[str] = []
    early = threading.Thread(target=lambda: answers.append(get(f"http://127.0.0.1:{sock.getsockname()[1]}")))
    early.start()
    with ServerThread(Starlette(routes=[Route("/", hello)]), sock=sock):
        early.join(10)
    assert answers == ["hello"]


def test_failed_start_up_names_the_exception_of_the_app() -> None:
    @asynccontextmanager
    async def broken(app: Starlette) -> AsyncIterator[None]:
        raise ValueError("no data folder")
        yield

    with pytest.raises(ServerDied) as caught:
        ServerThread(Starlette(lifespan=broken)).start()
    assert repr(caught.value.__cause__) == "ValueError('no data folder')"


def test_failed_start_up_names_an_exit_of_the_app_and_not_the_servers() -> None:
    @asynccontextmanager
    async def leaves(app: Starlette) -> AsyncIterator[None]:
        raise SystemExit("no data folder")
        yield

    with pytest.raises(ServerDied) as caught:
        ServerThread(Starlette(lifespan=leaves)).start()
    assert repr(caught.value.__cause__) == "SystemExit('no data folder')"


def test_failed_start_up_of_an_app_that_raises_nothing_says_what_the_app_says() -> None:
    async def declines(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no data folder"})

    with pytest.raises(ServerDied, match=r"^the app ended during its start-up: no data folder$") as caught:
        ServerThread(declines).start()
    assert caught.value.__cause__ is None


def test_stop_cuts_a_request_that_does_not_end() -> None:
    async def hang(request: Request) -> PlainTextResponse:
        await asyncio.sleep(60)
        return PlainTextResponse("late")

    server = ServerThread(Starlette(routes=[Route("/", hang)])).start()

    def ask() -> None:
        with pytest.raises(OSError, match=r".*"):
            get(server.url)

    client = threading.Thread(target=ask)
    client.start()
    time.sleep(0.1)
    before = time.monotonic()
    server.stop()
    assert time.monotonic() - before < GRACE_S + 1
    assert not server.is_alive
    client.join(5)


def test_taken_port_is_an_error_and_its_owner_stays_alive() -> None:
    with ServerThread(Starlette(routes=[Route("/", hello)])) as server:
        with pytest.raises(OSError, match="in use"):
            bind_loopback(server.port)
        assert get(server.url) == "hello"
