from __future__ import annotations

import pytest

from pytest_synth.gates import Observation, by_seed, judge
from pytest_synth.gates.repeats import flaky_seeds, pass_hat_k, pass_rate, sample_variance
from pytest_synth.gates.rules import GateRule


def seeds(*samples: tuple[float | None, ...]) -> list[Observation]:
    return [
        Observation(None, seed, n, reward, None if reward is not None else "lost")
        for seed, rewards in enumerate(samples)
        for n, reward in enumerate(rewards)
    ]


def test_pass_rate_counts_the_samples_that_reach_the_mark() -> None:
    (outcome,) = by_seed(seeds((1.0, 0.5, 0.4, 0.0)))
    assert pass_rate(outcome) == 0.5
    assert pass_rate(outcome, mark=1.0) == 0.25


def test_pass_rate_and_variance_of_a_missing_seed_are_unknown() -> None:
    (outcome,) = by_seed(seeds((1.0, None)))
    assert pass_rate(outcome) is None
    assert sample_variance(outcome) is None


@pytest.mark.parametrize(
    ("k", "expected"),
    [
        pytest.param(1, (1 + 0.75 + 0) / 3, id="pass^1 is the mean pass rate"),
        pytest.param(2, (1 + 3 / 6 + 0) / 3, id="pass^2"),
        pytest.param(4, 1 / 3, id="pass^4 counts the seeds that always pass"),
        pytest.param(5, None, id="more than there are samples"),
    ],
)
def test_pass_hat_k(k: int, expected: float | None) -> None:
    outcomes = by_seed(seeds((1.0,) * 4, (1.0, 1.0, 0.0, 1.0), (0.0,) * 4))
    assert pass_hat_k(outcomes, k) == (expected if expected is None else pytest.approx(expected))


def test_flaky_seeds_are_those_that_do_both_nearest_to_even_first() -> None:
    outcomes = by_seed(seeds((1.0,) * 4, (1.0, 1.0, 1.0, 0.0), (0.0,) * 4, (1.0, 0.0, 1.0, 0.0)))
    assert [o.seed for o in flaky_seeds(outcomes)] == [3, 1]


def test_variance_between_samples_is_unbiased() -> None:
    (outcome,) = by_seed(seeds((1.0, 0.0)))
    assert sample_variance(outcome) == 0.5


def test_the_verdict_tells_what_the_samples_tell() -> None:
    verdict = judge(seeds((1.0, 1.0), (1.0, 0.0), (1.0, 1.0), (0.0, 0.0)), GateRule(min_reward=0.5))
    assert "2 samples a seed: pass^2 0.50, variance between samples 0.12; 1 flaky seed (1)" in verdict.details
