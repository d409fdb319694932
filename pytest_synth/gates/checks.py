"""The single criteria of a gate: each held against its limit and put into words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from pytest_synth.gates import wording
from pytest_synth.gates.baselines import REMEDY, Baseline, Comparison, Conditions
from pytest_synth.gates.observations import SeedOutcome, mean
from pytest_synth.gates.planning import MOST_SEEDS, seeds_to_decide
from pytest_synth.gates.rules import GateRule, MetricLimit, Relation, holds

Outcome = Literal["passed", "failed", "incomplete"]


@dataclass(frozen=True)
class Check:
    """One criterion of a gate, held against its limit.

    Attributes:
        name: `mean reward`, `regression`, or the name of a metric.
        value: What was held against the limit: a mean, or its lower bound; None if it could not be computed.
        text: The check in words.
    """

    name: str
    outcome: Outcome
    value: float | None
    relation: Relation
    limit: float
    text: str


def worst(checks: Sequence[Check]) -> Outcome:
    """A failed check decides: nothing that is still missing would mend it. Then what could not be checked."""
    outcomes = {check.outcome for check in checks}
    if "failed" in outcomes:
        return "failed"
    return "incomplete" if "incomplete" in outcomes else "passed"


def check_mean(value: float, limit: float, n: int, bound: float | None, confidence: float) -> Check:
    """Hold the mean reward, or its lower bound if there is one, against `min_reward`."""
    held = value if bound is None else bound
    passed = holds(held, ">=", limit)
    asked = f"min_reward {wording.limit_number(limit)}"
    told = f"mean reward {wording.number(value, beside=limit)}"
    seeds = wording.count(n, "seed")
    if bound is None:
        text = f"{told} over {seeds}, {asked}" if passed else f"{told} over {seeds} is below {asked}"
    else:
        bounded = f"one-sided {wording.percent(confidence)} lower bound {wording.number(bound, beside=limit)}"
        if passed:
            text = f"{told} over {seeds}, {bounded}, {asked}"
        elif not holds(value, ">=", limit):
            text = f"{told} over {seeds} is below {asked} ({bounded})"
        else:
            text = f"undecided at {seeds}: {told}, but its {bounded} is below {asked}"
            text += _what_would_decide(n, value, bound, limit)
    return Check("mean reward", "passed" if passed else "failed", held, ">=", limit, text)


def check_regression(comparison: Comparison, value: float, rule: GateRule, margin: float) -> Check:
    """Hold the mean paired difference, or its lower bound, against the allowed regression.

    Args:
        value: Mean reward of the run.
    """
    difference, before, n = comparison.difference, comparison.baseline_mean, len(comparison.differences)
    held = difference if rule.rule == "mean" else comparison.lower_bound
    passed = holds(held, ">=", -margin)
    asked = f"max_regression {wording.limit_number(margin)}"
    seeds = f"the same {wording.count(n, 'seed')}"
    bounded = ""
    if rule.rule != "mean":
        shown = wording.number(comparison.lower_bound, beside=-margin)
        bounded = f"one-sided {wording.percent(rule.confidence)} lower bound {shown}"
    against = (
        f"mean reward {wording.number(value)} against the baseline's {wording.number(before)} over {seeds}"
    )
    if passed:
        told = f"difference {wording.number(difference, beside=-margin)}"
        text = ", ".join(part for part in (against, told, bounded, asked) if part)
    elif not holds(difference, ">=", -margin):
        text = (
            f"mean reward {wording.number(value)} is {wording.number(-difference, beside=margin)} below the "
            f"baseline's {wording.number(before)} over {seeds}, more than {asked}"
        )
        text += f" ({bounded})" if bounded else ""
    else:
        text = (
            f"undecided at {wording.count(n, 'seed')}: difference to the baseline "
            f"{wording.number(difference, beside=-margin)}, but its {bounded} is below "
            f"-{wording.limit_number(margin)} ({asked})"
        )
        text += _what_would_decide(n, difference, comparison.lower_bound, -margin)
    return Check("regression", "passed" if passed else "failed", held, ">=", -margin, text)


def refuse_comparison(
    outcomes: Sequence[SeedOutcome], baseline: Baseline | None, conditions: Conditions | None, margin: float
) -> Check | None:
    """A check that could not be made, with the reason: no baseline, or one that does not fit."""
    if baseline is None:
        text = "no baseline to compare with; run with --synth-update-baseline and commit the file"
    else:
        reasons = baseline.refuses(outcomes, conditions)
        if not reasons:
            return None
        text = f"the baseline cannot be compared: {', '.join(reasons)}; {REMEDY}"
    return Check("regression", "incomplete", None, ">=", -margin, text)


def check_metric(metric: MetricLimit, present: Sequence[SeedOutcome], may_miss: int) -> Check:
    """Hold the mean of an objective against its limit.

    Args:
        may_miss: How many of the seeds may be without it.
    """
    values = [o.objectives[metric.name] for o in present if metric.name in o.objectives]
    without = [o.key for o in present if metric.name not in o.objectives]
    if len(without) > may_miss or not values:
        names = wording.seed_list(without, with_split=wording.needs_split(o.key for o in present))
        known = sorted({name for o in present for name in o.objectives})
        text = (
            f"{len(without)} of {wording.count(len(present), 'seed')} {wording.have(len(without))} no metric "
            f"{metric.name!r} ({names}); the task app reports "
            f"{', '.join(map(repr, known)) or 'no objectives'}"
        )
        return Check(metric.name, "incomplete", None, metric.relation, metric.limit, text)
    value = mean(values)
    passed = holds(value, metric.relation, metric.limit)
    side = {">=": "below", "<=": "above"}[metric.relation]
    shown = wording.number(value, beside=metric.limit)
    text = f"{metric.name} {shown} over {wording.count(len(values), 'seed')}"
    text += (
        f", limit {metric.relation} {metric.limit:g}" if passed else f" is {side} the limit {metric.limit:g}"
    )
    return Check(metric.name, "passed" if passed else "failed", value, metric.relation, metric.limit, text)


def _what_would_decide(n: int, value: float, bound: float, limit: float) -> str:
    needed = seeds_to_decide(n, value, bound, limit)
    if needed is not None:
        return f"; about {needed:,} seeds would decide"
    if holds(value, "<=", limit):
        return "; the mean is at the limit, where no number of seeds would decide"
    return f"; it would take more than {MOST_SEEDS:,} seeds to decide"
