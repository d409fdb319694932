"""The statistics against scipy, in an environment of its own: scipy is 160 MB and not part of `dev`.

    python -m venv /tmp/stats && /tmp/stats/bin/pip install -e . scipy pytest-timeout pytest-asyncio
    /tmp/stats/bin/pytest tests/stats_scipy

The fixed reference values of `tests/gates/test_intervals.py` come from here.
"""

from __future__ import annotations

import math
import random

import pytest

np = pytest.importorskip("numpy", reason="needs scipy; see the module's first lines")
stats = pytest.importorskip("scipy.stats", reason="needs scipy; see the module's first lines")

from pytest_synth.gates import intervals, planning, repeats  # noqa: E402
from pytest_synth.gates.observations import SeedOutcome  # noqa: E402


@pytest.mark.parametrize("error", [0.001, 0.025, 0.05, 0.2, 0.5])
@pytest.mark.parametrize("n", [1, 2, 20, 50, 200, 3000])
def test_clopper_pearson_is_the_quantile_of_the_beta_distribution(n: int, error: float) -> None:
    for k in {0, 1, n // 3, n // 2, n - 1, n}:
        expected = stats.beta.ppf(error, k, n - k + 1) if k else 0.0
        assert intervals.clopper_pearson_lower(k, n, error) == pytest.approx(expected, abs=1e-9), k


def test_the_two_sided_interval_is_that_of_binomtest() -> None:
    for k in range(41):
        rewards = [1.0] * k + [0.0] * (40 - k)
        expected = stats.binomtest(k, 40).proportion_ci(confidence_level=0.95, method="exact")
        assert intervals.interval(rewards, 0.95) == pytest.approx((expected.low, expected.high), abs=1e-9)


def betting_by_grid(values: list[float], error: float) -> float:
    """The largest rejected mean, written down from the paper's formulas on a grid of 1e-5."""
    x = np.array(values)
    t = np.arange(1, len(x) + 1)
    means = (0.5 + np.cumsum(x)) / (t + 1)
    variances = (0.25 + np.cumsum((x - means) ** 2)) / (t + 1)
    before = np.concatenate([[0.25], variances[:-1]])
    bets = np.sqrt(2 * np.log(1 / error) / (len(x) * before))
    supposed = np.arange(1, 100_001)[:, None] / 100_000
    capital = np.cumsum(np.log1p(np.minimum(bets, 0.75 / supposed) * (x - supposed)), axis=1).max(axis=1)
    rejected = supposed[:, 0][capital >= np.log(1 / error)]
    return float(rejected.max()) if len(rejected) else 0.0


@pytest.mark.parametrize("n", [1, 5, 20, 100])
@pytest.mark.parametrize("shape", [(8.0, 2.0), (0.5, 0.5), (1.0, 9.0)])
def test_betting_is_the_papers_bound(n: int, shape: tuple[float, float]) -> None:
    source = random.Random(n)
    for _ in range(3):
        values = [source.betavariate(*shape) for _ in range(n)]
        expected = betting_by_grid(values, 0.05)
        assert intervals._betting_lower(values, 0.05) == pytest.approx(expected, abs=1.1e-5)


def test_standard_error_is_that_of_the_mean() -> None:
    values = [0.1, 0.5, 0.9, 1.0, 0.3]
    assert planning.standard_error(values) == pytest.approx(stats.sem(values))


def test_minimal_detectable_drop_is_that_of_a_one_sided_z_test() -> None:
    values = [1.0] * 30 + [0.0] * 10
    error = math.sqrt((np.var(values) + 0.25 / 40) / 40)
    expected = (stats.norm.ppf(0.95) + stats.norm.ppf(0.8)) * error
    assert planning.minimal_detectable_drop(values, 0.95) == pytest.approx(expected)


def test_pass_hat_k_is_the_hypergeometric_probability_of_k_passes() -> None:
    outcome = SeedOutcome(None, 1, (1.0, 1.0, 0.0, 1.0, 0.0), None, {})
    for k in range(1, 6):
        expected = stats.hypergeom.pmf(k, 5, 3, k)
        assert repeats.pass_hat_k([outcome], k) == pytest.approx(expected)
