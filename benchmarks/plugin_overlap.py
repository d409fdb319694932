"""How close a run of many evals comes to its physical limit.

12 marked tests of 16 seeds, 200 ms a rollout, 32 at once: 192 rollouts are 6 waves of 0.2 s, so 1.2 s.
Prints the time from the first submission to the last verdict (backend and task app run by then), its ratio
to that limit, and how many rollouts were in flight at most.

    python benchmarks/plugin_overlap.py [--runs 5]
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

TESTS, SEEDS, ROLLOUT_S, CONCURRENCY = 12, 16, 0.2, 32
LIMIT_S = TESTS * SEEDS / CONCURRENCY * ROLLOUT_S

APP = f"""
import asyncio, json, pathlib
from pytest_synth import task_app

flying = most = 0

async def run(row, llm):
    global flying, most
    flying += 1
    most = max(most, flying)
    await asyncio.sleep({ROLLOUT_S})
    flying -= 1
    pathlib.Path(__file__).with_name("most").write_text(str(most))
    return row

app = task_app(rows={{"test": list(range({TESTS * SEEDS}))}}, run=run, score=lambda row, answer: 1.0)
"""

TEST = f"""
import pytest

def part(n):
    seeds = range(n * {SEEDS}, (n + 1) * {SEEDS})
    return pytest.param(n, marks=pytest.mark.synth_eval(seeds=seeds, min_reward=1))

@pytest.mark.parametrize("n", [part(n) for n in range({TESTS})])
def test_part(n): ...
"""

CONFTEST = """
import json, pathlib, pytest, time
times = {}

@pytest.fixture(scope="session", autouse=True)
def all_is_up(synth_tunnel, synth_client):
    assert synth_tunnel.url
    synth_client.health()
    times["first"] = time.perf_counter()

def pytest_runtest_logreport(report):
    times["last"] = time.perf_counter()

def pytest_unconfigure():
    pathlib.Path(__file__).with_name("times.json").write_text(json.dumps(times))
"""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=5)
    runs = parser.parse_args().runs
    print(f"limit: {TESTS} tests x {SEEDS} seeds x {ROLLOUT_S} s / {CONCURRENCY} = {LIMIT_S:.2f} s")
    ratios = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "bench_app.py").write_text(APP)
        (folder / "test_parts.py").write_text(TEST)
        (folder / "conftest.py").write_text(CONFTEST)
        command = [
            sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:randomly",
            "-p", "no:asyncio",
            "--synth-app", "bench_app:app", "--synth-concurrency", str(CONCURRENCY),
        ]  # fmt: skip
        for number in range(runs + 1):
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
            if done.returncode != 0:
                sys.exit(done.stdout + done.stderr)
            times = json.loads((folder / "times.json").read_text())
            took = times["last"] - times["first"]
            most = int((folder / "most").read_text())
            if number == 0:
                continue  # warm-up: compiles
            ratios.append(took / LIMIT_S)
            print(f"run {number}: {took:.2f} s, {took / LIMIT_S:.2f} x the limit; in flight at most {most}")
    print(f"median: {statistics.median(ratios):.2f} x the limit")


if __name__ == "__main__":
    main()
