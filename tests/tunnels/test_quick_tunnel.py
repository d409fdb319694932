"""Quick tunnels through an executable that behaves like cloudflared, over real HTTPS on loopback."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fakes.cloudflared import FakeCloudflared, Run, is_running
from fakes.cloudflared_task_app import TaskApp

from pytest_synth._serving import ServerThread
from pytest_synth.errors import TunnelError
from pytest_synth.tunnels import Tunnel, TunnelBackend, TunneledLocalAPI, open_tunnel
from pytest_synth.tunnels.keeper import Timings
from pytest_synth.tunnels.probe import get_public
from pytest_synth.tunnels.process import CloudflaredProcess

KEY = TaskApp.KEY
FAST = Timings(
    ready_s=10.0, poll_s=0.01, probe_s=0.01, watch_s=0.01, outage_s=0.1, pause_s=0.01, stop_s=5.0, restarts=3
)


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "waited 20 s in vain"
        time.sleep(0.005)


class Clock:
    """A clock that stands still until it is moved; it counts how often it was read."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.reads = 0

    def __call__(self) -> float:
        self.reads += 1
        return self.now

    def wait_for_looks(self) -> None:
        """Wait until the keeper has read it a few times more: once for each look at cloudflared."""
        seen = self.reads
        wait_for(lambda: self.reads > seen + 2)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("pytest_synth.tunnels.keeper.monotonic", clock)
    return clock


def quick(port: int, fake: FakeCloudflared, timings: Timings = FAST, **options: Any) -> Tunnel:
    options = {"probe_key": KEY, "resolve": fake.resolve} | options
    return open_tunnel(port, "cloudflare_quick", timings=timings, **options)


def refusal(port: int, fake: FakeCloudflared, run: Run, timings: Timings = FAST, **options: Any) -> str:
    fake.order(run)
    with pytest.raises(TunnelError) as caught:
        quick(port, fake, timings, **options)
    return str(caught.value)


def refusal_by_the_probe(port: int, fake: FakeCloudflared, clock: Clock) -> str:
    """Let the time be up when the public URL is asked for the first time."""

    def resolve(host: str, number: int) -> list[tuple[str, int]]:
        clock.now += FAST.ready_s + 1
        return fake.resolve(host, number)

    return refusal(port, fake, Run(), resolve=resolve)


@pytest.mark.parametrize("log", ["text", "json"])
@pytest.mark.parametrize("has_quicktunnel", [True, False], ids=["from-metrics", "from-log"])
def test_requests_travel_through_the_public_url(
    port: int, fake: FakeCloudflared, app: TaskApp, log: Any, has_quicktunnel: bool
) -> None:
    fake.order(Run(log=log, has_quicktunnel=has_quicktunnel, noise=3))
    with quick(port, fake) as tunnel:
        assert tunnel.url == "https://calm-words-fit-well.trycloudflare.com"
        assert tunnel.backend is TunnelBackend.CloudflareQuickTunnel
        assert tunnel.is_alive
        answer = get_public(f"{tunnel.url}/task_info?seed=3", {"X-API-Key": KEY}, fake.resolve)
    assert answer == (200, b"GET /task_info?seed=3 ")
    assert app.keys == [KEY]
    assert not tunnel.is_alive
    assert tunnel.failure is None


