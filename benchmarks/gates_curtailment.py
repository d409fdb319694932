"""Ending an eval when its failure is certain: is it ever wrong, and what does it save?

    python benchmarks/gates_curtailment.py [--cases 100000] [--runs 200]

First random cases (rules, allowed missing seeds, samples, lost rollouts, 0/1 and graded rewards): each is
judged in full and as ended at the first certain moment; exit code 1 if a verdict of the ended run is one that
the full run would not have given. Then the share of rollouts saved for 200 seeds of 0/1 rewards.
"""

from __future__ import annotations

import argparse
import random
import sys

from pytest_synth.gates import NOT_RUN, GateRule, Observation, certain_to_fail, judge
from pytest_synth.gates.rules import TOLERANCE

MEANS = (0.0, 0.3, 0.5, 0.6, 0.7, 0.8, 0.9)
THRESHOLDS = (0.5, 0.7, 0.8, 0.9, 0.95, 1.0)
SEEDS = 200


def first_certain(full: list[Observation], rule: GateRule, seeds: int, samples: int) -> int | None:
    """Rollouts after which failure is certain; what is certain stays so, so bisection finds it."""
    if certain_to_fail(full, rule, seeds=seeds, samples=samples) is None:
        return None
    low, high = 0, len(full)
    while low < high:
        middle = (low + high) // 2
        if certain_to_fail(full[:middle], rule, seeds=seeds, samples=samples) is None:
            low = middle + 1
        else:
            high = middle
    return low


def random_case(source: random.Random) -> tuple[list[Observation], GateRule, int, int]:
    seeds, samples = source.randint(1, 30), source.choice([1, 1, 1, 2, 5])
    rule = GateRule(
        min_reward=source.choice([0.1, 0.5, 0.7, 0.8, 0.9, 1.0, source.random()]),
        rule=source.choice(["mean", "mean", "lower_bound"]),
        allow_missing=source.choice([0, 0, 1, 5]),
    )
    rate, lost, graded = source.random(), source.choice([0.0, 0.0, 0.02, 0.3]), source.random() < 0.5
    full = []
    for seed in range(seeds):
        for sample in range(samples):
            reward = source.random() ** (1 - rate) if graded else float(source.random() < rate)
            gone = source.random() < lost
            full.append(Observation(None, seed, sample, None if gone else reward, "lost" if gone else None))
    source.shuffle(full)
    return full, rule, seeds, samples


def wrong(full: list[Observation], rule: GateRule, ended_at: int) -> bool:
    rest = [Observation(one.split, one.seed, one.sample, None, NOT_RUN) for one in full[ended_at:]]
    early, late = judge([*full[:ended_at], *rest], rule), judge(full, rule)
    if late.passed or early.passed:
        return True
    if late.outcome == "incomplete":
        return False  # a seed was lost after the failure had become certain
    most = early.mean if early.at_most is None else early.at_most  # a mean if only lost seeds were spared
    return early.outcome != "failed" or most is None or late.mean is None or late.mean > most + TOLERANCE


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--cases", type=int, default=100_000)
    parser.add_argument("--runs", type=int, default=200)
    arguments = parser.parse_args()
    source = random.Random(5)
    ended = wrongly = spared = rollouts = 0
    for _ in range(arguments.cases):
        full, rule, seeds, samples = random_case(source)
        rollouts += len(full)
        at = first_certain(full, rule, seeds, samples)
        if at is not None and at < len(full):
            ended += 1
            spared += len(full) - at
            wrongly += wrong(full, rule, at)
    print(f"{arguments.cases} random cases: {ended} ended early, {wrongly} wrongly")
    print(f"{spared / rollouts:.0%} of their rollouts saved")
    print(f"\nshare of {SEEDS} rollouts saved, mean of {arguments.runs} runs; true mean against min_reward")
    print(" " * 6 + "".join(f"{threshold:>8}" for threshold in THRESHOLDS))
    for mean in MEANS:
        cells = [saved(mean, threshold, arguments.runs, source) for threshold in THRESHOLDS]
        print(f"{mean:>6}" + "".join(f"{cell:>8.0%}" for cell in cells))
    return 1 if wrongly else 0


def saved(mean: float, threshold: float, runs: int, source: random.Random) -> float:
    rule, total = GateRule(min_reward=threshold), 0
    for _ in range(runs):
        full = [Observation(None, n, 0, float(source.random() < mean)) for n in range(SEEDS)]
        at = first_certain(full, rule, SEEDS, 1)
        total += 0 if at is None else SEEDS - at
    return total / (runs * SEEDS)


if __name__ == "__main__":
    sys.exit(main())
