"""Wire documents of prompt-learning jobs: what a job's status says, learnt from its events as they come."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pytest_synth.backend.jobs.documents import when
from pytest_synth.backend.jobs.optimizers import PREFIX
from pytest_synth.backend.store import JobRecord

_BEST = ("best_prompt", "best_candidate", "best_candidate_id", "best_score", "best_reward")
_PROGRESS = (
    "phase",
    "generation",
    "rollouts_completed",
    "rollouts_total",
    "percent_overall",
    "transformations_tried",
    "transformations_planned",
    "elapsed_seconds",
    "eta_seconds",
    "rollout_tokens_used",
    "cost_usd",
    "best_score",
    "baseline_score",
    "reflection_wait_seconds",
)
_END = (
    "baseline_score",
    "total_rollouts",
    "trials_tried",
    "finish_reason",
    "finish_detail",
    "plan",
    "usage",
    "summary",
    "validation",
    "optimized_candidates",
)


def learn(known: Mapping[str, Any], kind: str, data: Mapping[str, Any]) -> dict[str, Any]:
    """Add what an event tells to what the status knows."""
    match kind.removeprefix(PREFIX):
        case "job.started":
            taken = {name: data[name] for name in ("plan", "not_applied") if name in data}
        case "candidate.new_best":
            taken = {name: data[name] for name in _BEST if name in data}
        case "job.progress":
            taken = {"progress": {name: data[name] for name in _PROGRESS if name in data}}
        case "job.completed" | "job.failed" | "job.cancelled":
            taken = {name: data[name] for name in (*_BEST, *_END) if name in data}
        case _:
            return dict(known)
    return {**known, **taken}


def status(job: JobRecord) -> dict[str, Any]:
    """The status document; readers look for a score under several names."""
    known = job.document
    progress = known.get("progress", {})
    best = known.get("best_score")
    prompt = known.get("best_prompt")
    return {
        "job_id": job.id,
        "id": job.id,
        "kind": "prompt_learning",
        "algorithm": job.body["section"].get("algorithm"),
        "status": job.status.value,
        "created_at": when(job.created_at),
        "started_at": when(job.started_at),
        "completed_at": when(job.completed_at),
        "error": job.error,
        "best_score": best,
        "best_reward": best,
        "best_prompt": prompt,
        "best_candidate": prompt,
        "baseline_score": known.get("baseline_score"),
        "baseline_reward": known.get("baseline_score"),
        "iteration": progress.get("generation"),
        "progress": progress or None,
        "plan": known.get("plan"),
        "not_applied": known.get("not_applied", []),
        "finish_reason": known.get("finish_reason"),
        "finish_detail": known.get("finish_detail"),
        "total_rollouts": known.get("total_rollouts"),
        "usage": known.get("usage"),
        "summary": known.get("summary"),
        "metadata": job.body["metadata"],
        "config": {"prompt_learning": job.body["section"]},
    }


def results(job: JobRecord) -> dict[str, Any]:
    """The best prompt with its scores, and the pool's front as history."""
    document = status(job)
    kept = ("job_id", "status", "error", "best_score", "best_reward", "best_prompt", "baseline_score")
    return {
        **{name: document[name] for name in (*kept, "finish_reason", "total_rollouts", "summary")},
        "validation": job.document.get("validation", []),
        "history": job.document.get("optimized_candidates", []),
    }


def workflow_state(job: JobRecord) -> dict[str, Any]:
    document = status(job)
    state = {
        "job_id": job.id,
        "run_id": job.id,
        "status": job.status.value,
        "algorithm": document["algorithm"],
        "progress": document["progress"],
        "error": job.error,
    }
    return {"job_id": job.id, "workflow_state": state, "query_name": "workflow_state", "error": None}
