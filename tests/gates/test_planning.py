from __future__ import annotations

import pytest

from pytest_synth.gates.planning import minimal_detectable_drop, seeds_to_decide, standard_error


def test_standard_error_takes_the_seed_as_the_unit() -> None:
    assert standard_error([0.0, 1.0, 0.0, 1.0]) == pytest.approx(0.28867513459481287)  # scipy.stats.sem
    assert standard_error([1.0]) is None


def test_minimal_detectable_drop_of_40_binary_seeds() -> None:
    # (norm.ppf(.95) + norm.ppf(.8)) * sqrt((var + .25 / 40) / 40) with scipy
    assert minimal_detectable_drop([1.0] * 30 + [0.0] * 10, 0.95) == pytest.approx(0.1730513265)


def test_equal_rewards_are_not_taken_for_certainty() -> None:
    assert minimal_detectable_drop([1.0] * 20, 0.95) > 0.05


@pytest.mark.parametrize(
    ("n", "value", "bound", "limit", "expected"),
    [
        pytest.param(40, 0.87, 0.744, 0.8, 130, id="the root of n, two digits, rounded up"),
        pytest.param(40, 0.85, 0.795, 0.8, 49, id="nearly there"),
        pytest.param(40, 0.8, 0.7, 0.8, None, id="at the limit"),
        pytest.param(40, 0.7, 0.6, 0.8, None, id="below the limit"),
        pytest.param(40, 0.9, 0.85, 0.8, None, id="decided"),
        pytest.param(40, 0.8001, 0.7, 0.8, None, id="too many"),
        pytest.param(2000, 0.81, 0.796, 0.8, 4000, id="thousands"),
    ],
)
def test_seeds_to_decide(n: int, value: float, bound: float, limit: float, expected: int | None) -> None:
    assert seeds_to_decide(n, value, bound, limit) == expected
