"""Bodies that are longer than allowed are refused, and not read whole."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator

import httpx
import pytest
from fakes.backend_api import Api
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from pytest_synth.backend.routes.body_limit import MAX_BODY_BYTES, BodyLimit


def announce(api: Api, path: str, key: str) -> str:
    """Announce a body that is one byte too long, send nothing of it, and read the answer."""
    host, port = httpx.URL(api.backend.url).host, httpx.URL(api.backend.url).port
    head = (
        f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
        f"X-API-Key: {key}\r\nContent-Length: {MAX_BODY_BYTES + 1}\r\n\r\n"
    )
    with socket.create_connection((host, port or 80), 10) as connection:
        connection.sendall(head.encode())
        answer = b""
        while b"}" not in answer:
            answer += connection.recv(4096)
    return answer.decode()


@pytest.mark.parametrize(
    "path",
    [
        "/api/demo/keys",
        "/api/eval/jobs",
        "/api/prompt-learning/online/jobs",
        "/api/v1/env-keys",
        "/api/inference/v1/chat/completions",
    ],
)
def test_a_body_that_is_too_long_is_refused_unread(api: Api, path: str) -> None:
    answer = announce(api, path, api.backend.key)
    assert answer.startswith("HTTP/1.1 413 ")
    assert "the body has more than 67108864 bytes" in answer


def test_without_a_key_it_is_401_all_the_same(api: Api) -> None:
    assert announce(api, "/api/eval/jobs", "wrong").startswith("HTTP/1.1 401 ")


@pytest.mark.parametrize(("size", "status", "text"), [(10, 200, "10"), (11, 413, "more than 10 bytes")])
def test_a_body_of_unknown_length_is_counted(size: int, status: int, text: str) -> None:
    async def count(request: Request) -> Response:
        return PlainTextResponse(str(len(await request.body())))

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(size):
            yield b"x"

    async def ask() -> httpx.Response:
        app = Starlette(routes=[Route("/", count, methods=["POST"])])
        app.add_middleware(BodyLimit, most_bytes=10)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://app") as http:
            return await http.post("/", content=pieces())

    answer = asyncio.run(ask())
    assert (answer.status_code, answer.text.removeprefix("the body has ")) == (status, text)
