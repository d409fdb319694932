"""What pairing by seed buys: how often a prompt that is as good as its baseline passes `not_worse`.

    python benchmarks/gates_power.py [--runs 1000]

Rewards are 0/1 with mean 0.8, the margin is 0.1, confidence 0.95. "Churn" is the share of seeds that change
from run to run in either direction. The unpaired gate knows the same two runs without who is who: it passes
if the lower bound of the new mean (at half the error) lies less than the margin below the upper bound of the
baseline's. `by mean` compares the two means with no bound, as `gate="mean"` does. The last column is the
error of each at a true drop of exactly the margin, which may be 5 %.
"""

from __future__ import annotations

import argparse
import random

from pytest_synth.gates import Baseline, Conditions, GateRule, Observation, judge
from pytest_synth.gates.intervals import interval

MEAN, MARGIN = 0.8, 0.1
SEEDS = (20, 50, 100, 200, 400)
CHURN = (0.02, 0.1, 0.2)
CONFIDENCE = 0.95


def pair(n: int, churn: float, drop: float, source: random.Random) -> tuple[list[float], list[float]]:
    """Two runs over the same seeds: as many change upwards as downwards, and `drop` more downwards."""
    before = [float(source.random() < MEAN) for _ in range(n)]
    down, up = (churn / 2 + drop) / MEAN, churn / 2 / (1 - MEAN)
    after = [1 - b if source.random() < (down if b else up) else b for b in before]
    return before, after


def paired(before: list[float], after: list[float], rule: str) -> bool:
    gate = GateRule(
        rule="mean" if rule == "mean" else "not_worse", max_regression=MARGIN, confidence=CONFIDENCE
    )
    return judge(observe(after), gate, baseline=Baseline.of(observe(before), Conditions())).passed


def unpaired(before: list[float], after: list[float]) -> bool:
    (low, _), (_, high) = interval(after, CONFIDENCE), interval(before, CONFIDENCE)
    return low >= high - MARGIN


def observe(rewards: list[float]) -> list[Observation]:
    return [Observation(None, seed, 0, reward) for seed, reward in enumerate(rewards)]


def shares(runs: int, n: int, churn: float, drop: float, source: random.Random) -> tuple[float, float, float]:
    found = [0, 0, 0]
    for _ in range(runs):
        before, after = pair(n, churn, drop, source)
        for which, passed in enumerate(
            (paired(before, after, "not_worse"), unpaired(before, after), paired(before, after, "mean"))
        ):
            found[which] += passed
    return found[0] / runs, found[1] / runs, found[2] / runs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--runs", type=int, default=1000)
    runs = parser.parse_args().runs
    source = random.Random(7)
    print(f"share of {runs} runs that pass; 0/1 rewards, mean {MEAN}, margin {MARGIN}")
    print(f"{'':>12} | {'true difference 0 (power)':^32} | {'true drop = margin (error)':^32}")
    print(f"{'churn':>5} {'seeds':>6} |" + f" {'paired':>10} {'unpaired':>10} {'by mean':>10} |" * 2)
    for churn in CHURN:
        for n in SEEDS:
            power = shares(runs, n, churn, 0.0, source)
            error = shares(runs, n, churn, MARGIN, source)
            cells = [" ".join(f"{share:>10.3f}" for share in found) for found in (power, error)]
            print(f"{churn:>5} {n:>6} | {cells[0]} | {cells[1]} |")


if __name__ == "__main__":
    main()
