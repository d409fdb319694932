"""Wire documents of eval jobs, made of what the store holds."""

from __future__ import annotations

import math
from typing import Any

from pytest_synth.backend.store import JobRecord, Progress, Store
from pytest_synth.backend.store.events import timestamp


def mean(rewards: tuple[float, ...]) -> float | None:
    return math.fsum(rewards) / len(rewards) if rewards else None


def when(seconds: float | None) -> str | None:
    return None if seconds is None else timestamp(seconds)


def config(job: JobRecord) -> dict[str, Any]:
    """What was submitted, as it may be shown."""
    return {name: value for name, value in job.body.items() if name != "secrets"}


def summary(progress: Progress) -> dict[str, Any]:
    """Sums over the rollouts that have ended; the mean is over those with a reward."""
    successful = len(progress.rewards)
    return {
        "mean_reward": mean(progress.rewards),
        "total_tokens": progress.tokens,
        "total_cost_usd": progress.cost_usd,
        "num_seeds": progress.total,
        "num_successful": successful,
        "num_failed": progress.completed - successful,
    }


def status(store: Store, job: JobRecord) -> dict[str, Any]:
    progress = store.jobs.progress(job.number)
    sums = summary(progress)
    results: dict[str, Any] = {"completed": progress.completed, "total": progress.total, **sums}
    if job.status.is_terminal and not job.status.is_success:
        # Published clients read no results document of such a job; here they find its rows.
        results["items"] = store.jobs.rows(job.number)
    return {
        "job_id": job.id,
        "status": job.status.value,
        "created_at": when(job.created_at),
        "started_at": when(job.started_at),
        "completed_at": when(job.completed_at),
        "error": job.error,
        "config": config(job),
        "mean_reward": sums["mean_reward"],
        "results": results,
    }


def results(store: Store, job: JobRecord) -> dict[str, Any]:
    """Rows of the rollouts that have ended, in the order asked for; of an ended job all have."""
    sums = summary(store.jobs.progress(job.number))
    return {
        "job_id": job.id,
        "status": job.status.value,
        "error": job.error,
        "summary": sums,
        # Repeated here: published clients lose a mean of 0.0 that stands in the summary only.
        "mean_reward": sums["mean_reward"],
        "total_tokens": sums["total_tokens"],
        "total_cost_usd": sums["total_cost_usd"],
        "results": store.jobs.rows(job.number),
        **({"cassette": job.document["cassette"]} if "cassette" in job.document else {}),
    }


def workflow_state(store: Store, job: JobRecord) -> dict[str, Any]:
    """How far a job of either kind is, as the published client's `query_workflow_state` reads it."""
    progress = store.jobs.progress(job.number)
    state = {
        "job_id": job.id,
        "run_id": job.id,
        "status": job.status.value,
        "progress": {"completed": progress.completed, "total": progress.total},
        "error": job.error,
    }
    return {"job_id": job.id, "workflow_state": state, "query_name": "workflow_state", "error": None}
