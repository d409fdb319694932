"""From observations to a verdict: is the gate passed, failed, or incomplete, and why."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pytest_synth.contracts.rewards import NOT_RUN
from pytest_synth.gates import wording
from pytest_synth.gates.baselines import Baseline, Comparison, Conditions, compare
from pytest_synth.gates.checks import (
    Check,
    Outcome,
    check_mean,
    check_metric,
    check_regression,
    refuse_comparison,
    worst,
)
from pytest_synth.gates.curtailment import Certainty, certain_to_fail
from pytest_synth.gates.explanations import comparison_lines, repeat_lines, spread_lines
from pytest_synth.gates.intervals import interval, lower_bound
from pytest_synth.gates.observations import Observation, SeedOutcome, by_seed, in_fixed_order, mean
from pytest_synth.gates.planning import standard_error
from pytest_synth.gates.rules import GateRule


@dataclass(frozen=True)
class Verdict:
    """What a gate says.

    Attributes:
        mean: Mean over the seeds of the mean over their samples; None if too many seeds are missing, or the
            run was ended early.
        interval: Two-sided, at the rule's confidence; None where there is no mean.
        n_seeds: Seeds with a reward.
        n_asked, n_missing, n_not_run: Seeds asked for; those without a reward; those spared because the
            verdict was certain.
        threshold: The rule's `min_reward`.
        text: One line, without a line break.
        details: Further lines.
        lower_bound: One-sided, where the rule holds it against `min_reward`.
        standard_error: Of the mean, clustered by seed.
        at_most: Highest mean that was still possible when the run was ended early.
        comparison: With the baseline, where the rule asks for one and it fits.
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
    n_not_run: int = 0
    lower_bound: float | None = None
    standard_error: float | None = None
    at_most: float | None = None
    comparison: Comparison | None = None

    @property
    def passed(self) -> bool:
        return self.outcome == "passed"


def judge(
    observations: Iterable[Observation],
    rule: GateRule,
    *,
    baseline: Baseline | None = None,
    conditions: Conditions | None = None,
) -> Verdict:
    """Decide a gate.

    Seeds without a reward beyond `rule.allow_missing` make it incomplete, whatever the others earned; so
    does a run without seeds. The mean is over the seeds, each of them the mean over its samples. A failed
    criterion makes the gate failed; one that cannot be checked makes it incomplete.

    Args:
        observations: One for each rollout that was asked for. Those with the reason `NOT_RUN` count as spared
            if the others make a failure certain, else as missing.
        baseline, conditions: The stored baseline and the conditions of this run; used where the rule has a
            `max_regression`. Without conditions only seeds and samples are compared.
    """
    observed = tuple(observations)
    outcomes = by_seed(observed)
    missing = [o for o in outcomes if o.reason not in (None, NOT_RUN)]
    spared = [o for o in outcomes if o.reason == NOT_RUN]
    if spared and len(missing) <= rule.allow_missing:
        samples = 1 + max(one.sample for one in observed)
        certainty = certain_to_fail(observed, rule, seeds=len(outcomes), samples=samples)
        if certainty is not None:
            return _ended_early(certainty, observed, outcomes, missing, spared, rule)
        missing, spared = [*missing, *spared], []
    if not outcomes or len(missing) > rule.allow_missing or len(missing) == len(outcomes):
        return _incomplete(outcomes, missing, spared, rule)
    return _decide(outcomes, missing, rule, baseline, conditions)


def _decide(
    outcomes: Sequence[SeedOutcome],
    missing: Sequence[SeedOutcome],
    rule: GateRule,
    baseline: Baseline | None,
    conditions: Conditions | None,
) -> Verdict:
    present = in_fixed_order(o for o in outcomes if o.reason is None)
    rewards = _rewards(present)
    value = mean(rewards)
    bound = lower_bound(rewards, rule.confidence) if rule.rule == "lower_bound" else None
    checks: list[Check] = []
    if rule.min_reward is not None:
        checks.append(check_mean(value, rule.min_reward, len(present), bound, rule.confidence))
    comparison = None
    if rule.max_regression is not None:
        refusal = refuse_comparison(outcomes, baseline, conditions, rule.max_regression)
        if refusal is None and baseline is not None:
            comparison = compare(present, baseline, rule.confidence)
            checks.append(check_regression(comparison, value, rule, rule.max_regression))
        elif refusal is not None:
            checks.append(refusal)
    named = sorted(present, key=lambda o: (o.split or "", o.seed))
    checks += [check_metric(metric, named, rule.allow_missing - len(missing)) for metric in rule.metrics]
    between = interval(rewards, rule.confidence)
    outcome = worst(checks)
    return Verdict(
        outcome=outcome,
        mean=value,
        interval=between,
        n_seeds=len(present),
        n_asked=len(outcomes),
        n_missing=len(missing),
        threshold=rule.min_reward,
        text=_text(outcome, checks, value, outcomes, missing, rule),
        details=(
            *(check.text for check in checks if check.outcome != outcome),
            *spread_lines(rewards, between, rule.confidence, comparison),
            *repeat_lines(named),
            *(comparison_lines(comparison) if comparison is not None else ()),
        ),
        checks=tuple(checks),
        lower_bound=bound,
        standard_error=standard_error(rewards),
        comparison=comparison,
    )


