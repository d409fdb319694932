"""From observations to a verdict: is the gate passed, failed, or incomplete, and why."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from pytest_synth.gates import wording
from pytest_synth.gates.observations import Observation, SeedOutcome, by_seed, mean
from pytest_synth.gates.rules import GateRule, MetricLimit, Relation, holds

Outcome = Literal["passed", "failed", "incomplete"]


@dataclass(frozen=True)
class Check:
    """One criterion of a gate, held against its limit.

    Attributes:
        name: `mean reward`, or the name of a metric.
        value: What was held against the limit; None if it could not be computed.
        text: The check in words.
    """

    name: str
    outcome: Outcome
    value: float | None
    relation: Relation
    limit: float
    text: str


@dataclass(frozen=True)
class Verdict:
    """What a gate says.

    Attributes:
        mean: Mean over the seeds of the mean over their samples; None if the gate is incomplete.
        interval: Two-sided, at the rule's confidence; None where there is no mean.
        n_seeds: Seeds with a reward.
        n_asked, n_missing: Seeds asked for, and those without a reward.
        threshold: The rule's `min_reward`.
        text: One line, without a line break.
        details: Further lines.
    """

    outcome: Outcome
    mean: float | None
    interval: tuple[float, float] | None
    n_seeds: int
    n_asked: int
    n_missing: int
    threshold: float | None
    text: str
    details: tuple[str, ...] = ()
    checks: tuple[Check, ...] = ()

    @property
    def passed(self) -> bool:
        return self.outcome == "passed"


def judge(observations: Iterable[Observation], rule: GateRule) -> Verdict:
    """Decide a gate.

    Seeds without a reward beyond `rule.allow_missing` make it incomplete, whatever the others earned; so
    does a run without seeds. The mean is over the seeds, each of them the mean over its samples.
    """
    outcomes = by_seed(observations)
    missing = [o for o in outcomes if o.reason is not None]
    if not outcomes or len(missing) > rule.allow_missing or len(missing) == len(outcomes):
        return _incomplete(outcomes, missing, rule)
    present = [o for o in outcomes if o.reason is None]
    value = mean(_rewards(present))
    checks: list[Check] = []
    if rule.min_reward is not None:
        checks.append(_check_mean(value, present, rule.min_reward))
    checks += [_check_metric(metric, present, rule.allow_missing - len(missing)) for metric in rule.metrics]
    outcome = _worst(checks)
    text = f"gate {outcome}: " + "; ".join(c.text for c in checks if c.outcome == outcome)
    if not checks:
        text = f"gate passed: no criterion; mean reward {wording.number(value)} over {_seeds(present)}"
    details = [c.text for c in checks if c.outcome != outcome]
    lowest = wording.lowest(present, with_split=wording.needs_split(outcomes))
    if outcome == "failed" and lowest:
        text += f"; lowest: {lowest}"
    if missing:
        text += f" ({len(missing)} of {_seeds(outcomes)} without a reward, {rule.allow_missing} allowed)"
        details += _missing_lines(outcomes, missing)
    return Verdict(
        outcome=outcome,
        mean=value,
        interval=None,
        n_seeds=len(present),
        n_asked=len(outcomes),
        n_missing=len(missing),
        threshold=rule.min_reward,
        text=text,
        details=tuple(details),
        checks=tuple(checks),
    )


def _incomplete(outcomes: Sequence[SeedOutcome], missing: Sequence[SeedOutcome], rule: GateRule) -> Verdict:
    with_split = wording.needs_split(outcomes)
    if outcomes:
        n = len(missing)
        text = (
            f"gate incomplete: {n} of {_seeds(outcomes)} {wording.have(n)} no reward "
            f"({wording.reason_line(missing, with_split=with_split)})"
        )
        if 0 < rule.allow_missing < n:
            text += f"; allow_missing is {rule.allow_missing}"
    else:
        text = "gate incomplete: no seed was run; a gate that checked nothing is never passed"
    rewards = _rewards([o for o in outcomes if o.reason is None])
    details = []
    if rewards:
        details.append(
            f"mean reward of the {wording.count(len(rewards), 'other seed')}: {wording.number(mean(rewards))}"
        )
    return Verdict(
        outcome="incomplete",
        mean=None,
        interval=None,
        n_seeds=len(rewards),
        n_asked=len(outcomes),
        n_missing=len(missing),
        threshold=rule.min_reward,
        text=text,
        details=(*details, *_missing_lines(outcomes, missing)),
    )


def _check_mean(value: float, present: Sequence[SeedOutcome], limit: float) -> Check:
    passed = holds(value, ">=", limit)
    text = f"mean reward {wording.number(value, beside=limit)} over {_seeds(present)}"
    text += ", " if passed else " is below "
    text += f"min_reward {wording.limit_number(limit)}"
    return Check("mean reward", "passed" if passed else "failed", value, ">=", limit, text)


def _check_metric(metric: MetricLimit, present: Sequence[SeedOutcome], may_miss: int) -> Check:
    values = [o.objectives[metric.name] for o in present if metric.name in o.objectives]
    without = [o for o in present if metric.name not in o.objectives]
    if len(without) > may_miss or not values:
        names = wording.seed_list(without, with_split=wording.needs_split(present))
        known = sorted({name for o in present for name in o.objectives})
        text = (
            f"{len(without)} of {_seeds(present)} {wording.have(len(without))} no metric {metric.name!r} "
            f"({names}); the task app reports {', '.join(map(repr, known)) or 'no objectives'}"
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


def _worst(checks: Sequence[Check]) -> Outcome:
    """A failed check decides: more seeds would not mend it. Then what could not be checked."""
    outcomes = {c.outcome for c in checks}
    if "failed" in outcomes:
        return "failed"
    return "incomplete" if "incomplete" in outcomes else "passed"


def _missing_lines(outcomes: Sequence[SeedOutcome], missing: Sequence[SeedOutcome]) -> list[str]:
    return [f"no reward: {r}" for r in wording.reasons(missing, with_split=wording.needs_split(outcomes))]


def _rewards(outcomes: Iterable[SeedOutcome]) -> list[float]:
    return [o.reward for o in outcomes if o.reward is not None]


def _seeds(outcomes: Sequence[SeedOutcome]) -> str:
    return wording.count(len(outcomes), "seed")
