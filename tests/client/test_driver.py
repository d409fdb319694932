from __future__ import annotations

import asyncio
import http.server
import ssl
import threading
from collections.abc import Iterator

import httpx
import pytest
from fakes.cloudflared import CA_FILE
from fakes.scripted_backend import KEY, ScriptedBackend, ok

from pytest_synth.client import EvalJob, SynthClient
from pytest_synth.client.driver import _settings


class Seen(http.server.BaseHTTPRequestHandler):
    """Answers everything, and notes the target of each request: a proxy is sent whole URLs."""

    def do_GET(self) -> None:
        self.server.targets.append(self.path)  # type: ignore[attr-defined]
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


@pytest.fixture
def server() -> Iterator[http.server.ThreadingHTTPServer]:
    running = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Seen)
    running.targets = []  # type: ignore[attr-defined]
    thread = threading.Thread(target=running.serve_forever, args=(0.01,))
    thread.start()
    yield running
    running.shutdown()
    running.server_close()
    thread.join()


def test_a_proxy_of_the_environment_is_for_other_machines_only(
    server: http.server.ThreadingHTTPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("NO_PROXY", "no_proxy", "ALL_PROXY", "all_proxy", "http_proxy"):
        monkeypatch.delenv(name, raising=False)
    here = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setenv("HTTP_PROXY", here)
    SynthClient(here).health()
    SynthClient("http://backend.test").health()
    assert server.targets == ["/api/health", "http://backend.test/api/health"]  # type: ignore[attr-defined]


def subjects(context: ssl.SSLContext) -> list[object]:
    return [certificate["subject"] for certificate in context.get_ca_certs()]


def test_certificates_are_checked_also_against_the_bundle_of_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    plain = _settings("https://backend.test")["verify"]
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(CA_FILE))
    bundled = _settings("https://backend.test")["verify"]
    assert len(subjects(bundled)) == len(subjects(plain)) + 1
    for context in (plain, bundled, _settings("http://backend.test")["verify"]):
        assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)


def test_a_given_transport_does_not_block_the_event_loop() -> None:
    backend = ScriptedBackend()
    released = threading.Event()

    def wait(request: httpx.Request) -> httpx.Response:
        assert released.wait(10)
        return ok(status="ok")

    backend.on("GET", "/api/health", wait)

    async def ask() -> dict[str, str]:
        health = asyncio.create_task(SynthClient("http://backend.test", KEY, transport=backend).ahealth())
        await asyncio.sleep(0)
        released.set()  # reached only because the loop goes on
        return await health

    assert asyncio.run(ask()) == {"status": "ok"}


def test_a_given_transport_stays_open_for_its_owner() -> None:
    class Owned(ScriptedBackend):
        is_closed = False

        def close(self) -> None:
            self.is_closed = True

    backend = Owned()
    backend.on("GET", "/api/health", ok())
    client = SynthClient("http://backend.test", transport=backend)
    client.health()
    asyncio.run(client.ahealth())
    assert (backend.is_closed, len(backend.requests)) == (False, 2)


def test_a_cancelled_poll_ends_at_once_and_leaves_nothing_open() -> None:
    backend = ScriptedBackend()
    backend.on("GET", "/api/eval/jobs/e1", ok(status="running"))

    async def poll_and_cancel() -> None:
        job = EvalJob(None, "e1", client=SynthClient("http://backend.test", KEY, transport=backend))
        task = asyncio.create_task(job.apoll_until_complete(interval=3600.0))
        while not backend.requests:
            await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(asyncio.wait_for(poll_and_cancel(), 10))
