"""From a finished job to its verdict and to the entry of the reports."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_synth.evals.baselines import read_baseline, write_baseline
from pytest_synth.evals.descriptions import Fingerprints
from pytest_synth.gates import (
    Baseline,
    Comparison,
    Conditions,
    GateRule,
    Observation,
    Verdict,
    judge,
    observe,
)
from pytest_synth.gates import MetricLimit as GateLimit
from pytest_synth.report import BaselineEntry, EvalEntry, MetricLimit, Rule, SeedChange

if TYPE_CHECKING:
    from pytest_synth.client import EvalResult
    from pytest_synth.contracts.evals import EvalRow, PromptMessage
    from pytest_synth.evals.jobs import Request
    from pytest_synth.evals.settings import Settings
    from pytest_synth.gates import Change
    from pytest_synth.prompts import Prompt

NO_FINGERPRINTS = Fingerprints()


def make_entry(
    name: str,
    request: Request,
    result: EvalResult,
    settings: Settings,
    *,
    baseline: Path | None = None,
    fingerprints: Fingerprints = NO_FINGERPRINTS,
    update_baseline: bool = False,
) -> tuple[Verdict, EvalEntry]:
    """Judge a finished eval and make its entry.

    Args:
        name: Node id of the test, with a suffix for an eval that its body called.
        baseline: File of the stored baseline, for a spec with `max_regression`.
        fingerprints: Of the task app's scorer and rows.
        update_baseline: Store this run's rewards there first, if every seed has one.

    Raises:
        ConfigError: If the baseline's file cannot be read or written.
    """
    spec = request.spec
    rows = _rows(request, result)
    observations = observe(rows, seeds=spec.seeds, split=spec.split, samples=spec.samples)
    policy = settings.policy | dict(spec.policy or {})
    prompts = {row.prompt_fingerprint for row in rows if row.prompt_fingerprint is not None}
    fingerprint = prompts.pop() if len(prompts) == 1 else None
    model = f"{policy['provider']}/{policy['model']}"
    conditions = Conditions(
        model=model, prompt=fingerprint, scorer=fingerprints.scorer, data=fingerprints.data
    )
    stored = None
    if baseline is not None and spec.max_regression is not None:
        stored = _update(baseline, observations, conditions) if update_baseline else read_baseline(baseline)
    # A run that becomes the baseline is not held against itself: few seeds would be "undecided".
    rule = spec.rule.without_baseline() if stored is not None and update_baseline else spec.rule
    verdict = judge(observations, rule, baseline=stored, conditions=conditions)
    if verdict.passed and result.error is not None and not result.succeeded:
        # All rewards are there, and something else that was asked for is not: a cassette, most likely.
        verdict = replace(verdict, outcome="incomplete", text=f"gate incomplete: {result.error}")
    fields = verdict_fields(verdict, spec.rule)
    fields["gate_details"] = (*fields["gate_details"], *_cassette_lines(result, rows))
    entry = EvalEntry(
        node_id=name,
        **fields,
        rule=rule_entry(spec.rule),
        rollouts=sum(row.latency_ms is not None for row in rows),
        duration_s=_duration_s(result),
        tokens=sum(row.tokens for row in rows),
        cost_usd=_sum(row.cost_usd for row in rows),
        replayed=sum(row.replayed for row in rows),
        saved_usd=_sum(row.saved_usd for row in rows if row.replayed),
        model=model,
        prompt_source=request.prompt_source,
        prompt_fingerprint=fingerprint,
        scorer_fingerprint=fingerprints.scorer,
        data_fingerprint=fingerprints.data,
        prompt=prompt_messages(spec.prompt),
        rows=rows,
    )
    return verdict, entry


def prompt_messages(prompt: Prompt | None) -> tuple[PromptMessage, ...] | None:
    """A prompt as entries have it."""
    from pytest_synth.contracts.evals import PromptMessage

    if prompt is None:
        return None
    return tuple(PromptMessage.model_validate(message) for message in prompt.to_wire())


def _sum(costs: Iterable[float | None]) -> float | None:
    """None as soon as one of them is not known."""
    total = 0.0
    for cost in costs:
        if cost is None:
            return None
        total += cost
    return total


def verdict_fields(verdict: Verdict, rule: GateRule) -> dict[str, Any]:
    """The fields of an entry that a verdict gives.

    A gate that demands nothing beyond rewards has measured, and not passed.
    """
    return {
        "outcome": "measured" if verdict.passed and not rule.has_criterion else verdict.outcome,
        "gate_text": verdict.text,
        "gate_details": verdict.details,
        "mean_reward": verdict.mean,
        "at_most": verdict.at_most,
        "interval": verdict.interval,
        "lower_bound": verdict.lower_bound,
        "threshold": verdict.threshold,
        "baseline": None if verdict.comparison is None else _comparison(verdict.comparison),
        "seeds_asked": verdict.n_asked,
        "seeds_done": verdict.n_seeds,
        "seeds_not_run": verdict.n_not_run,
    }


def _cassette_lines(result: EvalResult, rows: Iterable[EvalRow]) -> list[str]:
    """What a reviewer should know of the cassette: entries that nothing asks for any more.

    Not beside calls that were not found: those are the news, and what they ask for is near the unused.
    """
    cassette = result.raw.get("cassette")
    if not isinstance(cassette, dict) or not cassette.get("unused"):
        return []
    if any(row.error_kind == "replay_miss" for row in rows):
        return []
    return [
        f"{cassette['unused']} of {cassette['entries']} recorded calls in {cassette['name']} were not used; "
        "--synth-record-mode=rewrite removes them"
    ]


def _update(file: Path, observations: tuple[Observation, ...], conditions: Conditions) -> Baseline | None:
    """Store the rewards unless one is missing; such a run is incomplete in any case."""
    if any(one.reward is None or one.reason for one in observations):
        return read_baseline(file)
    baseline = Baseline.of(observations, conditions)
    write_baseline(file, baseline)
    return baseline


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


def rule_entry(rule: GateRule) -> Rule:
    """A gate's demands as they stand in reports."""
    return Rule(
        rule=rule.rule,
        min_reward=rule.min_reward,
        max_regression=rule.max_regression,
        confidence=rule.confidence,
        allow_missing=rule.allow_missing,
        metrics=tuple(MetricLimit(name=m.name, relation=m.relation, limit=m.limit) for m in rule.metrics),
    )


