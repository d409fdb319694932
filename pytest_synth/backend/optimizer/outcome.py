"""What a search came to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from pytest_synth.backend.optimizer.plan import Plan
from pytest_synth.backend.optimizer.ports import Purpose
from pytest_synth.backend.optimizer.stopping import FinishReason
from pytest_synth.prompts import Prompt

Fate = Literal["accepted", "rejected", "no_proposal"]


@dataclass(frozen=True)
class CandidateResult:
    """A candidate of the pool, ranked.

    Attributes:
        rank: From 1, by mean reward on the Pareto set; the older of equals first.
        parent_id: None for the baseline.
        reward: Mean over the Pareto set, which the search has optimised: flattering. Lost rollouts
            count 0.
        rewards: By Pareto seed; None where the rollout has no reward.
        is_on_front: Whether no other candidate is better on one of the Pareto seeds.
        changed: Components that differ from the parent's.
    """

    id: str
    rank: int
    prompt: Prompt
    parent_id: str | None
    generation: int
    reward: float
    rewards: Mapping[int, float | None]
    is_on_front: bool
    changed: tuple[str, ...]


@dataclass(frozen=True)
class Attempt:
    """A child, whatever became of it.

    Attributes:
        reason: Why it did not get into the pool; "" if it did.
        lessons, gate: Seeds that it learnt from, and seeds on which it had to beat its parent.
        before, after: Mean reward of parent and child on the gate; None where nothing ran.
        prompt: None if nothing usable was proposed.
    """

    id: str
    parent_id: str
    generation: int
    components: tuple[str, ...]
    lessons: tuple[int, ...]
    gate: tuple[int, ...]
    fate: Fate
    reason: str
    before: float | None
    after: float | None
    prompt: Prompt | None


@dataclass(frozen=True)
class HeldOut:
    """A candidate on the validation seeds, which the search has not seen.

    Attributes:
        rank: Of the candidate; None for the baseline.
        reward: Mean over all validation seeds; None if any has no reward.
        rewards: By seed, of those that have one.
        missing: By seed, why there is none.
    """

    candidate_id: str
    rank: int | None
    reward: float | None
    rewards: Mapping[int, float]
    missing: Mapping[int, str]

    @property
    def is_baseline(self) -> bool:
        return self.rank is None


@dataclass(frozen=True)
class Usage:
    """What a run took. Times are those of this start; numbers are those of the whole run.

    Attributes:
        rollouts: All that were paid for, lost ones included.
        by_purpose: The same, by what they were charged to; one that was lost counts for every child that
            saw it.
        unfinished: Rollouts of children that were given up when the run was stopped.
        sent: Rollouts that this start asked the host for; less than all after a resume.
        replayed: Rollouts that the ledger had.
        reflections: Questions answered, by model or ledger.
        reflection_wait_s: Seconds in which rollouts could not go on because a reflection was awaited.
        utilisation: Share of slot seconds in which a rollout was in flight.
        cost_usd: None if the price of any call is not known.
    """

    rollouts: int
    by_purpose: Mapping[Purpose, int]
    unfinished: int
    sent: int
    replayed: int
    reflections: int
    tokens: int
    cost_usd: float | None
    wall_s: float
    reflection_wait_s: float
    utilisation: float


@dataclass(frozen=True)
class OptimizationOutcome:
    """The end of a run.

    Attributes:
        best: The winner: rank 1; with `validation_top_k` above 1, the best of those on the validation
            seeds. It is the baseline if nothing was better. None only if the baseline could not be scored.
        candidates: The pool, by rank.
        attempts: All children, in order.
        held_out: Baseline first, then by rank; fewer if the run was stopped.
        finish_reason: Why the search ended.
        detail: More about it, for people; always given for `failing`.
    """

    plan: Plan
    finish_reason: FinishReason
    detail: str | None
    best: CandidateResult | None
    candidates: tuple[CandidateResult, ...] = ()
    attempts: tuple[Attempt, ...] = ()
    held_out: tuple[HeldOut, ...] = ()
    usage: Usage = field(kw_only=True)

    @property
    def baseline(self) -> CandidateResult | None:
        return next((c for c in self.candidates if c.parent_id is None), None)

    @property
    def has_failed(self) -> bool:
        return self.finish_reason == "failing"

    @property
    def is_cancelled(self) -> bool:
        return self.finish_reason == "cancelled"

    def held_out_of(self, candidate_id: str) -> HeldOut | None:
        return next((entry for entry in self.held_out if entry.candidate_id == candidate_id), None)

    @property
    def _checked(self) -> str:
        """Held-out rewards of the baseline and the best, as far as they are known."""
        names = dict.fromkeys(c.id for c in (self.baseline, self.best) if c is not None)
        entries = [entry for name in names if (entry := self.held_out_of(name)) is not None]
        rewards = [f"{entry.reward:.2f}" for entry in entries if entry.reward is not None]
        return f" ({' -> '.join(rewards)})" if len(rewards) == len(names) > 0 else ""

    @property
    def text(self) -> str:
        """One line for people: what was done, beside `Plan.text`, and why no more."""
        used, tried = self.usage.by_purpose, [a for a in self.attempts if a.generation > 0]
        founders = [a for a in self.attempts if a.generation == 0]
        parts = [f"baseline {used.get('baseline', 0)}"]
        if founders:
            parts.append(
                f"population {used.get('population', 0)} for {_count(len(founders), 'prompt', 'prompts')}"
            )
        accepted = sum(1 for attempt in tried if attempt.fate == "accepted")
        parts.append(
            f"{_count(len(tried), 'child', 'children')} {used.get('children', 0)} ({accepted} accepted)"
        )
        parts.append(f"final check {used.get('final_check', 0)}{self._checked}")
        if self.usage.unfinished:
            parts.append(f"given up {self.usage.unfinished}")
        return (
            f"{self.usage.rollouts} of {self.plan.budget} rollouts: {', '.join(parts)};"
            f" ended by {self.finish_reason}" + (f" ({self.detail})" if self.detail else "")
        )


def _count(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"
