"""A backend in another process, at a name that does not look like this machine, and the tunnel to it.

The name is one that only these tests resolve, to loopback; the tunnel is the fake cloudflared's, which
carries each request over HTTPS to its edge and on to the task app.
"""

from __future__ import annotations

import os
import runpy
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from fakes.cloudflared import CA_FILE, FakeCloudflared, Run
from fakes.hosted_evals import API_KEY, HostedEvals
from fakes.served_backend import ServedBackend, served_backend

from pytest_synth import tunnels
from pytest_synth._serving import ServerThread
from pytest_synth.tunnels.keeper import Timings

NAME = "backend.example.test"
ARGUMENTS = ("-p", "no:randomly", "-p", "no:cacheprovider", "-s")
MODEL = ("--synth-provider", "openai", "--synth-model", "gpt-4.1-nano")

GOOD = (
    "say yes\n- yes: green\n- no: red"  # its first line is for the fake service, its list for offline/lexical
)

APP = """
import asyncio, os, pathlib, signal
from pytest_synth import task_app

HERE = pathlib.Path(__file__).parent
PROMPT = "- yes: red\\n- no: green"
ROWS = {"test": [{"n": n, "says": "green" if n else "red", "label": "yes" if n else "no"} for n in range(5)]}

async def meanwhile(row):
    pass

async def run(row, llm):
    with (HERE / "runs").open("a") as runs:
        runs.write(f"{row['n']} ")
    await meanwhile(row)
    messages = [{"role": "system", "content": PROMPT}, {"role": "user", "content": row["says"]}]
    return (await llm.chat(messages)).text

app = task_app(rows=ROWS, run=run, score=lambda row, answer: answer == row["label"])
"""

TESTS = f"""
import pytest

@pytest.mark.synth_eval(seeds=range(5), split="test", min_reward=0.8, prompt={GOOD!r})
def test_first(synth_result, synth_tunnel):
    print("tunnel", synth_tunnel.backend, synth_tunnel.url)
    assert {{row.prompt_source for row in synth_result.rows}} == {{"marker"}}
    assert all(row.replaced_fingerprint for row in synth_result.rows)
    print("extensions", sorted(synth_result.raw.get("config", {{}}).get("extensions") or ()))

@pytest.mark.synth_eval(seeds=range(5), split="test", min_reward=0, samples=2)
def test_second(synth_result):
    assert [(row.seed, row.sample) for row in synth_result.rows][:3] == [(0, 0), (0, 1), (1, 0)]
    assert {{row.prompt_source for row in synth_result.rows}} == {{"app"}}
"""


@pytest.fixture(autouse=True)
def _the_name_leads_to_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    resolve = socket.getaddrinfo

    def getaddrinfo(host: Any, *args: Any, **named: Any) -> Any:
        return resolve("127.0.0.1" if host == NAME else host, *args, **named)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeCloudflared]:
    """The fake, with waits that suit a test; none of its processes is left at the end."""
    folder = tmp_path / "cloudflared-folder"
    folder.mkdir()
    fake = FakeCloudflared(folder, Run(host="localhost:{edge}"))
    monkeypatch.setenv("SYNTH_CLOUDFLARED", str(fake.path))
    monkeypatch.setenv("SSL_CERT_FILE", str(CA_FILE))
    soon = Timings(ready_s=20, poll_s=0.01, probe_s=0.05, watch_s=0.2, pause_s=0.05)
    monkeypatch.setattr(tunnels, "open_tunnel", partial(tunnels.open_tunnel, timings=soon))
    yield fake
    assert fake.left_behind() == []


@pytest.fixture(scope="module")
def served() -> Iterator[ServedBackend]:
    with served_backend({"SSL_CERT_FILE": str(CA_FILE)}) as backend:
        yield backend