def gate_rule(rule: Rule) -> GateRule:
    """A gate's demands, read back from a report."""
    return GateRule(
        min_reward=rule.min_reward,
        rule=rule.rule,
        max_regression=rule.max_regression,
        confidence=rule.confidence,
        allow_missing=rule.allow_missing,
        metrics=tuple(GateLimit(m.name, m.relation, m.limit) for m in rule.metrics),
    )


def _comparison(found: Comparison) -> BaselineEntry:
    return BaselineEntry(
        mean=found.baseline_mean,
        difference=found.difference,
        interval=found.interval,
        lower_bound=found.lower_bound,
        newly_failing=tuple(map(_change, found.newly_failing)),
        newly_fixed=tuple(map(_change, found.newly_fixed)),
        drops=tuple(map(_change, found.drops)),
    )


def _change(change: Change) -> SeedChange:
    return SeedChange(split=change.split, seed=change.seed, before=change.before, now=change.now)


def _duration_s(result: EvalResult) -> float:
    """From the job's first rollout to its end; 0 if it did not get that far."""
    started, completed = result.raw.get("started_at"), result.raw.get("completed_at")
    if not isinstance(started, str) or not isinstance(completed, str):
        return 0.0
    return (datetime.fromisoformat(completed) - datetime.fromisoformat(started)).total_seconds()
