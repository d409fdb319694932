"""What a user is told about jobs that could not be cancelled: they may go on, and cost."""

from __future__ import annotations

from collections.abc import Sequence


def left_over_text(job_ids: Sequence[str]) -> str:
    """Name jobs that may still run at the backend.

    Args:
        job_ids: At least one.
    """
    noun = "job" if len(job_ids) == 1 else "jobs"
    return (
        f"warning: {len(job_ids)} {noun} could not be cancelled and may still run at the backend: "
        f"{', '.join(job_ids)}"
    )
