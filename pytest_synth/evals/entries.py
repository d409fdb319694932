"""From a finished job to the entry of the reports."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from pytest_synth.gates import GateRule, Verdict, judge, observe
from pytest_synth.report import EvalEntry

if TYPE_CHECKING:
    from pytest_synth.client import EvalResult
    from pytest_synth.contracts.evals import EvalRow
    from pytest_synth.evals.jobs import Request
    from pytest_synth.evals.settings import Settings


def make_entry(
    name: str, request: Request, result: EvalResult, settings: Settings
) -> tuple[Verdict, EvalEntry]:
    """Judge a finished eval and make its entry.

    Args:
        name: Node id of the test, with a suffix for an eval that its body called.
    """
    spec = request.spec
    rows = _rows(request, result)
    verdict = judge(
        observe(rows, seeds=spec.seeds, split=spec.split, samples=spec.samples),
        GateRule(min_reward=spec.min_reward, allow_missing=spec.allow_missing),
    )
    policy = settings.policy | dict(spec.policy or {})
    fingerprints = {row.prompt_fingerprint for row in rows if row.prompt_fingerprint is not None}
    costs = [row.cost_usd for row in rows]
    entry = EvalEntry(
        node_id=name,
        outcome=verdict.outcome,
        gate_text=verdict.text,
        gate_details=verdict.details,
        mean_reward=verdict.mean,
        interval=verdict.interval,
        threshold=verdict.threshold,
        seeds_asked=verdict.n_asked,
        seeds_done=verdict.n_seeds,
        rollouts=sum(row.latency_ms is not None for row in rows),
        duration_s=_duration_s(result),
        tokens=sum(row.tokens for row in rows),
        cost_usd=None if None in costs else sum(cost for cost in costs if cost is not None),
        model=f"{policy['provider']}/{policy['model']}",
        prompt_source=request.prompt_source,
        prompt_fingerprint=fingerprints.pop() if len(fingerprints) == 1 else None,
        rows=rows,
    )
    return verdict, entry


def _rows(request: Request, result: EvalResult) -> tuple[EvalRow, ...]:
    """The job's rows, completed: what has none gets one with the reason of the whole job."""
    from pytest_synth.contracts.evals import EvalRow

    rows = {(row.seed, row.sample): row for row in result.rows}
    reason = result.error or f"the job ended {result.status.value!r} without a result for it"
    return tuple(
        rows.get((seed, sample))
        or EvalRow(seed=seed, split=request.spec.split, sample=sample, error=reason, error_kind="not_run")
        for seed in request.spec.seeds
        for sample in range(request.spec.samples)
    )


def _duration_s(result: EvalResult) -> float:
    """From the job's first rollout to its end; 0 if it did not get that far."""
    started, completed = result.raw.get("started_at"), result.raw.get("completed_at")
    if not isinstance(started, str) or not isinstance(completed, str):
        return 0.0
    return (datetime.fromisoformat(completed) - datetime.fromisoformat(started)).total_seconds()