def test_cloudflared_gets_loopback_and_neither_updates_nor_reads_the_users_file(
    port: int, fake: FakeCloudflared, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNNEL_TOKEN", "of-another-tunnel")
    with quick(port, fake):
        [start] = fake.starts()
    assert start.arguments == (
        "tunnel",
        "--no-autoupdate",
        "--metrics",
        f"127.0.0.1:{start.metrics}",
        "--config",
        os.devnull,
        "--url",
        f"http://127.0.0.1:{port}",
    )
    assert start.token is None


def test_synth_cloudflared_names_the_binary(
    port: int, fake: FakeCloudflared, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SYNTH_CLOUDFLARED", str(fake.path))
    monkeypatch.setenv("PATH", "/nowhere")
    with quick(port, fake):
        assert len(fake.starts()) == 1


def test_a_missing_binary_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SYNTH_CLOUDFLARED", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(
        TunnelError, match=r"cloudflared is not installed .* install it \(https://.*CLOUDFLARED"
    ):
        open_tunnel(1, "cloudflare_quick")


def test_a_wrong_synth_cloudflared_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("no program")
    monkeypatch.setenv("SYNTH_CLOUDFLARED", str(text))
    with pytest.raises(TunnelError) as caught:
        open_tunnel(1, "cloudflare_quick")
    assert str(caught.value) == (
        f"SYNTH_CLOUDFLARED is {str(text)!r}, which is no executable file; set it to the path of cloudflared"
    )


@pytest.mark.parametrize("log", ["text", "json"])
@pytest.mark.parametrize(
    ("fault", "words"),
    [
        pytest.param(
            "rate_limited",
            "Cloudflare gives no quick tunnel now, too many were asked for (429); its last line was "
            "\"failed to unmarshal quick Tunnel: invalid character 'e' looking for beginning of value\"; "
            "wait some minutes, or use the tunnel cloudflare_managed",
            id="rate-limited",
        ),
        pytest.param(
            "no_network",
            "cloudflared cannot reach Cloudflare; its last line was 'failed to request quick Tunnel: "
            'Post "https://api.trycloudflare.com/tunnel": dial tcp: lookup api.trycloudflare.com: '
            "no such host'; check this machine's network, DNS and firewall, or use a backend on this machine",
            id="no-network",
        ),
        pytest.param(
            "crash",
            "cloudflared ended at its start with exit code 2; its last line was 'panic: runtime error: "
            "invalid memory address or nil pointer dereference'; "
            "run `cloudflared tunnel --url http://127.0.0.1:8000` by hand to see more",
            id="crash",
        ),
    ],
)
def test_an_early_end_has_its_own_words(
    port: int, fake: FakeCloudflared, fault: Any, words: str, log: Any
) -> None:
    assert refusal(port, fake, Run(fault=fault, log=log)) == words
    assert len(fake.starts()) == 1


def test_no_name_in_time_is_told(port: int, fake: FakeCloudflared) -> None:
    assert refusal(port, fake, Run(fault="silent"), replace(FAST, ready_s=1)).startswith(
        "cloudflared printed no public URL within 1 s; its last line was "
    )


def test_no_connection_in_time_is_told(port: int, fake: FakeCloudflared) -> None:
    words = refusal(port, fake, Run(fault="unreachable", log="json"), replace(FAST, ready_s=2))
    assert words == (
        "cloudflared has no connection to Cloudflare after 2 s; its last line was 'Unable to establish "
        "connection with Cloudflare edge failed to dial to edge'; "
        "it needs outgoing UDP or TCP to port 7844: look at the firewall"
    )


def test_a_printed_url_alone_is_not_ready(port: int, fake: FakeCloudflared, app: TaskApp) -> None:
    fake.order(Run(connect_after_s=0.3, edge_faults=(530, 404, 502, 503)))
    with quick(port, fake):
        pass
    assert app.keys == [KEY], "only the fifth request through the edge reached the task app"


def test_a_name_that_is_not_in_the_dns_yet_is_waited_for(port: int, fake: FakeCloudflared) -> None:
    asked: list[str] = []

    def resolve(host: str, number: int) -> list[tuple[str, int]]:
        asked.append(host)
        if len(asked) < 4:
            raise OSError(f"{host} is not known")
        return fake.resolve(host, number)

    with open_tunnel(port, "cloudflare_quick", probe_key=KEY, resolve=resolve, timings=FAST) as tunnel:
        assert tunnel.is_alive
    assert asked == ["calm-words-fit-well.trycloudflare.com"] * 4


def test_bad_gateway_is_never_taken_for_an_answer(fake: FakeCloudflared, clock: Clock) -> None:
    with ServerThread(TaskApp()) as server:
        dead_port = server.port
    words = refusal_by_the_probe(dead_port, fake, clock)
    assert words == (
        "the task app does not answer at https://calm-words-fit-well.trycloudflare.com/health after 10 s: "
        f"it answered 502; nothing answers at http://127.0.0.1:{dead_port}/health either; "
        "start the task app there"
    )


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (404, b"", "answers 404; give the task app a /health route"),
        (500, b"", "answers 500; look into the task app's log"),
        (
            503,
            b'{"code": "missing_environment_api_key"}',
            "answers 503; set ENVIRONMENT_API_KEY for the task app",
        ),
    ],
)
def test_what_the_app_itself_answers_says_what_to_do(
    fake: FakeCloudflared, clock: Clock, status: int, body: bytes, words: str
) -> None:
    async def unwell(scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": status, "headers": []})
            await send({"type": "http.response.body", "body": body})

    with ServerThread(unwell) as server:
        shown = refusal_by_the_probe(server.port, fake, clock)
    assert shown.endswith(f"it answered {status}; http://127.0.0.1:{server.port}/health {words}")


def test_a_binary_that_cannot_be_run_is_named(
    port: int, fake: FakeCloudflared, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object) -> None:
        raise OSError(8, "Exec format error")

    monkeypatch.setattr("pytest_synth.tunnels.keeper.CloudflaredProcess", refuse)
    with pytest.raises(TunnelError) as caught:
        quick(port, fake)
    assert str(caught.value) == (
        f"cannot run cloudflared at {str(fake.path)!r}: [Errno 8] Exec format error; "
        "set SYNTH_CLOUDFLARED to one that runs on this machine"
    )


def test_an_app_that_refuses_the_key_is_up(port: int, fake: FakeCloudflared, app: TaskApp) -> None:
    with open_tunnel(
        port, "cloudflare_quick", probe_key="wrong", resolve=fake.resolve, timings=FAST
    ) as tunnel:
        assert tunnel.is_alive
    assert app.keys == ["wrong"]


def test_a_certificate_that_nobody_signed_is_refused(
    port: int, fake: FakeCloudflared, app: TaskApp, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SSL_CERT_FILE")
    words = refusal_by_the_probe(port, fake, clock)
    assert "its certificate is not trusted (" in words
    assert words.endswith(
        f"http://127.0.0.1:{port}/health answers 200; "
        "the task app is well, so try again, or use another tunnel"
    )
    assert app.keys == [KEY], "only the look at home reached the task app"


def test_a_name_that_resolves_by_itself_needs_nothing_injected(port: int, fake: FakeCloudflared) -> None:
    fake.order(Run(host="localhost:{edge}"))
    with open_tunnel(port, "cloudflare_quick", probe_key=KEY, timings=FAST) as tunnel:
        [start] = fake.starts()
        assert tunnel.url == f"https://localhost:{start.edge}"


def test_a_flood_of_output_does_not_block_cloudflared(port: int, fake: FakeCloudflared) -> None:
    fake.order(Run(noise=20_000, has_quicktunnel=False))  # 2.5 MB; a pipe holds 64 kB
    with quick(port, fake) as tunnel:
        assert tunnel.is_alive


def test_a_cloudflared_that_ignores_sigterm_is_killed(port: int, fake: FakeCloudflared) -> None:
    fake.order(Run(fault="hang"))
    with quick(port, fake, replace(FAST, stop_s=0.2)):
        [start] = fake.starts()
    assert not is_running(start.pid)


def test_a_tunnel_is_up_only_while_requests_come_through(port: int, fake: FakeCloudflared) -> None:
    fake.order(Run(), Run(connect_after_s=0.5))
    with quick(port, fake, replace(FAST, outage_s=60)) as tunnel:
        assert tunnel.is_up
        [start] = fake.starts()
        start.post("/fake/disconnect")
        assert not tunnel.is_up, "no connection to Cloudflare"
        start.post("/fake/connect")
        assert tunnel.is_up
        os.kill(start.pid, signal.SIGKILL)
        wait_for(lambda: len(fake.starts()) == 2)
        assert (tunnel.is_up, tunnel.generation) == (False, 0), "it is being restarted"
        wait_for(lambda: tunnel.is_up)
        assert tunnel.generation == 1
    assert not tunnel.is_up


def test_a_dead_cloudflared_is_restarted_under_a_new_url(port: int, fake: FakeCloudflared) -> None:
    fake.order(Run(), Run(host="other-words-now.trycloudflare.com"))
    said: list[str] = []
    with quick(port, fake, progress=said.append) as tunnel:
        before = tunnel.generation, tunnel.url
        os.kill(fake.starts()[0].pid, signal.SIGKILL)
        wait_for(lambda: tunnel.generation == 1)
        assert before == (0, "https://calm-words-fit-well.trycloudflare.com")
        assert tunnel.url == "https://other-words-now.trycloudflare.com"
        assert tunnel.is_alive
        assert get_public(f"{tunnel.url}/info", {"X-API-Key": KEY}, fake.resolve)[0] == 200
    assert len(fake.starts()) == 2
    [restart] = [line for line in said if line.startswith("restarting")]
    assert restart.startswith(
        "restarting the tunnel: cloudflared ended with exit code -9; its last line was "
    )


def test_only_a_connection_lost_for_long_in_one_piece_leads_to_a_restart(
    port: int, fake: FakeCloudflared, clock: Clock
) -> None:
    said: list[str] = []
    with quick(port, fake, replace(FAST, outage_s=30), progress=said.append) as tunnel:
        [start] = fake.starts()
        for _ in range(2):
            start.post("/fake/disconnect")
            clock.wait_for_looks()
            clock.now += 29
            clock.wait_for_looks()
            start.post("/fake/connect")
            clock.wait_for_looks()
        assert not any("restarting" in line for line in said)
        start.post("/fake/disconnect")
        clock.wait_for_looks()
        clock.now += 30
        wait_for(lambda: tunnel.generation == 1)
        assert tunnel.is_alive
    assert any("cloudflared had no connection to Cloudflare for 30 s; its last" in line for line in said)
    assert len(fake.starts()) == 2


def test_after_three_restarts_the_tunnel_gives_up(port: int, fake: FakeCloudflared) -> None:
    fake.order(Run(), Run(fault="crash"))
    with quick(port, fake) as tunnel:
        fake.starts()[0].post("/fake/die")
        wait_for(lambda: not tunnel.is_alive)
        wait_for(lambda: tunnel.failure)
        assert str(tunnel.failure) == (
            f"the tunnel to 127.0.0.1:{port} has died for good, after 3 restarts: "
            "cloudflared ended at its start with exit code 2; its last line was 'panic: runtime error: "
            "invalid memory address or nil pointer dereference'; "
            "run `cloudflared tunnel --url http://127.0.0.1:8000` by hand to see more; "
            "look at this machine's network, then start again"
        )
    assert len(fake.starts()) == 4


def test_restarts_are_counted_over_the_whole_life(port: int, fake: FakeCloudflared) -> None:
    with quick(port, fake, replace(FAST, restarts=2)) as tunnel:
        for generation in (1, 2):
            fake.starts()[-1].post("/fake/die")
            wait_for(lambda expected=generation: tunnel.generation == expected)
        fake.starts()[-1].post("/fake/die")
        wait_for(lambda: tunnel.failure)
    assert len(fake.starts()) == 3


def test_cloudflared_dies_with_a_process_that_is_cut_off(port: int, fake: FakeCloudflared) -> None:
    program = f"""
import os, sys
sys.path.insert(0, {str(Path(__file__).parent.parent)!r})
from pathlib import Path
from fakes.cloudflared import FakeCloudflared
from pytest_synth.tunnels import open_tunnel
fake = object.__new__(FakeCloudflared)
fake.folder = Path({str(fake.folder)!r})
open_tunnel({port}, "cloudflare_quick", resolve=fake.resolve)
os._exit(7)
"""
    ended = subprocess.run([sys.executable, "-c", program], timeout=60, check=False)
    assert ended.returncode == 7
    [start] = fake.starts()
    wait_for(lambda: not is_running(start.pid))


@pytest.mark.parametrize("is_linux", [True, False], ids=["linux", "elsewhere"])
def test_cloudflared_ends_with_a_script_that_never_closes(
    port: int, fake: FakeCloudflared, is_linux: bool
) -> None:
    fake.order(Run(host="localhost:{edge}"))
    elsewhere = "import pytest_synth.tunnels.process as process; process._bind_to_us = list"
    program = f"""
import asyncio
{"" if is_linux else elsewhere}
from pytest_synth.tunnels import TunnelBackend, TunneledLocalAPI
api = asyncio.run(TunneledLocalAPI.create({port}, TunnelBackend.CloudflareQuickTunnel, progress=True))
"""
    ended = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        timeout=60,
        check=False,
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stderr
    [start] = fake.starts()
    assert f"task app reachable at https://localhost:{start.edge}" in ended.stderr
    assert "Traceback" not in ended.stderr
    wait_for(lambda: not is_running(start.pid))


def test_ctrl_c_in_the_tests_does_not_reach_cloudflared_first(port: int, fake: FakeCloudflared) -> None:
    with quick(port, fake):
        [start] = fake.starts()
        assert start.parent == os.getpid()
        assert os.getpgid(start.pid) == start.pid != os.getpgid(0)


def test_an_interrupt_while_it_comes_up_ends_cloudflared(port: int, fake: FakeCloudflared) -> None:
    fake.order(Run(fault="unreachable"))

    def interrupt() -> None:
        wait_for(fake.starts)
        os.kill(os.getpid(), signal.SIGINT)

    killer = threading.Thread(target=interrupt)
    killer.start()
    with pytest.raises(KeyboardInterrupt):
        quick(port, fake)
    killer.join()


def test_a_cancelled_task_ends_cloudflared(fake: FakeCloudflared) -> None:
    fake.order(Run(fault="unreachable"))

    async def give_up() -> None:
        opening = asyncio.create_task(
            TunneledLocalAPI.create_for_app(TaskApp(), backend=TunnelBackend.CloudflareQuickTunnel)
        )
        while not fake.starts():
            await asyncio.sleep(0.01)
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening

    asyncio.run(give_up())
    [start] = fake.starts()
    assert not is_running(start.pid)


def test_nothing_is_written_to_the_home_directory(
    port: int, fake: FakeCloudflared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    with quick(port, fake):
        pass
    assert list(home.iterdir()) == []


def test_a_cloudflared_that_is_closed_is_no_dead_one(
    port: int, fake: FakeCloudflared, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The keeper looks at it just after `close` has ended it, and before it hears of that."""
    fake.order(Run())
    said: list[str] = []
    is_closed_meanwhile = threading.Event()
    look = CloudflaredProcess.exit_code

    def look_late(process: CloudflaredProcess) -> int | None:
        if threading.current_thread().name == "synth-tunnel" and tunnel.is_alive and tunnel.url:
            is_closed_meanwhile.set()
            wait_for(lambda: look(process) is not None)
        return look(process)

    tunnel = quick(port, fake, progress=said.append)
    with tunnel:
        monkeypatch.setattr(CloudflaredProcess, "exit_code", look_late)
        assert is_closed_meanwhile.wait(10)
    assert tunnel.failure is None
    assert [line for line in said if line.startswith("restarting")] == []
