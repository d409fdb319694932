"""The tunnel that is none, and TunneledLocalAPI on top of it."""

from __future__ import annotations

import asyncio
import socket
import urllib.error
import urllib.request
from typing import Any

import pytest

from pytest_synth._serving import ServerThread
from pytest_synth.errors import ConfigError, TaskAppError
from pytest_synth.tunnels import TunnelBackend, TunneledLocalAPI, open_tunnel


async def health_app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": f"{message['type']}.complete"})
            if message["type"] == "lifespan.shutdown":
                return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": scope["path"].encode()})


async def broken_app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no data set"})


def get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=5) as answer:
        return str(answer.read().decode())


def test_kinds_carry_the_published_values() -> None:
    assert {kind.name: kind.value for kind in TunnelBackend} == {
        "Localhost": "localhost",
        "CloudflareQuickTunnel": "cloudflare_quick",
        "CloudflareManagedTunnel": "cloudflare_managed",
        "CloudflareManagedLease": "cloudflare_managed_lease",
    }


def test_localhost_leads_to_the_port_and_ends_when_closed() -> None:
    with ServerThread(health_app) as server, open_tunnel(server.port, "localhost") as tunnel:
        assert tunnel.url == f"http://127.0.0.1:{server.port}"
        assert tunnel.backend is TunnelBackend.Localhost
        assert get(f"{tunnel.url}/health") == "/health"
        assert tunnel.is_alive
    assert not tunnel.is_alive
    assert tunnel.failure is None
    assert tunnel.generation == 0


def test_an_unknown_kind_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigError) as caught:
        open_tunnel(80, "ngrok")
    assert str(caught.value) == (
        "tunnel 'ngrok' is not known; allowed: "
        "localhost, cloudflare_quick, cloudflare_managed, cloudflare_managed_lease"
    )


def test_an_app_is_served_on_loopback_and_stopped_by_close() -> None:
    async def serve() -> tuple[str, str]:
        api = await TunneledLocalAPI.create_for_app(
            app=health_app, local_port=None, backend=TunnelBackend.Localhost, progress=True
        )
        try:
            return api.url, await asyncio.to_thread(get, f"{api.url}/task_info")
        finally:
            api.close()
            api.close()
            assert not api.is_alive

    url, body = asyncio.run(serve())
    assert url.startswith("http://127.0.0.1:")
    assert body == "/task_info"
    with pytest.raises(urllib.error.URLError):
        get(url)


def test_both_with_statements_close() -> None:
    async def serve() -> list[str]:
        create = TunneledLocalAPI.create_for_app
        async with await create(health_app, backend=TunnelBackend.Localhost) as first:
            assert first.hostname == "127.0.0.1"
        with await create(health_app, backend=TunnelBackend.Localhost) as second:
            assert second.local_port != first.local_port
        return [first.url, second.url]

    for url in asyncio.run(serve()):
        with pytest.raises(urllib.error.URLError):
            get(url)


def test_a_taken_port_is_refused_and_its_owner_lives_on() -> None:
    with socket.create_server(("127.0.0.1", 0)) as owner:
        port = owner.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"local_port {port} on 127\.0\.0\.1 is not free .*choose"):
            asyncio.run(TunneledLocalAPI.create_for_app(health_app, port, backend=TunnelBackend.Localhost))
        with socket.create_connection(("127.0.0.1", port), timeout=5):
            pass


def test_an_app_that_does_not_start_is_named_so() -> None:
    with pytest.raises(TaskAppError, match="the task app does not start"):
        asyncio.run(TunneledLocalAPI.create_for_app(broken_app, backend=TunnelBackend.Localhost))


def test_when_the_tunnel_cannot_open_the_app_is_stopped_again() -> None:
    with pytest.raises(ConfigError, match="tunnel 'ngrok' is not known"):
        asyncio.run(TunneledLocalAPI.create_for_app(health_app, backend="ngrok"))  # type: ignore[arg-type]
