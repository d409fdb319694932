"""The members of a search: candidates in the pool, and the children that try to get in."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pytest_synth.backend.optimizer.ports import RolloutKey, RolloutOutcome
from pytest_synth.backend.optimizer.reflection import Proposal
from pytest_synth.prompts import Prompt

Keys = tuple[RolloutKey, ...]


@dataclass(frozen=True)
class Batch:
    """Rollouts of a parent.

    Attributes:
        lessons: A child learns from these.
        gate: It must beat these, on the same seeds.
        fresh: How many feedback seeds were drawn for it.
    """

    lessons: Keys
    gate: Keys
    fresh: int = 0

    @property
    def keys(self) -> frozenset[RolloutKey]:
        return frozenset((*self.lessons, *self.gate))

    @property
    def seeds(self) -> tuple[int, ...]:
        """Of the gate."""
        return tuple(key.seed for key in self.gate)


@dataclass(frozen=True)
class Candidate:
    """A prompt in the pool.

    Attributes:
        index: Its place in gepa's pool; 0 is the baseline.
        number: Number of the child that it was; 0 for the baseline.
        parent: Its parent's index; None for the baseline.
        sample: Of its own rollouts on the Pareto set (see `RolloutKey.sample`).
        outcomes: By Pareto seed.
        changed: Components that differ from the parent's.
    """

    index: int
    number: int
    prompt: Prompt
    parent: int | None
    generation: int
    sample: int
    outcomes: Mapping[int, RolloutOutcome]
    changed: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        return name_of(self.number)

    @property
    def reward(self) -> float:
        """Mean over the Pareto set; a rollout without a reward counts 0."""
        return mean(list(self.outcomes.values()))


@dataclass
class Child:
    """A prompt on its way into the pool: parent's rollouts, reflection, gate, Pareto set.

    Attributes:
        number: From 1, in the order of launching, which is the order of settling.
        generation: 0 for founders (the initial population), else from 1.
        components: Which messages it rewrites.
        is_founder: Whether it enters without beating its parent.
        batch: Its parent's rollouts that it learns from, and must beat.
        sample: Of its own rollouts.
        cost: Rollouts that it pays in the worst case.
        prompt: What was proposed; None as long as, or if, there is nothing.
        seen: All rollouts that it has used, its parent's included.
        lessons, before, after: What it learnt from, and its parent's and its own rollouts on the gate.
        is_better: Whether it beat its parent there.
        reason: Why it did not get in; "" before it is settled, and for those that did.
    """

    number: int
    generation: int
    parent: Candidate
    components: tuple[str, ...]
    is_founder: bool
    batch: Batch
    sample: int
    cost: int
    task: asyncio.Task[None] | None = None
    proposal: Proposal = field(default_factory=Proposal)
    prompt: Prompt | None = None
    seen: dict[RolloutKey, RolloutOutcome] = field(default_factory=dict)
    lessons: Sequence[RolloutOutcome] = ()
    before: Sequence[RolloutOutcome] = ()
    after: Sequence[RolloutOutcome] = ()
    is_better: bool = False
    reason: str = ""

    @property
    def id(self) -> str:
        return name_of(self.number)

    @property
    def stage(self) -> int:
        """How far it has come: 0 parent's rollouts, 1 gate, 2 Pareto set.

        The less far, the more urgent: what is still to come includes a reflection, which is slow.
        """
        return 0 if not self.lessons else 1 if not self.after else 2


def name_of(number: int) -> str:
    """A candidate's id on the wire."""
    return "baseline" if number == 0 else f"candidate_{number}"


def mean(outcomes: Sequence[RolloutOutcome]) -> float:
    return sum(outcome.score for outcome in outcomes) / len(outcomes) if outcomes else 0.0


def improves(before: Sequence[RolloutOutcome], after: Sequence[RolloutOutcome]) -> bool:
    """Whether the sum of rewards rises, strictly, over the seeds that both have run.

    gepa's own criterion, but for lost rollouts: a server that failed for the parent is no merit of the
    child.
    """
    pairs = [(a, b) for a, b in zip(before, after, strict=True) if not a.is_lost and not b.is_lost]
    return sum(b.score for _, b in pairs) > sum(a.score for a, _ in pairs)


def has_lesson(outcomes: Sequence[RolloutOutcome]) -> bool:
    """Whether some rollout fell short for a reason that one can learn from."""
    return any(outcome.score < 1.0 and not outcome.is_lost for outcome in outcomes)
