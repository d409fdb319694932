"""How a gate fails a test."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from _pytest.outcomes import Failed

    from pytest_synth.report import EvalEntry
else:
    Failed = pytest.fail.Exception


class GateFailed(Failed):
    """The rewards of a test are there, and its gate does not hold.

    `xfail(raises=GateFailed)` expects exactly this, and not a test that could not be measured.
    """

    __module__ = "builtins"  # as pytest's own Failed: summary lines then show the bare name


class GateIncomplete(Failed):
    """The gate of a test could not be decided: seeds without a reward, or no job at all."""

    __module__ = "builtins"


def enforce(entry: EvalEntry) -> None:
    """Fail the test unless its gate has passed.

    Raises:
        GateFailed, GateIncomplete: With the text that a user reads, and no traceback.
    """
    from pytest_synth.report import failure_text

    if entry.outcome == "failed":
        raise GateFailed(failure_text(entry), pytrace=False)
    if entry.outcome == "incomplete":
        raise GateIncomplete(failure_text(entry), pytrace=False)
