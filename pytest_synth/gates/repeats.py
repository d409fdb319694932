"""What the samples of a seed tell: pass rates, pass^k, and how much a seed varies from sample to sample."""

from __future__ import annotations

from collections.abc import Sequence
from math import comb
from statistics import variance

from pytest_synth.gates.observations import SeedOutcome, mean

PASS_MARK = 0.5
"""A sample, and a seed by the mean of its samples, passes with at least this reward.

For 0/1 rewards any mark gives the same; for graded ones this is the middle. It decides what is called
"newly failing" and "flaky", never a gate.
"""


def passes(reward: float, mark: float = PASS_MARK) -> bool:
    return reward >= mark


def pass_rate(outcome: SeedOutcome, mark: float = PASS_MARK) -> float | None:
    """Share of a seed's samples that pass; None if the seed is missing."""
    return mean([float(passes(r, mark)) for r in outcome.rewards]) if outcome.rewards else None


def pass_hat_k(outcomes: Sequence[SeedOutcome], k: int, mark: float = PASS_MARK) -> float | None:
    """Estimate pass^k: the probability that k samples of a seed all pass, averaged over the seeds.

    The unbiased estimate of one seed with c passes among n samples is C(c, k) / C(n, k) (Yao et al.,
    "tau-bench", 2024, section 4). None if no seed has its rewards, or the seeds have fewer than k samples.
    """
    present = [outcome.rewards for outcome in outcomes if outcome.rewards]
    if not present or any(len(rewards) < k for rewards in present):
        return None
    return mean(
        [comb(sum(passes(r, mark) for r in rewards), k) / comb(len(rewards), k) for rewards in present]
    )


def sample_variance(outcome: SeedOutcome) -> float | None:
    """Unbiased variance between the samples of a seed; None with fewer than two."""
    return variance(outcome.rewards) if len(outcome.rewards) > 1 else None


def flaky_seeds(outcomes: Sequence[SeedOutcome], mark: float = PASS_MARK) -> list[SeedOutcome]:
    """The seeds of which some samples pass and some do not, those nearest to even first."""
    rated = [
        (abs(rate - 0.5), outcome) for outcome in outcomes if (rate := pass_rate(outcome, mark)) is not None
    ]
    return [outcome for distance, outcome in sorted(rated, key=lambda pair: pair[0]) if distance < 0.5]
