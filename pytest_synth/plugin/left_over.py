"""Jobs that could not be cancelled at the end of a run: they may go on, and cost, so they are named."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _pytest.terminal import TerminalReporter

LEFT_OVER = "synth_left_over"  # what a worker of pytest-xdist hands to the controller


def write_left_over(reporter: TerminalReporter, job_ids: Sequence[str]) -> None:
    """Name jobs that may still run at the backend; nothing if there is none."""
    if job_ids:
        noun = "job" if len(job_ids) == 1 else "jobs"
        reporter.write_line(
            f"warning: {len(job_ids)} {noun} could not be cancelled and may still run at the backend: "
            f"{', '.join(job_ids)}",
            yellow=True,
        )
