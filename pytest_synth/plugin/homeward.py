"""How the entries of a run reach the process that reports them: on test reports, as text."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pytest_synth.report import EvalEntry

if TYPE_CHECKING:
    import pytest

_ATTRIBUTE = "synth_entries"


def attach_entries(report: pytest.TestReport, position: int, entries: Sequence[EvalEntry]) -> None:
    """Put the entries of a test on its report; a text, as pytest-xdist carries plain values only.

    Args:
        position: Place of the test in the order of the run.
    """
    rows = [entry.model_dump(mode="json", exclude_defaults=True) for entry in entries]
    setattr(report, _ATTRIBUTE, json.dumps({"position": position, "entries": rows}))


class GatheredEntries:
    """The entries of all tests of a run, from this process or from workers."""

    def __init__(self) -> None:
        self._found: list[tuple[int, EvalEntry]] = []

    def take(self, report: pytest.TestReport) -> None:
        """Read the entries that a test report carries, if any."""
        text = getattr(report, _ATTRIBUTE, None)
        if text is not None:
            found = json.loads(text)
            self._found += [
                (found["position"], EvalEntry.model_validate(fields)) for fields in found["entries"]
            ]

    def in_order(self) -> list[EvalEntry]:
        """All entries in the order of the run, whichever worker sent them when."""
        return [entry for _, entry in sorted(self._found, key=lambda pair: pair[0])]
