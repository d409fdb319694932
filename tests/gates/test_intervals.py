"""The reference values are scipy's and numpy's; `tests/stats_scipy` computes them anew."""

from __future__ import annotations

import random

import pytest

from pytest_synth.gates.intervals import (
    clopper_pearson_lower,
    difference_interval,
    difference_lower_bound,
    interval,
    lower_bound,
    method_name,
)

GRADED = [((n * 37) % 19) / 18 for n in range(60)]


@pytest.mark.parametrize(
    ("successes", "n", "expected"),
    [
        pytest.param(0, 20, 0.0, id="none"),
        pytest.param(1, 20, 0.0025613787765302806, id="one"),
        pytest.param(10, 20, 0.3019539112864935, id="half"),
        pytest.param(19, 20, 0.7838938357931526, id="all but one"),
        pytest.param(20, 20, 0.8608916593317348, id="all"),
        pytest.param(170, 200, 0.8020893083170084, id="200 seeds"),
        pytest.param(9990, 10000, 0.9983043685463546, id="10,000 seeds"),
    ],
)
def test_clopper_pearson_at_5_percent(successes: int, n: int, expected: float) -> None:
    # scipy.stats.beta.ppf(0.05, k, n - k + 1)
    assert clopper_pearson_lower(successes, n, 0.05) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(
    ("n", "expected"),
    [
        pytest.param(1, 0.0, id="one value"),
        pytest.param(5, 0.27922, id="5 values"),
        pytest.param(20, 0.44055, id="20 values"),
        pytest.param(60, 0.418945, id="60 values"),
    ],
)
def test_betting_at_5_percent(n: int, expected: float) -> None:
    # the capital evaluated with numpy on a grid of 5e-6
    assert lower_bound(GRADED[:n], 0.95) == pytest.approx(expected, abs=1e-5)


def test_binary_rewards_are_bounded_exactly_and_graded_ones_by_betting() -> None:
    assert method_name([1.0, 0.0, 1.0]) == "Clopper-Pearson"
    assert method_name([1.0, 0.5, 1.0]) == "betting"
    assert lower_bound([1.0] * 20, 0.95) == pytest.approx(0.8608916593317348, abs=1e-9)


def test_the_two_sided_interval_shares_the_error_and_mirrors() -> None:
    low, high = interval(GRADED, 0.9)
    assert low == lower_bound(GRADED, 0.95)
    mirrored = interval([1 - value for value in GRADED], 0.9)
    assert (1 - mirrored[1], 1 - mirrored[0]) == pytest.approx((low, high), abs=1e-9)


def test_bounds_stay_in_range_and_on_their_side_of_the_mean() -> None:
    source = random.Random(11)
    for _ in range(300):
        n = source.randint(1, 40)
        kind = source.choice([lambda: source.random(), lambda: float(source.random() < 0.8), lambda: 0.5])
        rewards = [kind() for _ in range(n)]
        low, high = interval(rewards, 0.95)
        assert 0 <= low <= sum(rewards) / n + 1e-9
        assert sum(rewards) / n - 1e-9 <= high <= 1


def test_more_confidence_and_fewer_seeds_widen_the_bound() -> None:
    assert lower_bound(GRADED, 0.99) < lower_bound(GRADED, 0.95) < lower_bound(GRADED, 0.5)
    source = random.Random(5)
    values = [source.betavariate(4, 2) for _ in range(400)]
    assert lower_bound(values[:40], 0.95) < lower_bound(values[:100], 0.95) < lower_bound(values, 0.95)


def test_differences_are_bounded_on_their_own_scale() -> None:
    differences = [0.0] * 150 + [-1.0] * 10 + [1.0] * 40
    source = random.Random(3)
    source.shuffle(differences)
    low, high = difference_interval(differences, 0.9)
    assert low == difference_lower_bound(differences, 0.95)
    assert -1 < low < 0.15 < high < 1
    mirrored = difference_interval([-d for d in differences], 0.9)
    assert (-mirrored[1], -mirrored[0]) == pytest.approx((low, high), abs=1e-9)


def test_no_difference_at_all_is_still_not_certainty() -> None:
    few, many = difference_lower_bound([0.0] * 20, 0.95), difference_lower_bound([0.0] * 2000, 0.95)
    assert few < -0.1
    assert -0.01 < many < 0