def _text(
    outcome: Outcome,
    checks: Sequence[Check],
    value: float,
    outcomes: Sequence[SeedOutcome],
    missing: Sequence[SeedOutcome],
    rule: GateRule,
) -> str:
    present = [o for o in outcomes if o.reason is None]
    if checks:
        text = f"gate {outcome}: " + "; ".join(c.text for c in checks if c.outcome == outcome)
    else:
        text = f"no criterion: mean reward {wording.number(value)} over {_seeds(present)}"
    lowest = wording.lowest(present, with_split=_needs_split(outcomes))
    if outcome == "failed" and lowest:
        text += f"; lowest: {lowest}"
    if missing:
        text += f" ({len(missing)} of {_seeds(outcomes)} without a reward, {rule.allow_missing} allowed)"
    return text


def _incomplete(
    outcomes: Sequence[SeedOutcome],
    missing: Sequence[SeedOutcome],
    spared: Sequence[SeedOutcome],
    rule: GateRule,
) -> Verdict:
    if outcomes:
        n = len(missing)
        text = (
            f"gate incomplete: {n} of {_seeds(outcomes)} {wording.have(n)} no reward "
            f"({wording.reason_line(missing, with_split=_needs_split(outcomes))})"
        )
        if 0 < rule.allow_missing < n:
            text += f"; allow_missing is {rule.allow_missing}"
        if spared:
            text += f"; {_seeds(spared)} not run: the verdict was certain"
    else:
        text = "gate incomplete: no seed was run; a gate that checked nothing is never passed"
    rewards = _rewards(outcomes)
    details = []
    if rewards:
        others = wording.count(len(rewards), "other seed")
        details.append(f"mean reward of the {others}: {wording.number(mean(rewards))}")
    return Verdict(
        outcome="incomplete",
        mean=None,
        interval=None,
        n_seeds=len(rewards),
        n_asked=len(outcomes),
        n_missing=len(missing),
        threshold=rule.min_reward,
        text=text,
        details=tuple(details),
        n_not_run=len(spared),
    )


def _ended_early(
    certainty: Certainty,
    observed: Sequence[Observation],
    outcomes: Sequence[SeedOutcome],
    missing: Sequence[SeedOutcome],
    spared: Sequence[SeedOutcome],
    rule: GateRule,
) -> Verdict:
    present = [o for o in outcomes if o.reason is None]
    saved = sum(one.reason == NOT_RUN for one in observed)
    ran = wording.count(len(observed) - saved, "rollout")
    text = f"gate {certainty.outcome}: {certainty.text} (certain after {ran}, {saved:,} saved)"
    lowest = wording.lowest(present, with_split=_needs_split(outcomes))
    if lowest:
        text += f"; lowest: {lowest}"
    return Verdict(
        outcome=certainty.outcome,
        mean=None,
        interval=None,
        n_seeds=len(present),
        n_asked=len(outcomes),
        n_missing=len(missing),
        threshold=rule.min_reward,
        text=text,
        n_not_run=len(spared),
        at_most=certainty.at_most,
    )


def _needs_split(outcomes: Sequence[SeedOutcome]) -> bool:
    return wording.needs_split(o.key for o in outcomes)


def _rewards(outcomes: Iterable[SeedOutcome]) -> list[float]:
    return [o.reward for o in outcomes if o.reward is not None]


def _seeds(outcomes: Sequence[SeedOutcome]) -> str:
    return wording.count(len(outcomes), "seed")
