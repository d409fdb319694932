"""How many seeds would tell: advice in a verdict's text. It uses normal approximations and never decides."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist, stdev

from pytest_synth.gates.observations import mean

POWER = 0.8  # share of runs in which a drop of the minimal detectable size is seen; the usual convention
MOST_SEEDS = 100_000  # beyond this, "more seeds" is no advice


def standard_error(seed_rewards: Sequence[float]) -> float | None:
    """Standard error of the mean, clustered by seed; None with fewer than two seeds.

    The samples of a seed are not independent, so the seed's mean is the unit (Miller, "Adding error bars to
    evals", 2024, section 2.2; with equally many samples each its formula becomes this one).
    """
    return stdev(seed_rewards) / math.sqrt(len(seed_rewards)) if len(seed_rewards) > 1 else None


def minimal_detectable_drop(
    values: Sequence[float], confidence: float, *, largest_variance: float = 0.25
) -> float:
    """The drop of the true mean that a one-sided test at this confidence sees in `POWER` of the runs.

    Args:
        values: Rewards of the seeds, or their paired differences to a baseline.
        largest_variance: That the values can have: 1/4 in [0, 1], 1 in [-1, 1]. It counts as one value
            more, so that 20 equal rewards are not taken for certainty.
    """
    n = len(values)
    middle = mean(values)
    spread = (math.fsum((value - middle) ** 2 for value in values) + largest_variance) / n
    normal = NormalDist()
    return (normal.inv_cdf(confidence) + normal.inv_cdf(POWER)) * math.sqrt(spread / n)


def seeds_to_decide(n: int, value: float, bound: float, limit: float) -> int | None:
    """About how many seeds would bring the lower bound up to the limit, if the mean stayed where it is.

    The distance of bound and mean shrinks with the root of the number of seeds. Two digits are given, rounded
    up. None if no number would do: the mean is not above the limit, or it would take more than `MOST_SEEDS`.
    """
    if value <= limit or bound >= limit:
        return None
    needed = n * ((value - bound) / (value - limit)) ** 2
    if needed > MOST_SEEDS:
        return None
    step: int = 10 ** max(0, math.floor(math.log10(needed)) - 1)
    return math.ceil(needed / step) * step
