"""The same suite with and without workers of pytest-xdist, and with a worker that is killed.

30 marked tests of 50 seeds, one model call in each of the 1,500 rollouts. For `-n 0`, `-n 2`, `-n 4`, and
`-n 2` with a test that kills its worker, prints seconds, how often the task app was started, rollouts that
it was asked for, model calls, how many verdicts the one report has, and whether all of it but the time is as
with `-n 0`.

    python benchmarks/plugin_workers.py [--tests 30] [--seeds 50]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import astuple, dataclass
from pathlib import Path

APP = """
import pathlib
from pytest_synth import task_app

LOG = pathlib.Path(__file__).with_name("calls.log").open("a", buffering=1)
LOG.write("started\\n")
SYSTEM = "Answer with one of the labels.\\n- red: warm fire sun\\n- blue: cold water ice"
WORDS = ["warm", "cold", "fire", "water", "sun", "ice", "grass"]

async def run(row, llm):
    LOG.write(f"rollout {row}\\n")
    text = f"number {row} is {WORDS[row % 7]}"
    reply = await llm.chat([{"role": "system", "content": SYSTEM}, {"role": "user", "content": text}])
    return reply.text

def score(row, answer):
    return answer == ("red" if WORDS[row % 7] in ("warm", "fire", "sun") else "blue")

app = task_app(rows={"test": list(range(ROWS))}, run=run, score=score)
"""

TESTS = """
import pytest

def part(n):
    seeds = range(n * SEEDS, (n + 1) * SEEDS)
    least = 0.5 if n % 3 else 0.99  # every third gate fails
    return pytest.param(n, marks=pytest.mark.synth_eval(seeds=seeds, min_reward=least))

@pytest.mark.parametrize("n", [part(n) for n in range(TESTS)])
def test_part(n): ...
"""

KILLER = """
import os, signal

def test_kills_its_worker():
    if os.environ.get("KILL"):
        os.kill(os.getpid(), signal.SIGKILL)
"""


@dataclass(frozen=True)
class Outcome:
    """What a run has done, apart from the time that it took."""

    starts: int
    rollouts: int
    calls: int
    verdicts: tuple[tuple[str, str, float | None], ...]


def once(folder: Path, *arguments: str, kill: bool = False) -> tuple[Outcome, float, str]:
    """Run the suite; what it has done, its seconds, and pytest's last line."""
    for name in ("calls.log", "report.json"):
        (folder / name).unlink(missing_ok=True)
    options = ("-q", "-p", "no:randomly", "-p", "no:cacheprovider", "--synth-app", "workers_app:app")
    before = time.perf_counter()
    run = subprocess.run(
        [sys.executable, "-m", "pytest", *options, "--synth-report", "report.json", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        env={**_environ(), **({"KILL": "1"} if kill else {})},
    )
    seconds = time.perf_counter() - before
    seen = Counter(line.split()[0] for line in (folder / "calls.log").read_text().splitlines())
    evals = json.loads((folder / "report.json").read_text())["evals"]
    outcome = Outcome(
        starts=seen["started"],
        rollouts=seen["rollout"],
        calls=sum(row["calls"] for entry in evals for row in entry["rows"]),
        verdicts=tuple((entry["node_id"], entry["outcome"], entry["mean_reward"]) for entry in evals),
    )
    assert run.stdout.count("= synth evals =") == 1, run.stdout + run.stderr
    return outcome, seconds, run.stdout.splitlines()[-1]


def _environ() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "SYNTH"))}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tests", type=int, default=30)
    parser.add_argument("--seeds", type=int, default=50)
    args = parser.parse_args()
    runs = {
        "-n 0": (("-n", "0"), False),
        "-n 2": (("-n", "2"), False),
        "-n 4": (("-n", "4"), False),
        "-n 2, one killed": (("-n", "2"), True),
    }
    print(f"{'':18}{'seconds':>9}{'app starts':>12}{'rollouts':>10}{'calls':>7}{'verdicts':>10}  as -n 0")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        numbers = {"ROWS": args.tests * args.seeds, "TESTS": args.tests, "SEEDS": args.seeds}
        for file, text in (("workers_app", APP), ("test_workers", TESTS), ("test_killer", KILLER)):
            for word, number in numbers.items():
                text = text.replace(word, str(number))
            (folder / f"{file}.py").write_text(text)
        alone: Outcome | None = None
        for title, (arguments, kill) in runs.items():
            outcome, seconds, last = once(folder, *arguments, kill=kill)
            alone = alone or outcome
            starts, rollouts, calls, verdicts = astuple(outcome)
            same = "yes" if outcome == alone else "NO"
            print(
                f"{title:18}{seconds:9.1f}{starts:12}{rollouts:10}{calls:7}{len(verdicts):10}  {same:8}{last}"
            )


if __name__ == "__main__":
    main()
