"""The one place that reads a reward out of a rollout's answer."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

NOT_RUN = "not run: verdict certain"
"""Reason of a rollout that was spared because the verdict could not change any more."""


@dataclass(frozen=True)
class RewardReading:
    """A reward, or the reason why there is none: exactly one of the two is not None.

    Attributes:
        reward: In [0, 1].
        reason: Names the field and the value that was found.
        objectives: Further numbers of the rollout by name (`outcome_objectives`); finite ones only.
        details: The task app's own notes (`details`), as sent.
    """

    reward: float | None
    reason: str | None
    objectives: Mapping[str, float] = field(default_factory=dict)
    details: Mapping[str, Any] = field(default_factory=dict)


def refuse_reward(value: object, name: str) -> str | None:
    """Say why a value is no reward; None if it is one."""
    if value is None:
        return f"{name} is missing"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return f"{name} is {value!r}, not a number"
    if not _is_finite(value):
        return f"{name} is {value!r}, not a finite number"
    if not 0 <= value <= 1:
        return f"{name} is {value!r}, outside [0, 1]"
    return None


def _is_finite(value: float) -> bool:
    """Whether a number is one that a float can hold; JSON knows integers beyond that."""
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def read_reward(answer: object) -> RewardReading:
    """Read the reward of one rollout from the task app's JSON answer.

    The first field present decides: `reward_info` (older apps: `metrics`), in it `outcome_reward`, then
    `reward_mean`, `mean_return`, `outcome_objectives.reward`. Nothing is clipped: a reward outside
    [0, 1], not finite or missing is no reward, with the reason.
    """
    if not isinstance(answer, Mapping):
        return RewardReading(None, f"the task app answered {type(answer).__name__} instead of an object")
    block = answer.get("reward_info")
    where = "reward_info"
    if block is None:
        block, where = answer.get("metrics"), "metrics"
    if not isinstance(block, Mapping):
        return RewardReading(None, "the task app's answer has no reward_info")
    objectives = block.get("outcome_objectives")
    numbers = {
        str(name): float(value)
        for name, value in (objectives.items() if isinstance(objectives, Mapping) else ())
        if isinstance(value, int | float) and not isinstance(value, bool) and _is_finite(value)
    }
    details = block.get("details")
    notes = dict(details) if isinstance(details, Mapping) else {}
    value: object = None
    name = f"{where}.outcome_reward"
    for key in ("outcome_reward", "reward_mean", "mean_return"):
        if block.get(key) is not None:
            value, name = block[key], f"{where}.{key}"
            break
    else:
        if isinstance(objectives, Mapping) and objectives.get("reward") is not None:
            value, name = objectives["reward"], f"{where}.outcome_objectives.reward"
    reason = refuse_reward(value, name)
    if reason is not None:
        return RewardReading(None, reason, numbers, notes)
    assert isinstance(value, int | float)
    return RewardReading(float(value), None, numbers, notes)


def asks_for_task_app_rewards(verifier: Mapping[str, Any]) -> bool:
    """Whether a verifier section leaves the rewards to the task app, which is what happens without one.

    So it does when it is empty, is switched off, or names the task app as the source of the rewards.
    """
    source = verifier.get("reward_source")
    is_named = isinstance(source, str) and source.strip().lower() == "task_app"
    return not verifier or verifier.get("enabled") is False or is_named
