"""Bounds for a mean that hold at their confidence for any number of seeds; nothing asymptotic decides a gate.

For 0/1 rewards: Clopper and Pearson, "The use of confidence or fiducial limits", Biometrika 26 (1934),
exact. For graded ones: the betting bound of Waudby-Smith and Ramdas, "Estimating means of bounded random
variables by betting", JRSS B 86 (2024), section 4.2 (predictable plug-in) and appendix B (tuned for a fixed
number of values). It supposes independent values in [0, 1] and nothing about their distribution. Departures
from the paper: the bound is one-sided (a two-sided interval is made of two at half the error), the bets are
truncated at 3/4, and a bound never lies beyond the mean itself.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from math import fsum

from pytest_synth.gates.observations import mean

_PRECISION = 1e-10  # width at which the bisections stop; verdicts are held with a tolerance of 1e-9
_TRUNCATION = 0.75
"""Share of the capital that one bet may lose. The paper offers 1/2 and 3/4; in simulation 3/4 was as tight
for rewards with mean 0.5 and clearly tighter near 1 (by 0.05 at 20 seeds and mean 0.95)."""


def method_name(rewards: Sequence[float]) -> str:
    """Name of the method that `lower_bound` uses for these rewards."""
    return "Clopper-Pearson" if _is_binary(rewards) else "betting"


def lower_bound(rewards: Sequence[float], confidence: float) -> float:
    """Bound the mean from below, one-sided.

    Args:
        rewards: One for each seed, in [0, 1], at least one. Their order must not depend on their values.
        confidence: In (0, 1); in so large a share of runs the true mean lies at or above the bound.
    """
    if _is_binary(rewards):
        return clopper_pearson_lower(round(fsum(rewards)), len(rewards), 1 - confidence)
    return min(_betting_lower(rewards, 1 - confidence), mean(rewards))


def interval(rewards: Sequence[float], confidence: float) -> tuple[float, float]:
    """Two-sided interval for the mean, each side with half of the error."""
    one_sided = (1 + confidence) / 2
    upper = 1 - lower_bound([1 - reward for reward in rewards], one_sided)
    return lower_bound(rewards, one_sided), upper


def difference_lower_bound(differences: Sequence[float], confidence: float) -> float:
    """Bound the mean of paired differences in [-1, 1] from below, one-sided, by betting."""
    scaled = [(difference + 1) / 2 for difference in differences]
    return min(2 * _betting_lower(scaled, 1 - confidence) - 1, mean(differences))


def difference_interval(differences: Sequence[float], confidence: float) -> tuple[float, float]:
    """Two-sided interval for the mean of paired differences in [-1, 1]."""
    one_sided = (1 + confidence) / 2
    upper = -difference_lower_bound([-difference for difference in differences], one_sided)
    return difference_lower_bound(differences, one_sided), upper


def clopper_pearson_lower(successes: int, n: int, error: float) -> float:
    """The success probability at which `successes` or more of `n` have probability `error`."""
    if successes == 0:
        return 0.0
    low, high = 0.0, successes / n
    while high - low > _PRECISION:
        middle = (low + high) / 2
        if _tail(successes, n, middle) < error:
            low = middle
        else:
            high = middle
    return low


def _tail(successes: int, n: int, probability: float) -> float:
    """Probability of `successes` or more of `n`, for a probability of at most `successes / n`.

    From there on the terms fall, so the sum can end when they no longer count.
    """
    if probability <= 0:
        return 0.0
    log_odds = math.log(probability) - math.log1p(-probability)
    log_term = (
        math.lgamma(n + 1)
        - math.lgamma(successes + 1)
        - math.lgamma(n - successes + 1)
        + successes * log_odds
        + n * math.log1p(-probability)
    )
    odds = math.exp(log_odds)
    relative, total = 1.0, 1.0
    for k in range(successes, n):
        relative *= odds * (n - k) / (k + 1)
        total += relative
        if relative < total * 1e-17:
            break
    return math.exp(log_term) * total


def _betting_lower(values: Sequence[float], error: float) -> float:
    """The largest mean against which the bets have won `1 / error` times their stake at some time.

    The capital falls in the supposed mean (each factor does), so bisection finds where it crosses.
    """
    bets = _plug_in_bets(values, error)
    goal = -math.log(error)
    low, high = 0.0, 1.0
    while high - low > _PRECISION:
        middle = (low + high) / 2
        if _wins(values, bets, middle, goal):
            low = middle
        else:
            high = middle
    return low


def _plug_in_bets(values: Sequence[float], error: float) -> list[float]:
    """Size of each bet, from the variance of the values before it (which starts at 1/4, the largest)."""
    bets: list[float] = []
    total, squares = 0.5, 0.25
    for seen, value in enumerate(values, start=1):
        bets.append(math.sqrt(-2 * math.log(error) * seen / (len(values) * squares)))
        total += value
        squares += (value - total / (seen + 1)) ** 2
    return bets


def _wins(values: Sequence[float], bets: Sequence[float], supposed: float, goal: float) -> bool:
    most = _TRUNCATION / supposed
    capital = 0.0
    for value, bet in zip(values, bets, strict=True):
        capital += math.log1p(min(bet, most) * (value - supposed))
        if capital >= goal:
            return True
    return False


def _is_binary(rewards: Sequence[float]) -> bool:
    return all(reward in (0.0, 1.0) for reward in rewards)