@pytest.fixture
def ours(
    project: pytest.Pytester, served: ServedBackend, fake: FakeCloudflared, monkeypatch: pytest.MonkeyPatch
) -> pytest.Pytester:
    """A project whose backend is `pytest-synth serve` in another process, at a name."""
    monkeypatch.setenv("SYNTH_API_KEY", served.key)
    monkeypatch.setenv("PYTEST_SYNTH_BACKEND", f"http://{NAME}:{served.port}")
    project.makepyfile(my_app=APP, test_two=TESTS)
    return project


@pytest.fixture
def hosted() -> Iterator[HostedEvals]:
    service = HostedEvals()
    with ServerThread(service.app) as server:
        service.base_url = server.url
        yield service


@pytest.fixture
def remote(
    project: pytest.Pytester, hosted: HostedEvals, fake: FakeCloudflared, monkeypatch: pytest.MonkeyPatch
) -> pytest.Pytester:
    """A project whose backend is the hosted service, at a name."""
    monkeypatch.setenv("SYNTH_API_KEY", API_KEY)
    monkeypatch.setenv("PYTEST_SYNTH_BACKEND", f"http://{NAME}:{hosted.base_url.rpartition(':')[2]}")
    project.makepyfile(my_app=APP, test_two=TESTS)
    return project


def test_our_backend_elsewhere_reaches_the_app_through_one_tunnel(
    ours: pytest.Pytester, fake: FakeCloudflared, served: ServedBackend
) -> None:
    result = ours.runpytest(*ARGUMENTS)
    result.assert_outcomes(passed=2)
    [start] = fake.starts()
    result.stdout.fnmatch_lines(
        [
            f"synth: 2 evals; backend http://{NAME}:{served.port}, model offline/lexical, *",
            "*synth: opening a tunnel (cloudflare_quick) to the task app",
            f"*tunnel cloudflare_quick https://localhost:{start.edge}",
            "extensions *'prompt'*'samples'*",
            "*test_first*1.00*0.80*5/5*passed",
            "*test_second*0.00*0.00*5/5*passed",
        ]
    )
    assert Counter((ours.path / "runs").read_text().split()) == dict.fromkeys("01234", 3)
    assert served.key not in result.stdout.str()


def test_the_hosted_service_elsewhere_reaches_the_app_through_one_tunnel(
    remote: pytest.Pytester, fake: FakeCloudflared, hosted: HostedEvals
) -> None:
    result = remote.runpytest(*ARGUMENTS, *MODEL)
    result.assert_outcomes(passed=2)
    [start] = fake.starts()
    result.stdout.fnmatch_lines(
        [f"*tunnel cloudflare_quick https://localhost:{start.edge}", "*test_first*0.80*0.80*5/5*passed"]
    )
    assert len(hosted.uploads) == 1
    assert len(hosted.jobs) == 3
    assert {call.system for call in hosted.calls} == {GOOD, "- yes: red\n- no: green"}


