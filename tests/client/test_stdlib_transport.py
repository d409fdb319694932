from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import httpx
import pytest
import respx

from pytest_synth.client import StdlibTransport, SynthClient
from pytest_synth.client.transport import is_loopback
from pytest_synth.errors import BackendUnreachable, ConfigError


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.server.seen.append((self.path, self.headers))  # type: ignore[attr-defined]
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(201)
        self.send_header("X-Two", "a")
        self.send_header("X-Two", "b")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        if self.path == "/hang":
            self.server.release.wait(10)  # type: ignore[attr-defined]
            return
        if self.path == "/cut":
            self.send_response(200)
            self.send_header("Content-Length", "100")
            self.end_headers()
            self.wfile.write(b'{"status":')
            self.close_connection = True
            return
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("X-Name", "Zürich")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for piece in (b'{"status":', b' "ok"}', b""):
            self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


@contextmanager
def serve() -> Iterator[http.server.ThreadingHTTPServer]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.seen = []  # type: ignore[attr-defined]
    server.release = threading.Event()  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server
    finally:
        server.release.set()  # type: ignore[attr-defined]
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def server() -> Iterator[http.server.ThreadingHTTPServer]:
    with serve() as running:
        yield running


@pytest.fixture
def base(server: http.server.ThreadingHTTPServer) -> str:
    return f"http://127.0.0.1:{server.server_port}"


def test_a_mock_of_the_users_test_does_not_catch_calls_to_the_embedded_backend(base: str) -> None:
    client = SynthClient(base, "key", transport=StdlibTransport())
    with respx.mock:
        assert client.health() == {"status": "ok"}
        with pytest.raises(respx.models.AllMockedAssertionError):
            SynthClient(base, "key").health()


def test_method_target_headers_and_body_arrive(server: http.server.ThreadingHTTPServer, base: str) -> None:
    with httpx.Client(transport=StdlibTransport()) as http:
        answer = http.post(base + "/a%20b?c=d&c=e", content=b"x" * 300_000, headers={"X-Key": "k"})
    path, headers = server.seen[0]  # type: ignore[attr-defined]
    assert (path, headers["X-Key"], headers.get_all("Host")) == (
        "/a%20b?c=d&c=e",
        "k",
        [base.removeprefix("http://")],
    )
    assert headers.get_all("Connection") == ["close"]
    assert (answer.status_code, answer.content) == (201, b"x" * 300_000)
    assert answer.headers.get_list("x-two") == ["a", "b"]


def test_many_threads_share_one_transport(base: str) -> None:
    with httpx.Client(transport=StdlibTransport()) as http, ThreadPoolExecutor(8) as pool:
        texts = [f"body {n}".encode() for n in range(64)]
        answers = pool.map(lambda text: http.post(base + "/echo", content=text).content, texts)
        assert list(answers) == texts


def test_a_server_that_does_not_answer_is_a_timeout(base: str) -> None:
    timeout = httpx.Timeout(10.0, read=0.05)
    with (
        httpx.Client(transport=StdlibTransport(), timeout=timeout) as http,
        pytest.raises(httpx.ReadTimeout),
    ):
        http.get(base + "/hang")


def test_a_body_that_is_cut_off_is_a_broken_connection(base: str) -> None:
    with (
        httpx.Client(transport=StdlibTransport()) as http,
        pytest.raises(httpx.RemoteProtocolError, match="ended 90 bytes before the body did"),
    ):
        http.get(base + "/cut")


def test_a_header_that_is_no_ascii_arrives(base: str) -> None:
    with httpx.Client(transport=StdlibTransport()) as http:
        answer = http.get(base)
    assert (answer.headers["x-name"], answer.json()) == ("Zürich", {"status": "ok"})


def test_a_closed_port_is_a_connection_error() -> None:
    with serve() as server:
        port = server.server_port
    client = SynthClient(f"http://127.0.0.1:{port}", "key", transport=StdlibTransport())
    with pytest.raises(BackendUnreachable, match=r"no connection to the backend .*is it running"):
        client.submit_eval({})


@pytest.mark.parametrize("url", ["https://127.0.0.1", "http://example.com"])
def test_other_urls_than_plain_loopback_are_refused(url: str) -> None:
    client = SynthClient(url, "key", transport=StdlibTransport())
    with pytest.raises(ConfigError, match="serves http on loopback hosts only"):
        client.health()


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("[::1]", True),
        ("localhost", True),
        ("api.localhost", True),
        ("localhost.example.com", False),
        ("10.0.0.1", False),
        ("0.0.0.0", False),
    ],
)
def test_loopback_is_this_machine_only(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected
