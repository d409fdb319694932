from __future__ import annotations

import pytest

from pytest_synth.contracts.rewards import read_reward


@pytest.mark.parametrize(
    ("answer", "reward"),
    [
        pytest.param({"reward_info": {"outcome_reward": 1}}, 1.0, id="whole number"),
        pytest.param({"reward_info": {"outcome_reward": 0.0}}, 0.0, id="zero is a reward"),
        pytest.param({"metrics": {"outcome_reward": 0.5}}, 0.5, id="older name of the block"),
        pytest.param({"reward_info": {"reward_mean": 0.25}}, 0.25, id="reward_mean"),
        pytest.param({"reward_info": {"mean_return": 0.75}}, 0.75, id="mean_return"),
        pytest.param({"reward_info": {"outcome_objectives": {"reward": 0.1}}}, 0.1, id="objective"),
        pytest.param({"reward_info": {"outcome_reward": 0.0, "reward_mean": 1}}, 0.0, id="first wins"),
    ],
)
def test_reward_is_read_from_the_first_field_present(answer: object, reward: float) -> None:
    reading = read_reward(answer)
    assert (reading.reward, reading.reason) == (reward, None)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        pytest.param({"reward_info": {"outcome_reward": 1.2}}, "outcome_reward is 1.2, outside", id="high"),
        pytest.param({"reward_info": {"outcome_reward": -0.1}}, "is -0.1, outside [0, 1]", id="negative"),
        pytest.param({"reward_info": {"outcome_reward": float("nan")}}, "not a finite number", id="nan"),
        pytest.param({"reward_info": {"outcome_reward": 10**400}}, "not a finite number", id="huge integer"),
        pytest.param({"reward_info": {"outcome_reward": "0.5"}}, "is '0.5', not a number", id="text"),
        pytest.param({"reward_info": {"outcome_reward": True}}, "is True, not a number", id="bool"),
        pytest.param({"reward_info": {}}, "outcome_reward is missing", id="missing"),
        pytest.param({"ok": True}, "has no reward_info", id="no block"),
        pytest.param([1], "answered list instead of an object", id="no object"),
    ],
)
def test_what_is_no_reward_comes_with_the_reason(answer: object, reason: str) -> None:
    reading = read_reward(answer)
    assert reading.reward is None
    assert reading.reason is not None
    assert reason in reading.reason


def test_objectives_that_are_no_finite_numbers_are_left_out() -> None:
    objectives = {"accuracy": 1, "huge": 10**400, "nan": float("nan"), "text": "1", "switch": True}
    reading = read_reward({"reward_info": {"outcome_reward": 1, "outcome_objectives": objectives}})
    assert (reading.reward, reading.objectives) == (1.0, {"accuracy": 1.0})
