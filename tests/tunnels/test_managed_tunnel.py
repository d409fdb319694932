"""Managed tunnels: a backend's tunnel routes, the fake cloudflared, and real HTTP between them."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from fakes.cloudflared import FakeCloudflared, Run, is_running
from fakes.cloudflared_backend import API_KEY, HOST, TunnelRoutes
from fakes.cloudflared_task_app import TaskApp

from pytest_synth._serving import ServerThread, bind_loopback
from pytest_synth.client import SynthClient
from pytest_synth.errors import ConfigError, TunnelError
from pytest_synth.tunnels import Tunnel, TunnelBackend, TunneledLocalAPI, open_tunnel
from pytest_synth.tunnels.keeper import Timings
from pytest_synth.tunnels.probe import get_public

KEY = {"X-API-Key": TaskApp.KEY}
FAST = Timings(
    ready_s=10.0, poll_s=0.01, probe_s=0.01, watch_s=0.01, outage_s=0.1, pause_s=0.01, stop_s=5.0, restarts=3
)
MANAGED = TunnelBackend.CloudflareManagedTunnel
LEASE = TunnelBackend.CloudflareManagedLease


@pytest.fixture
def backend() -> TunnelRoutes:
    with bind_loopback() as sock:
        return TunnelRoutes(sock.getsockname()[1])


@pytest.fixture
def client(backend: TunnelRoutes) -> Iterator[SynthClient]:
    with ServerThread(backend) as server:
        yield SynthClient(server.url, API_KEY)


def managed(
    port: int, client: SynthClient, fake: FakeCloudflared, kind: TunnelBackend = MANAGED, **options: Any
) -> Tunnel:
    options = {"timings": FAST, "probe_key": TaskApp.KEY, "resolve": fake.resolve} | options
    return open_tunnel(port, kind, client=client, **options)


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "waited 20 s in vain"
        time.sleep(0.005)


def test_a_managed_tunnel_has_the_name_that_the_backend_gives(
    port: int, client: SynthClient, fake: FakeCloudflared, backend: TunnelRoutes, app: TaskApp
) -> None:
    with managed(port, client, fake) as tunnel:
        assert tunnel.url == f"https://{HOST}"
        assert tunnel.backend is MANAGED
        assert get_public(f"{tunnel.url}/info", KEY, fake.resolve) == (200, b"GET /info ")
    assert backend.rotations == [{"local_port": port, "local_host": "127.0.0.1"}]
    assert app.keys == [TaskApp.KEY]


def test_the_token_travels_in_the_environment_only(
    port: int, client: SynthClient, fake: FakeCloudflared, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    with managed(port, client, fake):
        [start] = fake.starts()
    assert start.token
    assert start.token not in " ".join(start.arguments)
    assert start.arguments[-1] == "run"
    assert start.token not in caplog.text


def test_a_token_that_cloudflared_prints_is_not_repeated(
    port: int, client: SynthClient, fake: FakeCloudflared
) -> None:
    fake.order(Run(fault="crash"))
    with pytest.raises(TunnelError, match=r"nil pointer dereference with \(token\)'"):
        managed(port, client, fake)


def test_a_restart_keeps_name_and_token(
    port: int, client: SynthClient, fake: FakeCloudflared, backend: TunnelRoutes
) -> None:
    with managed(port, client, fake) as tunnel:
        os.kill(fake.starts()[0].pid, signal.SIGKILL)
        wait_for(lambda: tunnel.generation == 1)
        assert tunnel.url == f"https://{HOST}"
    first, second = fake.starts()
    assert first.token == second.token
    assert len(backend.rotations) == 1


@pytest.mark.parametrize("token", ["not-a-token", "bm90LWEtdG9rZW4="], ids=["text", "base64"])
def test_a_token_that_is_none_is_told_without_showing_it(
    port: int, client: SynthClient, fake: FakeCloudflared, backend: TunnelRoutes, token: str
) -> None:
    backend.answer = {"tunnel_token": token}
    with pytest.raises(TunnelError) as caught:
        managed(port, client, fake)
    assert str(caught.value) == (
        "Cloudflare refuses the token of the managed tunnel; its last line was 'Provided Tunnel token is not "
        "valid.'; open the tunnel again to get a new one, and look whether another run with the same "
        "SYNTH_API_KEY has taken it over"
    )


def test_a_token_that_was_replaced_ends_the_waiting_at_once(
    port: int, client: SynthClient, fake: FakeCloudflared
) -> None:
    fake.order(Run(fault="unauthorised"))
    started = time.monotonic()
    with pytest.raises(TunnelError, match=r"refuses the token .*Unauthorized: Invalid tunnel secret"):
        managed(port, client, fake, timings=replace(FAST, ready_s=60))
    assert time.monotonic() - started < 30


@pytest.mark.parametrize("kind", [MANAGED, LEASE])
@pytest.mark.parametrize(
    ("status", "words"),
    [
        (403, "gives this SYNTH_API_KEY no managed tunnel"),
        (404, "this backend has no managed tunnels"),
        (501, "this backend has no managed tunnels"),
        (429, "refused by the test); try again later"),
        (500, "refused by the test); try again later"),
    ],
)
def test_a_backend_that_gives_no_tunnel_is_quoted(
    port: int,
    client: SynthClient,
    fake: FakeCloudflared,
    backend: TunnelRoutes,
    kind: TunnelBackend,
    status: int,
    words: str,
) -> None:
    backend.refusal = status
    with pytest.raises(TunnelError) as caught:
        managed(port, client, fake, kind)
    assert words in str(caught.value)
    assert f"answered {status}" in str(caught.value)
    assert fake.starts() == []


def test_a_backend_that_is_not_there_is_told(port: int, fake: FakeCloudflared) -> None:
    with bind_loopback() as sock:
        free = sock.getsockname()[1]
    with pytest.raises(TunnelError, match=rf"the backend gives no managed tunnel: .*127\.0\.0\.1:{free}"):
        managed(port, SynthClient(f"http://127.0.0.1:{free}", API_KEY), fake)


@pytest.mark.parametrize("name", ["hostname", "tunnel_token"])
def test_an_answer_without_a_field_names_the_field(
    port: int, client: SynthClient, fake: FakeCloudflared, backend: TunnelRoutes, name: str
) -> None:
    backend.answer = {name: None}
    with pytest.raises(TunnelError) as caught:
        managed(port, client, fake)
    assert str(caught.value) == (
        f"the backend answered POST /api/v1/tunnels/rotate without a {name}; use the tunnel cloudflare_quick"
    )


def test_without_a_client_a_managed_tunnel_is_refused(port: int, fake: FakeCloudflared) -> None:
    with pytest.raises(ConfigError, match="'cloudflare_managed' comes from a backend, and no client"):
        open_tunnel(port, MANAGED)


def test_without_a_key_a_managed_tunnel_is_refused(
    port: int, fake: FakeCloudflared, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SYNTH_API_KEY", raising=False)
    with pytest.raises(ConfigError, match="api_key is required: pass it, or set SYNTH_API_KEY"):
        asyncio.run(TunneledLocalAPI.create(port))


def test_tunneled_local_api_takes_the_published_arguments(
    port: int, client: SynthClient, fake: FakeCloudflared, backend: TunnelRoutes, app: TaskApp
) -> None:
    async def create() -> str:
        async with await TunneledLocalAPI.create(
            port,
            api_key=API_KEY,
            env_api_key=TaskApp.KEY,
            backend_url=client.base_url,
            verify_dns=False,
            progress=False,
        ) as api:
            assert api.hostname == HOST
            assert api.backend is MANAGED
            return api.url

    assert asyncio.run(create()) == f"https://{HOST}"
    assert app.keys == [], "verify_dns=False asks nothing through the public URL"


# ---- leases ----


def test_a_lease_leads_through_its_prefix_to_the_task_app(
    port: int, client: SynthClient, fake: FakeCloudflared, backend: TunnelRoutes
) -> None:
    with managed(port, client, fake, LEASE) as tunnel:
        assert tunnel.url == f"https://{HOST}/s/abc123"
        answer = get_public(f"{tunnel.url}/task_info?seed=1&seed=%2B2", KEY, fake.resolve)
        ready = get_public(f"{tunnel.url}/__synth/ready", {}, fake.resolve)
        other = get_public(f"https://{HOST}/task_info", KEY, fake.resolve)
    assert answer == (200, b"GET /task_info?seed=1&seed=%2B2 ")
    assert ready == (200, b'{"ready":true}')
    assert other[0] == 404
    [lease] = backend.leases
    assert lease.pop("client_instance_id").startswith("pytest-synth-")
    assert len(lease.pop("idempotency_key")) == 32
    assert lease == {
        "local_host": "127.0.0.1",
        "local_port": port,
        "app_name": None,
        "requested_ttl_seconds": 3600,
        "reuse_connector": True,
    }
    assert backend.releases == ["lease-7"]


def test_heartbeats_tell_how_it_is(
    port: int, client: SynthClient, fake: FakeCloudflared, backend: TunnelRoutes
) -> None:
    with managed(port, client, fake, LEASE, timings=replace(FAST, outage_s=60)):
        up = {"connected_to_edge": True, "gateway_ready": True, "local_ready": False, "last_error": None}
        wait_for(lambda: len(backend.heartbeats) >= 3)
        [start] = fake.starts()
        start.post("/fake/disconnect")
        wait_for(lambda: not backend.heartbeats[-1]["connected_to_edge"])
        start.post("/fake/connect")
        wait_for(lambda: backend.heartbeats[-1]["connected_to_edge"])
    assert backend.heartbeats[0] == {**up, "local_ready": True}
    assert backend.releases == ["lease-7"]


def test_the_backend_may_ask_for_a_restart(
    port: int, client: SynthClient, fake: FakeCloudflared, backend: TunnelRoutes
) -> None:
    backend.heartbeat = {"action": "restart_connector", "next_heartbeat_seconds": 60}
    with managed(port, client, fake, LEASE) as tunnel:
        wait_for(lambda: tunnel.generation == 1)
        assert tunnel.is_alive
    assert len(fake.starts()) >= 2
    assert any("the backend asked for a restart" in str(beat["last_error"]) for beat in backend.heartbeats)


def test_a_failing_heartbeat_is_not_the_end(
    port: int, client: SynthClient, fake: FakeCloudflared, backend: TunnelRoutes
) -> None:
    with managed(port, client, fake, LEASE) as tunnel:
        wait_for(lambda: backend.heartbeats)
        backend.heartbeat_status = 503
        seen = len(backend.heartbeats)
        wait_for(lambda: len(backend.heartbeats) > seen + 2)
        assert tunnel.is_alive
        assert tunnel.generation == 0


def test_a_lease_that_the_backend_has_ended_ends_the_tunnel(
    port: int, client: SynthClient, fake: FakeCloudflared, backend: TunnelRoutes
) -> None:
    backend.heartbeat_status = 404
    with managed(port, client, fake, LEASE) as tunnel:
        wait_for(lambda: tunnel.failure)
        assert str(tunnel.failure).startswith(
            f"the backend has ended the lease of the tunnel to 127.0.0.1:{port} ("
        )
        [start] = fake.starts()
        wait_for(lambda: not is_running(start.pid))


def test_a_taken_gateway_port_is_told_and_the_lease_given_back(
    port: int, client: SynthClient, fake: FakeCloudflared, backend: TunnelRoutes
) -> None:
    with socket.create_server(("127.0.0.1", backend.gateway_port)):
        with pytest.raises(TunnelError) as caught:
            managed(port, client, fake, LEASE)
        with socket.create_connection(("127.0.0.1", backend.gateway_port), timeout=5):
            pass
    assert str(caught.value).startswith(
        f"port {backend.gateway_port} of 127.0.0.1, where this lease's requests arrive, is not free ("
    )
    assert str(caught.value).endswith("end the other tunnel, or use the tunnel cloudflare_managed")
    assert backend.releases == ["lease-7"]
    assert fake.starts() == []
