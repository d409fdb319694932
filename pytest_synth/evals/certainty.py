"""What the embedded backend is told about gates: whether one can still pass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pytest_synth.gates import GateRule, Observation, certain_to_fail

if TYPE_CHECKING:
    from pytest_synth.contracts.evals import EvalRow, FailFast


def is_certain(rows: Sequence[EvalRow], rule: FailFast, seeds: int, samples: int) -> bool:
    """Say whether the gate of an eval can no longer pass.

    Args:
        rows: Of the rollouts that have ended.
        seeds, samples: How many were asked for.
    """
    observations = [
        Observation(row.split, row.seed, row.sample, None if row.error else row.score, row.error)
        for row in rows
    ]
    limits = GateRule(min_reward=rule.min_reward, allow_missing=rule.allow_missing)
    return certain_to_fail(observations, limits, seeds=seeds, samples=samples) is not None
