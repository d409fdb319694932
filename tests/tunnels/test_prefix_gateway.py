"""The local end of a leased tunnel."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest
from fakes.cloudflared_task_app import TaskApp

from pytest_synth._serving import ServerThread, bind_loopback
from pytest_synth.tunnels.prefix_gateway import prefix_gateway

PREFIX = "/s/abc123"


@pytest.fixture
def gateway(port: int) -> Iterator[str]:
    with ServerThread(prefix_gateway(PREFIX, port)) as server:
        yield server.url


def ask(url: str, **options: object) -> tuple[int, dict[str, list[str]], bytes]:
    request = urllib.request.Request(url, headers={"X-API-Key": TaskApp.KEY}, **options)  # type: ignore[arg-type]
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            return answer.status, {k: answer.headers.get_all(k) for k in answer.headers}, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, {}, error.read()


@pytest.mark.parametrize(
    ("path", "arrives"),
    [
        ("/s/abc123", b"GET / "),
        ("/s/abc123/", b"GET / "),
        ("/s/abc123/a%2Fb/%C3%A4?q=%26&q=2", b"GET /a%2Fb/%C3%A4?q=%26&q=2 "),
        ("/s/abc123/a%7Eb?q=%2A+%7E", b"GET /a%7Eb?q=%2A+%7E "),
        ("/s/abc123/s/abc123/x", b"GET /s/abc123/x "),
    ],
)
def test_a_path_arrives_without_the_prefix_and_otherwise_unchanged(
    gateway: str, path: str, arrives: bytes
) -> None:
    status, _, body = ask(gateway + path)
    assert (status, body) == (200, arrives)


def test_method_body_and_headers_pass(gateway: str) -> None:
    status, headers, body = ask(f"{gateway}{PREFIX}/rollout", data=b'{"seed": 1}', method="POST")
    assert (status, body) == (200, b'POST /rollout {"seed": 1}')
    assert headers["content-type"] == ["text/x-echo"]
    assert headers["x-app"] == ["one", "two"]


@pytest.mark.parametrize("path", ["/", "/rollout", "/s/abc1234/rollout", "/s/other/rollout"])
def test_nothing_else_passes(gateway: str, path: str) -> None:
    assert ask(gateway + path)[0] == 404


def test_without_the_task_app_it_is_not_ready() -> None:
    with bind_loopback() as sock:
        free = sock.getsockname()[1]
    with ServerThread(prefix_gateway(PREFIX, free)) as server:
        status, _, body = ask(f"{server.url}{PREFIX}/__synth/ready")
        assert (status, json.loads(body)) == (503, {"ready": False})
        status, _, body = ask(f"{server.url}{PREFIX}/rollout", data=b"{}")
        assert (status, json.loads(body)) == (
            502,
            {"detail": f"no task app answers at http://127.0.0.1:{free}"},
        )
