"""How soon Ctrl-C, and `-x` after a failure, end a run with slow rollouts in flight.

Starts a run of 2 evals of 50 seeds whose asynchronous rollouts take 60 s, sends SIGINT to its process group
while 16 are in flight, and prints the seconds until the process has ended; then the same run with a first
test that fails, under `-x`, from that failure to the end.

    python benchmarks/plugin_interrupt.py [--runs 5]
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

APP = """
import asyncio, pathlib
from pytest_synth import task_app

async def run(row, llm):
    if row:
        pathlib.Path(__file__).with_name("started").touch()
        await asyncio.sleep(60)

app = task_app(rows={"test": list(range(101))}, run=run, score=lambda row, answer: 1.0)
"""

TEST = """
import pathlib, pytest, time

@pytest.mark.synth_eval(seeds=[0], min_reward=1)
def test_first():
    while not (started := pathlib.Path(__file__).with_name("started")).exists():
        time.sleep(0.01)
    if FAIL:
        started.write_text(str(time.time()))
        raise AssertionError

@pytest.mark.synth_eval(seeds=range(1, 51), min_reward=1)
def test_slow(): ...

@pytest.mark.synth_eval(seeds=range(51, 101), min_reward=1)
def test_later(): ...
"""


def once(folder: Path, *, fail: bool) -> float:
    """Run once; seconds from the signal, or the failure, to the end of the process."""
    started = folder / "started"
    started.unlink(missing_ok=True)
    (folder / "test_slow.py").write_text(TEST.replace("FAIL", str(fail)))
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-p", "no:randomly"]
    run = subprocess.Popen(
        [*command, "--synth-app", "slow_app:app"],
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    while not started.exists():
        time.sleep(0.01)
    before = time.time()
    if not fail:
        time.sleep(0.3)
        before = time.time()
        os.killpg(run.pid, signal.SIGINT)
    run.wait(60)
    return time.time() - (float(started.read_text()) if fail else before)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=5)
    runs = parser.parse_args().runs
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "slow_app.py").write_text(APP)
        for title, fail in (("Ctrl-C", False), ("-x after a failure", True)):
            times = [once(folder, fail=fail) for _ in range(runs)]
            print(f"{title}: median {statistics.median(times):.2f} s, worst {max(times):.2f} s, {runs} runs")


if __name__ == "__main__":
    main()
