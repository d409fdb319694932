"""Exact curtailment: is a gate certain not to pass, whatever the rollouts that are still to come bring?

It never ends a run for a pass: as long as one seed is outstanding it could still go missing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import fsum
from typing import Literal

from pytest_synth.contracts.rewards import NOT_RUN
from pytest_synth.gates import wording
from pytest_synth.gates.observations import Observation, refuse
from pytest_synth.gates.rules import GateRule, holds


@dataclass(frozen=True)
class Certainty:
    """Why the verdict can no longer be "passed".

    Attributes:
        outcome: `failed`, or `incomplete` where too many seeds are missing already.
        at_most: Highest mean reward that is still possible; None if incomplete.
        text: The reason in words.
    """

    outcome: Literal["failed", "incomplete"]
    at_most: float | None
    text: str


def certain_to_fail(
    observations: Iterable[Observation], rule: GateRule, *, seeds: int, samples: int = 1
) -> Certainty | None:
    """Say whether a gate is certain not to pass; None while it still can.

    Under every rule a mean below `min_reward` fails, because a lower bound never lies above the mean. The
    best case: every outstanding rollout earns 1, and of the seeds that have samples outstanding, those that
    pull the mean down go missing, as far as `allow_missing` lets them.

    Args:
        observations: Of the rollouts that have ended; rollouts that were not run count as outstanding.
        seeds, samples: How many were asked for.
    """
    groups: dict[tuple[str | None, int], list[Observation]] = {}
    for one in observations:
        if one.reason != NOT_RUN:
            groups.setdefault((one.split, one.seed), []).append(one)
    missing = sum(any(refuse(one) for one in group) for group in groups.values())
    allowed = rule.allow_missing - missing
    if allowed < 0:
        n = wording.count(missing, "seed")
        text = f"{n} {wording.have(missing)} no reward, {rule.allow_missing} allowed"
        return Certainty("incomplete", None, text)
    if rule.min_reward is None or missing == seeds:
        return None
    present = [group for group in groups.values() if not any(refuse(one) for one in group)]
    best = _best_mean(present, rule, seeds=seeds - missing, samples=samples, may_miss=allowed)
    if holds(best, ">=", rule.min_reward):
        return None
    text = (
        f"mean reward is at most {wording.number(best, beside=rule.min_reward)} over "
        f"{wording.count(seeds, 'seed')}, below min_reward {wording.limit_number(rule.min_reward)}"
    )
    return Certainty("failed", best, text)


def _best_mean(
    present: Sequence[Sequence[Observation]], rule: GateRule, *, seeds: int, samples: int, may_miss: int
) -> float:
    """Highest mean that is still possible over the seeds that do not go missing."""
    ended: list[float] = []
    open_: list[float] = []
    for group in present:
        best = fsum([*(one.reward or 0.0 for one in group), samples - len(group)]) / samples
        (ended if len(group) >= samples else open_).append(best)
    kept = [*ended, *[1.0] * (seeds - len(present)), *sorted(open_, reverse=True)]
    dropped = 0
    while dropped < min(may_miss, len(open_)) and len(kept) > 1 and kept[-1] < fsum(kept) / len(kept):
        kept.pop()
        dropped += 1
    return fsum(kept) / len(kept)
