"""Traces: what a rollout's model calls said, kept with its row, and packed into an archive on demand."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from pytest_synth.backend.jobs.rollouts import Outcome
from pytest_synth.backend.store import RolloutPlace


def trace_of(outcome: Outcome, *, whole: bool) -> dict[str, Any]:
    """Describe a rollout: its row, its model calls and, if `whole`, the task app's own trace."""
    row, answer = outcome.row, outcome.answer
    trace: dict[str, Any] = {
        "seed": row.seed,
        "split": row.split,
        "sample": row.sample,
        "correlation_id": row.correlation_id,
        "reward": row.score,
        "error": row.error,
        "details": row.details,
        "prompt_source": row.prompt_source,
        "prompt_fingerprint": row.prompt_fingerprint,
        "calls": [asdict(call) for call in outcome.use.calls],
    }
    if whole:
        trace["trace"] = None if answer is None else answer.get("trace")
    return trace


def pack(traces: Sequence[tuple[RolloutPlace, str]]) -> bytes:
    """Make a zip archive with one JSON file for each rollout, all in its root.

    Args:
        traces: The rollouts, each with its trace as JSON.
    """
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for place, text in traces:
            sample = f"_sample_{place.sample}" if place.sample else ""
            archive.writestr(f"seed_{place.seed}{sample}.json", text)
    return buffer.getvalue()
