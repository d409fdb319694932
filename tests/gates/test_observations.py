from __future__ import annotations

import pytest

from pytest_synth.contracts.evals import EvalRow
from pytest_synth.gates import Observation, observe


def test_every_rollout_asked_for_is_observed_once_with_or_without_a_row() -> None:
    rows = [
        EvalRow(seed=8, sample=1, score=0.5, outcome_reward=0.5, objectives={"accuracy": 1.0}),
        EvalRow(seed=7, sample=0, error="task app answered 500"),
    ]
    assert observe(rows, seeds=[7, 8], split="test", samples=2) == (
        Observation("test", 7, 0, None, "task app answered 500"),
        Observation("test", 7, 1, None, "the backend reported no result"),
        Observation("test", 8, 0, None, "the backend reported no result"),
        Observation("test", 8, 1, 0.5, None, {"accuracy": 1.0}),
    )


def test_an_error_beside_a_reward_wins() -> None:
    (one,) = observe([EvalRow(seed=1, score=1.0, error_kind="prompt_not_applied")], seeds=[1], split=None)
    assert (one.reward, one.reason) == (None, "prompt_not_applied")


def test_a_reward_that_only_score_carries_is_read() -> None:
    (one,) = observe([EvalRow(seed=1, score=0.25)], seeds=[1], split=None)
    assert one.reward == 0.25


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        pytest.param([EvalRow(seed=9, score=1.0)], "seed 9, sample 0 was not asked for", id="other seed"),
        pytest.param([EvalRow(seed=1, sample=1, score=1.0)], "seed 1, sample 1 was not asked", id="sample"),
        pytest.param([EvalRow(seed=1, split="train", score=1.0)], "split 'train', seed 1", id="other split"),
        pytest.param([EvalRow(seed=1, score=1.0)] * 2, "two rows for seed 1, sample 0", id="twice"),
    ],
)
def test_rows_that_do_not_belong_are_refused(rows: list[EvalRow], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        observe(rows, seeds=[1], split="test")
