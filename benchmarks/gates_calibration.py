"""Do the gates with a bound err as rarely as they say? Simulated runs of a prompt exactly at its limit.

    python benchmarks/gates_calibration.py [--runs 2000]

Each run draws new seeds and is judged by `judge` at confidence 0.95, so at most 5 % of the runs should pass.
The margin of `not_worse` is met in two ways: made from the baseline's own rewards, and drawn independently.
Exit code 1 if any case passes in more than 6 % (5 % and 1 % for the simulation's own error).
`mean` is shown for comparison: a gate on the plain mean lets such a prompt pass in about every second run.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Callable

from pytest_synth.gates import Baseline, Conditions, GateRule, Observation, RuleName, judge

MARGIN = 0.1
ALLOWED = 0.06
SEEDS = (20, 50, 200)

Draw = Callable[[random.Random], float]


def bernoulli(p: float) -> Draw:
    return lambda source: float(source.random() < p)


def two_values(share: float, often: float, rarely: float) -> Draw:
    return lambda source: often if source.random() < share else rarely


def with_rare_half(source: random.Random) -> float:
    """Mostly 0/1 with a half in between: does it matter that 0/1 rewards have a method of their own?"""
    u = source.random()
    return 0.5 if u < 0.02 else float(u < 0.81)


# Name, how a reward is drawn, and the true mean.
CASES: list[tuple[str, Draw, float]] = [
    ("0/1 at 0.50", bernoulli(0.5), 0.5),
    ("0/1 at 0.80", bernoulli(0.8), 0.8),
    ("0/1 at 0.95", bernoulli(0.95), 0.95),
    ("Beta(8, 2)", lambda source: source.betavariate(8, 2), 0.8),
    ("Beta(0.8, 0.2)", lambda source: source.betavariate(0.8, 0.2), 0.8),
    ("{1: 95 %, 0.4: 5 %}", two_values(0.95, 1.0, 0.4), 0.97),
    ("{1: 86 %, 1e-6: 14 %}", two_values(0.86, 1.0, 1e-6), 0.86 + 0.14e-6),
    ("0/1 with 2 % of 0.5", with_rare_half, 0.8),
]


def worsened(before: float, true_mean: float, source: random.Random) -> float:
    """A reward that is MARGIN lower on average than the one it is drawn from, and stays in [0, 1].

    It falls to 0 with the probability that gives the drop; then it is moved up or down by as much as there is
    room on both sides, which leaves the mean as it is.
    """
    after = 0.0 if source.random() < MARGIN / true_mean else before
    room = min(after, 1 - after)
    return after + source.uniform(-room, room)


def observations(rewards: list[float]) -> list[Observation]:
    return [Observation(None, seed, 0, reward) for seed, reward in enumerate(rewards)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--runs", type=int, default=2000)
    runs = parser.parse_args().runs
    source = random.Random(20_26)
    too_many = 0
    print(f"share of {runs} runs that pass although the true mean is exactly at the limit (confidence 0.95)")
    print(
        f"{'rewards':<24} {'seeds':>5} {'mean':>8} {'lower_bound':>12} {'not_worse':>10} {'independent':>12}"
    )
    for name, draw, true_mean in CASES:
        for n in SEEDS:
            found: dict[str, float] = {}
            for _ in range(runs):
                for gate, passed in one_run(name, draw, true_mean, n, source).items():
                    found[gate] = found.get(gate, 0) + passed / runs
            too_many += sum(share > ALLOWED for gate, share in found.items() if gate != "mean")
            independent = f"{found['independent']:.3f}" if "independent" in found else "-"
            print(
                f"{name:<24} {n:>5} {found['mean']:>8.3f} {found['lower_bound']:>12.3f} "
                f"{found['not_worse']:>10.3f} {independent:>12}"
            )
    print(f"cases above {ALLOWED:.0%}: {too_many}")
    return 1 if too_many else 0


def one_run(name: str, draw: Draw, true_mean: float, n: int, source: random.Random) -> dict[str, bool]:
    """Draw the seeds of one run and judge it by each gate."""
    rewards = [draw(source) for _ in range(n)]
    before = [draw(source) for _ in range(n)]
    found = {
        "mean": at_the_limit("mean", rewards, true_mean),
        "lower_bound": at_the_limit("lower_bound", rewards, true_mean),
        "not_worse": not_worse(before, [worsened(reward, true_mean, source) for reward in before]),
    }
    if name.startswith("0/1 at"):
        lower = bernoulli(true_mean - MARGIN)
        found["independent"] = not_worse(before, [lower(source) for _ in range(n)])
    return found


def at_the_limit(rule: RuleName, rewards: list[float], true_mean: float) -> bool:
    return judge(observations(rewards), GateRule(min_reward=true_mean, rule=rule)).passed


def not_worse(before: list[float], after: list[float]) -> bool:
    gate = GateRule(rule="not_worse", max_regression=MARGIN)
    return judge(observations(after), gate, baseline=Baseline.of(observations(before), Conditions())).passed


if __name__ == "__main__":
    sys.exit(main())
