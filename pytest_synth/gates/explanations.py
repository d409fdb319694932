"""The further lines of a verdict: how sure it is, what the samples tell, what changed since the baseline."""

from __future__ import annotations

from collections.abc import Sequence

from pytest_synth.gates import wording
from pytest_synth.gates.baselines import Change, Comparison
from pytest_synth.gates.intervals import method_name
from pytest_synth.gates.observations import SeedOutcome, mean
from pytest_synth.gates.planning import minimal_detectable_drop, standard_error
from pytest_synth.gates.repeats import flaky_seeds, pass_hat_k, sample_variance

CHANGES_SHOWN = 20  # runs of seeds that crossed the pass mark
DROPS_SHOWN = 5


def spread_lines(
    rewards: Sequence[float], between: tuple[float, float], confidence: float, comparison: Comparison | None
) -> list[str]:
    """The interval with its method, and the smallest drop that so many seeds can see."""
    lines = [
        f"{wording.percent(confidence)} interval of the mean {wording.number(between[0])} to "
        f"{wording.number(between[1])} ({method_name(rewards)}, two-sided)"
    ]
    error = standard_error(rewards)
    if error is None:
        return lines
    lines[0] += f"; standard error by seed {wording.number(error)}"
    if comparison is None:
        drop = minimal_detectable_drop(rewards, confidence)
    else:
        drop = minimal_detectable_drop(comparison.differences, confidence, largest_variance=1.0)
    seeds = f"these {len(rewards):,} seeds" + (
        ", paired with the baseline," if comparison is not None else ""
    )
    lines.append(
        f"{seeds} can only see drops of {wording.number(min(drop, 1.0))} or more "
        f"(one-sided {wording.percent(confidence)}, in 4 of 5 runs)"
    )
    return lines


def repeat_lines(outcomes: Sequence[SeedOutcome]) -> list[str]:
    """What repeated samples tell; empty where each seed has one."""
    present = [o for o in outcomes if o.rewards]
    samples = max((len(o.rewards) for o in present), default=0)
    variances = [v for o in present if (v := sample_variance(o)) is not None]
    all_pass = pass_hat_k(present, samples) if samples > 1 else None
    if all_pass is None or not variances:
        return []
    line = (
        f"{samples} samples a seed: pass^{samples} {wording.number(all_pass)}, "
        f"variance between samples {wording.number(mean(variances))}"
    )
    flaky = [o.key for o in flaky_seeds(present)]
    if flaky:
        names = wording.seed_list(flaky, with_split=wording.needs_split(o.key for o in outcomes))
        line += f"; {wording.count(len(flaky), 'flaky seed')} ({names})"
    return [line]


def comparison_lines(comparison: Comparison) -> list[str]:
    """The seeds that crossed the pass mark, else the largest drops."""
    lines = [
        f"newly {what}: {wording.count(len(changes), 'seed')} ({_names(changes)})"
        for what, changes in (("failing", comparison.newly_failing), ("fixed", comparison.newly_fixed))
        if changes
    ]
    if comparison.drops and not comparison.newly_failing:
        drops = comparison.drops[:DROPS_SHOWN]
        with_split = wording.needs_split((c.split, c.seed) for c in comparison.drops)
        told = ", ".join(
            f"seed {wording.seed_name((c.split, c.seed), with_split=with_split)} "
            f"{wording.number(c.before)} -> {wording.number(c.now)}"
            for c in drops
        )
        lines.append(f"largest drops: {told}")
    return lines


def _names(changes: Sequence[Change]) -> str:
    keys = [(c.split, c.seed) for c in changes]
    return wording.seed_list(keys, with_split=wording.needs_split(keys), shown=CHANGES_SHOWN)