def test_workers_share_one_tunnel(
    remote: pytest.Pytester, fake: FakeCloudflared, hosted: HostedEvals, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A worker is a process that does not know the name; 127.1 is another one that leads here.
    monkeypatch.setenv("PYTEST_SYNTH_BACKEND", f"http://127.1:{hosted.base_url.rpartition(':')[2]}")
    result = remote.runpytest(*ARGUMENTS, *MODEL, "-n", "2")
    result.assert_outcomes(passed=2)
    assert len(fake.starts()) == 1
    assert len(hosted.uploads) == 1


def test_a_tunnel_for_each_worker_is_refused_with_the_remedy(
    remote: pytest.Pytester, fake: FakeCloudflared, hosted: HostedEvals, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTEST_SYNTH_BACKEND", f"http://127.1:{hosted.base_url.rpartition(':')[2]}")
    remote.makeconftest(
        """
        import pytest
        from my_app import app

        @pytest.fixture(scope="session")
        def synth_task_app():
            return app
        """
    )
    result = remote.runpytest(*ARGUMENTS, *MODEL, "-n", "2")
    result.assert_outcomes(failed=2)
    assert (
        "a task app from a fixture would need a cloudflare_quick tunnel of its own in each worker of "
        "pytest-xdist; use synth_app = MODULE:ATTR, or -n0"
    ) in result.stdout.str()
    assert fake.starts() == []
    assert hosted.jobs == {}


def test_a_named_tunnel_is_used_instead(ours: pytest.Pytester, fake: FakeCloudflared) -> None:
    result = ours.runpytest(*ARGUMENTS, "--synth-tunnel", "localhost")
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(["*tunnel localhost http://127.0.0.1:*"])
    assert fake.starts() == []


def test_a_managed_tunnel_is_asked_of_the_backend(ours: pytest.Pytester, fake: FakeCloudflared) -> None:
    result = ours.runpytest(*ARGUMENTS, "--synth-tunnel", "cloudflare_managed")
    result.assert_outcomes(failed=2)
    assert "this backend has no managed tunnels (POST http://" in result.stdout.str()
    assert fake.starts() == []


def test_a_url_of_an_app_on_this_machine_gets_a_tunnel_too(
    ours: pytest.Pytester, fake: FakeCloudflared, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ENVIRONMENT_API_KEY", "the-users-environment-key")
    with ServerThread(runpy.run_path(str(ours.path / "my_app.py"))["app"]) as server:
        ours.makeconftest(
            f"""
            import pytest

            @pytest.fixture(scope="session")
            def synth_task_app():
                return "{server.url}"
            """
        )
        result = ours.runpytest(*ARGUMENTS)
    result.assert_outcomes(passed=2)
    assert len(fake.starts()) == 1


def test_without_cloudflared_the_run_says_what_to_install(
    ours: pytest.Pytester, fake: FakeCloudflared, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SYNTH_CLOUDFLARED")
    monkeypatch.setenv("PATH", str(ours.path))
    result = ours.runpytest(*ARGUMENTS)
    result.assert_outcomes(failed=2)
    assert "cloudflared is not installed (not found on PATH)" in result.stdout.str()


def test_what_a_restart_of_the_tunnel_cuts_runs_again_and_the_rest_does_not(
    ours: pytest.Pytester, fake: FakeCloudflared
) -> None:
    ours.makepyfile(
        my_app=APP.replace(
            "    pass\n",
            f"""
    if row["n"] >= 3:
        while (HERE / "runs").read_text().count(" ") < 5:
            await asyncio.sleep(0.01)  # the others have begun ...
        await asyncio.sleep(0.5)  # ... and are over
        if not (HERE / "killed").exists():
            (HERE / "killed").touch()
            import json
            note = json.loads(pathlib.Path({str(fake.folder)!r}, "start-0.json").read_text())
            os.kill(note["pid"], signal.SIGKILL)
            await asyncio.sleep(60)
""",
        ),
        test_two="""
        import pytest

        @pytest.mark.synth_eval(seeds=range(5), split="test", min_reward=0)
        def test_cut(synth_result):
            assert [row.score for row in synth_result.rows] == [0.0] * 5
            assert synth_result.succeeded
        """,
    )
    result = ours.runpytest(*ARGUMENTS)
    result.assert_outcomes(passed=1)
    assert len(fake.starts()) == 2
    runs = (ours.path / "runs").read_text().split()
    assert [runs.count(seed) for seed in "012"] == [1, 1, 1], "what was finished has been kept"
    assert all(runs.count(seed) >= 2 for seed in "34")


def test_a_serving_backend_on_this_machine_needs_its_key_and_no_tunnel(
    ours: pytest.Pytester, fake: FakeCloudflared, served: ServedBackend
) -> None:
    result = ours.runpytest(*ARGUMENTS, "--synth-backend", served.url)
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(["*tunnel localhost http://127.0.0.1:*", "extensions *'prompt'*'samples'*"])
    assert fake.starts() == []


def test_another_key_of_our_backend_has_its_prompts_applied_on_this_side(
    ours: pytest.Pytester, served: ServedBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    demo = httpx.post(f"{served.url}/api/demo/keys", trust_env=False).json()["api_key"]
    monkeypatch.setenv("SYNTH_API_KEY", demo)
    result = ours.runpytest(*ARGUMENTS, "--synth-backend", served.url)
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(["extensions [[][]]", "*test_first*1.00*0.80*5/5*passed"])


def test_another_key_of_our_backend_is_told_what_it_may_not(
    ours: pytest.Pytester, served: ServedBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    demo = httpx.post(f"{served.url}/api/demo/keys", trust_env=False).json()["api_key"]
    monkeypatch.setenv("SYNTH_API_KEY", demo)
    result = ours.runpytest(*ARGUMENTS, "--synth-backend", served.url, "--synth-fail-fast")
    assert (
        f"--synth-fail-fast: the backend at {served.url} takes it from the key that `pytest-synth serve` "
        "prints, only; leave it out, or use the embedded backend"
    ) in result.stdout.str()


LEFT_OVER = "warning: 2 jobs could not be cancelled and may still run at the backend: eval-*, eval-*"


@pytest.mark.parametrize("cancels", [True, False])
def test_jobs_that_are_left_over_are_cancelled_or_named(
    remote: pytest.Pytester, hosted: HostedEvals, cancels: bool
) -> None:
    hosted.cancels = cancels
    remote.makepyfile(
        my_app=APP.replace("    pass\n", "    if row['n'] >= 3:\n        await asyncio.sleep(60)\n"),
        test_two="""
        import pytest

        @pytest.mark.synth_eval(seeds=[0], split="test", min_reward=0)
        def test_first():
            assert False, "ends the run"

        @pytest.mark.parametrize("n", [3, 4])
        @pytest.mark.synth_eval(seeds=[0, 4], split="test", min_reward=0)
        def test_later(n): ...
        """,
    )
    result = remote.runpytest(*ARGUMENTS, *MODEL, "-x", "--synth-tunnel", "localhost")
    result.assert_outcomes(failed=1)
    assert [job.status == "cancelled" for job in hosted.jobs.values()] == [False, cancels, cancels]
    if cancels:
        result.stdout.no_fnmatch_line("*could not be cancelled*")
    else:
        result.stdout.fnmatch_lines([LEFT_OVER])


def test_the_controller_names_jobs_that_a_worker_could_not_cancel(
    remote: pytest.Pytester, hosted: HostedEvals, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTEST_SYNTH_BACKEND", hosted.base_url)
    hosted.cancels = False
    remote.makepyfile(
        my_app=APP.replace("    pass\n", "    await asyncio.sleep(60)\n"),
        test_two="""
        import pytest

        @pytest.mark.synth_eval(seeds=[0], split="test", min_reward=0)
        @pytest.mark.timeout(3, method="signal")
        def test_hangs(): ...
        """,
    )
    result = remote.runpytest(*ARGUMENTS, *MODEL, "-n", "1")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["warning: 1 job could not be cancelled and may still run at the backend: *"])


@pytest.mark.skipif(os.name != "posix", reason="sends SIGINT")
def test_an_interrupt_cancels_the_jobs_and_closes_the_tunnel(
    remote: pytest.Pytester, hosted: HostedEvals, fake: FakeCloudflared, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTEST_SYNTH_BACKEND", f"http://127.1:{hosted.base_url.rpartition(':')[2]}")
    remote.makepyfile(my_app=APP.replace("    pass\n", "    await asyncio.sleep(60)\n"))
    command = [sys.executable, "-m", "pytest", *ARGUMENTS, *MODEL]
    with subprocess.Popen(
        command, cwd=remote.path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as run:
        try:
            wait_for(lambda: len(hosted.jobs) == 3 and (remote.path / "runs").exists(), run)
            run.send_signal(signal.SIGINT)
            output, _ = run.communicate(timeout=60)
        finally:
            run.kill()
    assert run.returncode == pytest.ExitCode.INTERRUPTED, output
    assert {job.status for job in hosted.jobs.values()} == {"cancelled"}
    assert fake.left_behind() == []


def wait_for(condition: Callable[[], bool], run: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "waited 60 s in vain"
        assert run.poll() is None, run.communicate()[0]
        time.sleep(0.02)
