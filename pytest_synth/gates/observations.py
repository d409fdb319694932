"""What a gate looks at: one observation for each rollout that was asked for, grouped by seed.

Nothing is dropped here: what has no usable reward keeps its place, with the reason.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import fsum
from typing import TYPE_CHECKING

from pytest_synth.contracts.rewards import NOT_RUN, refuse_reward

if TYPE_CHECKING:
    from pytest_synth.contracts.evals import EvalRow

NO_ROW = "the backend reported no result"
"""Reason of a rollout that was asked for and of which nothing came back."""


@dataclass(frozen=True)
class Observation:
    """One rollout that was asked for: its reward, or the reason why there is none.

    Attributes:
        split: Split that the seed belongs to; None where the task app has only one.
        sample: Number of the repetition, from 0.
        reward: In [0, 1]; anything else counts as no reward.
        objectives: Further numbers of the rollout by name (the wire's `outcome_objectives`).
    """

    split: str | None
    seed: int
    sample: int
    reward: float | None
    reason: str | None = None
    objectives: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class SeedOutcome:
    """All samples of one seed.

    Attributes:
        rewards: One for each sample; empty if any sample has none.
        reason: Why the seed counts as missing; None if it has its rewards. `NOT_RUN` only if nothing else
            is wrong with it.
        objectives: Means over the samples, of the names that every sample has.
    """

    split: str | None
    seed: int
    rewards: tuple[float, ...]
    reason: str | None
    objectives: Mapping[str, float]

    @property
    def key(self) -> tuple[str | None, int]:
        return (self.split, self.seed)

    @property
    def reward(self) -> float | None:
        """Mean over the samples; None if the seed is missing."""
        return mean(self.rewards) if self.reason is None else None


def in_fixed_order(outcomes: Iterable[SeedOutcome]) -> list[SeedOutcome]:
    """Order seeds by a hash of split and number.

    A bound that goes through the values one by one needs an order that has nothing to do with them, and rows
    of data sets are often sorted by label. The hash is the same on every machine and Python.
    """
    return sorted(outcomes, key=lambda o: hashlib.sha256(f"{o.split or ''}/{o.seed}".encode()).digest())


def mean(values: Sequence[float]) -> float:
    """Correctly rounded sum over the count: it does not depend on the order of the values."""
    return fsum(values) / len(values)


def observe(
    rows: Iterable[EvalRow], *, seeds: Iterable[int], split: str | None, samples: int = 1
) -> tuple[Observation, ...]:
    """Make the observations of an eval job from its rows; every rollout asked for appears exactly once.

    Args:
        rows: As the job's results have them, in any order.
        seeds, split, samples: What was asked for. A rollout without a row becomes an observation
            without a reward (`NO_ROW`).

    Raises:
        ValueError: If a row was not asked for, or comes twice: counting either would be a lie.
    """
    asked = {
        (seed, sample): Observation(split, seed, sample, None, NO_ROW)
        for seed in seeds
        for sample in range(samples)
    }
    seen: set[tuple[int, int]] = set()
    for row in rows:
        place = (row.seed, row.sample)
        if place not in asked or (row.split is not None and split is not None and row.split != split):
            raise ValueError(
                f"a row for split {row.split!r}, seed {row.seed}, sample {row.sample} was not asked for"
            )
        if place in seen:
            raise ValueError(f"two rows for seed {row.seed}, sample {row.sample}")
        seen.add(place)
        reward = row.outcome_reward if row.outcome_reward is not None else row.score
        reason = row.error or row.error_kind
        asked[place] = Observation(
            split, row.seed, row.sample, None if reason else reward, reason, dict(row.objectives)
        )
    return tuple(asked.values())


def by_seed(observations: Iterable[Observation]) -> tuple[SeedOutcome, ...]:
    """Group the observations by (split, seed), in order of split and number.

    A seed with a sample that has no usable reward, or with fewer samples than the others, is missing.

    Raises:
        ValueError: If two observations have the same split, seed and sample.
    """
    groups: dict[tuple[str | None, int], dict[int, Observation]] = {}
    for one in observations:
        samples = groups.setdefault((one.split, one.seed), {})
        if one.sample in samples:
            raise ValueError(f"split {one.split!r}, seed {one.seed}, sample {one.sample} was observed twice")
        samples[one.sample] = one
    asked = max((len(samples) for samples in groups.values()), default=0)
    ordered = sorted(groups.items(), key=lambda item: (item[0][0] or "", item[0][1]))
    return tuple(_outcome(key, [samples[n] for n in sorted(samples)], asked) for key, samples in ordered)


def _outcome(key: tuple[str | None, int], samples: list[Observation], asked: int) -> SeedOutcome:
    refused = [r for r in map(refuse, samples) if r is not None]
    reason = next((r for r in refused if r != NOT_RUN), refused[0] if refused else None)
    if reason is None and len(samples) < asked:
        reason = f"{asked - len(samples)} of {asked} samples were not reported"
    names = set.intersection(*(set(s.objectives) for s in samples))
    return SeedOutcome(
        split=key[0],
        seed=key[1],
        rewards=() if reason else tuple(s.reward for s in samples if s.reward is not None),
        reason=reason,
        objectives={name: mean([s.objectives[name] for s in samples]) for name in sorted(names)},
    )


def refuse(one: Observation) -> str | None:
    """Say why an observation has no usable reward; None if it has one."""
    if one.reward is None:
        return one.reason or "no reason was given"
    return one.reason or refuse_reward(one.reward, "reward")
