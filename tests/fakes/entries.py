"""Entries of reports with fixed values."""

from __future__ import annotations

from typing import Any

from pytest_synth.contracts.evals import EvalRow
from pytest_synth.report import EvalEntry


def row(seed: int, reward: float | None, **fields: Any) -> EvalRow:
    return EvalRow(seed=seed, score=reward, outcome_reward=reward, **fields)


def replace(entry: EvalEntry, **changes: Any) -> EvalEntry:
    """A checked copy; rows and other sequences may be lists."""
    return EvalEntry(**(dict(entry) | changes))
