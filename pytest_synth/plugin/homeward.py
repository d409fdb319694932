"""How the entries of a test reach the process that reports them: on its test report, as text."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest

    from pytest_synth.report import EvalEntry, OptimizationEntry

    Entry = EvalEntry | OptimizationEntry

_ATTRIBUTE = "synth_entries"


def attach_entries(report: pytest.TestReport, position: int, entries: Sequence[Entry]) -> None:
    """Put the entries of a test on its report; a text, as pytest-xdist carries plain values only.

    Args:
        report: As all other plugins have left it, so that it tells whether a failure was expected.
        position: Place of the test in the order of the run.
    """
    from pytest_synth.report import EvalEntry

    is_expected = report.skipped and hasattr(report, "wasxfail")
    evals, optimizations = [], []
    for entry in entries:
        row = entry.model_dump(mode="json", exclude_defaults=True)
        if not isinstance(entry, EvalEntry):
            optimizations.append(row)
        else:
            evals.append(row | ({"expected_failure": True} if is_expected and entry.is_red else {}))
    found = {"position": position, "entries": evals, "optimizations": optimizations}
    setattr(report, _ATTRIBUTE, json.dumps(found))


def entries_of(report: pytest.TestReport) -> list[tuple[int, EvalEntry]]:
    """Read the entries that a test report carries, with the place of the test in the order of the run."""
    text = getattr(report, _ATTRIBUTE, None)
    if text is None:
        return []
    from pytest_synth.report import EvalEntry

    found = json.loads(text)
    return [(found["position"], EvalEntry.model_validate(fields)) for fields in found["entries"]]


def optimizations_of(report: pytest.TestReport) -> list[tuple[int, OptimizationEntry]]:
    """Likewise of searches for better prompts."""
    text = getattr(report, _ATTRIBUTE, None)
    if text is None:
        return []
    from pytest_synth.report import OptimizationEntry

    found = json.loads(text)
    return [(found["position"], OptimizationEntry.model_validate(row)) for row in found["optimizations"]]
