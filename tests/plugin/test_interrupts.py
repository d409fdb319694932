"""Ctrl-C in the middle of an eval: the run ends soon, and nothing is left behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

APP = """
import asyncio, pathlib
from pytest_synth import task_app

async def run(row, llm):
    pathlib.Path(__file__).with_name("started").touch()
    await asyncio.sleep(60)

app = task_app(rows={"test": list(range(100))}, run=run, score=lambda row, answer: 1.0)
"""

TEST = """
import pytest

@pytest.mark.synth_eval(seeds=range(50), min_reward=1)
def test_slow(): ...

@pytest.mark.synth_eval(seeds=range(50, 100), min_reward=1)
def test_later(): ...
"""

CONFTEST = """
import pathlib, threading

def pytest_unconfigure():
    names = [t.name for t in threading.enumerate() if t.name.startswith("synth")]
    pathlib.Path(__file__).with_name("left").write_text(repr(names))
"""


@pytest.mark.skipif(os.name != "posix", reason="sends SIGINT")
@pytest.mark.parametrize("workers", [(), ("-n", "1")], ids=["one process", "xdist"])
def test_interrupt_ends_the_run_soon_and_leaves_nothing(
    project: pytest.Pytester, tmp_path: Path, workers: tuple[str, ...]
) -> None:
    project.makepyfile(my_app=APP, test_slow=TEST)
    project.makeconftest(CONFTEST)
    temporary = project.mkdir("temporary")
    run = subprocess.Popen(
        [sys.executable, "-m", "pytest", "-p", "no:randomly", "-p", "no:cacheprovider", *workers],
        cwd=project.path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        env={**os.environ, "TMPDIR": str(temporary)},
    )
    try:
        deadline = time.monotonic() + 60
        while not (project.path / "started").exists():
            assert time.monotonic() < deadline, "no rollout started"
            assert run.poll() is None, run.communicate()[0]
            time.sleep(0.02)
        ports = listening(run.pid)
        assert ports
        before = time.monotonic()
        os.killpg(run.pid, signal.SIGINT)  # Ctrl-C reaches the workers too
        output, _ = run.communicate(timeout=30)
        took = time.monotonic() - before
    finally:
        run.kill()
    assert run.returncode == pytest.ExitCode.INTERRUPTED, output
    assert took < 20, output  # not the 60 s of a rollout; `benchmarks/plugin_interrupt.py` measures it
    assert (project.path / "left").read_text() == "[]"
    assert [port for port in ports if is_open(port)] == []
    assert [entry for entry in temporary.iterdir() if entry.name.startswith("pytest-synth")] == []


def listening(pid: int) -> list[int]:
    """Ports on which a process and its children listen (Linux)."""
    table = Path("/proc/net/tcp")
    if not table.exists():
        pytest.skip("needs /proc")
    family = [pid, *children(pid)]
    inodes = set()
    for one in family:
        for handle in Path(f"/proc/{one}/fd").iterdir():
            with suppress(FileNotFoundError):  # closed since it was listed
                target = str(handle.readlink())
                if target.startswith("socket:["):
                    inodes.add(target[8:-1])
    ports = []
    for line in table.read_text().splitlines()[1:]:
        fields = line.split()
        if fields[3] == "0A" and fields[9] in inodes:
            ports.append(int(fields[1].rsplit(":", 1)[1], 16))
    return ports


def children(pid: int) -> list[int]:
    found = [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return found + [grandchild for child in found for grandchild in children(child)]


def is_open(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0
