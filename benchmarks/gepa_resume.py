"""Does a search end as if nothing had happened when its backend is killed? Over HTTP, with SIGKILL.

Each run is a world of its own, a search of 120 rollouts with 8 in flight, by generations and by window in
turn. First it runs undisturbed. Then again on a new database: `pytest-synth serve --db` is killed at one to
three random times and started again. All that the search reports must be the same as before; what was asked
for twice must be at most what can be in flight at a kill: 8 rollouts, 4 questions to the reflection model.
Exit code 1 if not.

    python benchmarks/gepa_resume.py [--runs 30]
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

import httpx
from fakes.rule_world import World
from gepa_stage import Serving, open_stage, section, serving

BUDGET, SLOTS = 120, 8
CHILDREN = 4  # in flight, at most
ROLLOUT_S, REFLECTION_S = 0.05, 0.1
_TIMED = ("usage", "elapsed_seconds", "eta_seconds")  # what may differ: it is measured


@dataclass(frozen=True)
class Ended:
    """What a search reported, and what it asked for.

    Attributes:
        result: Events but progress, and the status, without what is measured.
        counted: See `Scene.counted`.
        took_s: Seconds of the search itself, in its last start.
        kills: How often it was killed before its end.
    """

    result: Any
    rollouts: int
    counted: dict[str, Any]
    took_s: float
    kills: int


def play(stage: str, number: int) -> dict[str, Any]:
    """Set the stage for a run; its search."""
    scene = {"world": number, "rollout_s": ROLLOUT_S, "reflection_s": REFLECTION_S, "has_heavy_tail": True}
    httpx.post(f"{stage}/scene", json=scene).raise_for_status()
    pipeline = {"mode": "window", "window": CHILDREN} if number % 2 else {"mode": "generations"}
    return section(
        stage,
        World(number),
        rollout={"budget": BUDGET, "max_concurrent": SLOTS, "minibatch_size": 4},
        population={"initial_size": 2, "children_per_generation": 3},
        pipeline=pipeline,
    )


def run(stage: str, db: Path, number: int, kills: Sequence[float]) -> Ended:
    """Run a search to its end, with a kill after each of so many seconds."""
    search, done = play(stage, number), 0
    with serving(db, stage) as served:
        job_id = served.submit(search)
        for after in kills:
            if served.wait(job_id, after) is not None:
                break
            served.kill()
            served.start()
            done += 1
        status = served.wait(job_id)
        assert status is not None, f"run {number} does not end"
        result = report(served, job_id, status)
    counted = httpx.get(f"{stage}/scene").json()
    return Ended(result, status["total_rollouts"], counted, status["usage"]["wall_seconds"], done)


def report(served: Serving, job_id: str, status: dict[str, Any]) -> Any:
    """All that a search says but times, ids and progress."""
    known = ("status", "error", "best_score", "best_prompt", "baseline_score", "summary", "finish_reason")
    events = [
        (event["type"], {name: value for name, value in event["data"].items() if name not in _TIMED})
        for event in served.events(job_id)
        if not event["type"].endswith("job.progress")
    ]
    return {name: status[name] for name in known}, events


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=30)
    arguments = parser.parse_args()
    bad = kills = rollouts = questions = 0
    with open_stage() as stage, tempfile.TemporaryDirectory() as folder:
        for number in range(arguments.runs):
            whole = run(stage, Path(folder, f"{number}-whole.sqlite"), number, ())
            chance = random.Random(number)
            wanted = 1 + number % 3
            times = [chance.uniform(0.0, whole.took_s / wanted) for _ in range(wanted)]
            killed = run(stage, Path(folder, f"{number}.sqlite"), number, times)
            again = killed.counted["repeated"]
            asked_again = killed.counted["questions"] - whole.counted["questions"]
            is_same = killed.result == whole.result
            is_within = killed.rollouts <= BUDGET and killed.counted["rollouts"] - again <= BUDGET
            is_once = again <= SLOTS * killed.kills and asked_again <= CHILDREN * killed.kills
            is_good = is_same and is_within and is_once and not whole.counted["repeated"]
            bad += not is_good
            kills += killed.kills
            rollouts += again
            questions += asked_again
            print(
                f"run {number}: {killed.kills} kills, {'same' if is_same else 'ANOTHER'} result, "
                f"{killed.rollouts} of {BUDGET} rollouts; twice: {again} rollouts, {asked_again} questions"
                + ("" if is_good else "  BAD"),
                flush=True,
            )
    print(
        f"{arguments.runs} runs, {kills} kills: {arguments.runs - bad} as if nothing had happened; "
        f"asked for twice: {rollouts} rollouts, {questions} questions"
    )
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
