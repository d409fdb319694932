"""Jobs that could not be cancelled at the end of a run, named in the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pytest_synth.evals.left_over import left_over_text

if TYPE_CHECKING:
    from _pytest.terminal import TerminalReporter

LEFT_OVER = "synth_left_over"  # what a worker of pytest-xdist hands to the controller


def write_left_over(reporter: TerminalReporter, job_ids: Sequence[str]) -> None:
    """Name jobs that may still run at the backend; nothing if there is none."""
    if job_ids:
        reporter.write_line(left_over_text(job_ids), yellow=True)
