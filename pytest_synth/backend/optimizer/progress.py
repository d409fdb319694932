"""Tells the host how a run goes on: the search's milestones, and now and then its progress."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from pytest_synth.backend.optimizer import events
from pytest_synth.backend.optimizer.candidates import Candidate, Child
from pytest_synth.backend.optimizer.outcome import CandidateResult, HeldOut, OptimizationOutcome
from pytest_synth.backend.optimizer.plan import Plan
from pytest_synth.backend.optimizer.ports import Emit

PROGRESS_S = 1.0  # seconds between two progress events; people read them, not programs
HEARTBEAT_S = 30  # what `job.started` tells readers of streams; the host keeps streams alive


@dataclass(frozen=True)
class Snapshot:
    """Numbers of a running search."""

    rollouts: int
    tokens: int
    cost_usd: float | None
    reflection_wait_s: float


class Reporter:
    """Emits the events of one run.

    Milestones (all events but `job.progress`) come in the same order in every run with the same config
    and rewards. So a run that is resumed skips as many of them as were emitted before.
    """

    def __init__(
        self, emit: Emit, plan: Plan, snapshot: Callable[[], Snapshot], *, already_emitted: int
    ) -> None:
        self._emit = emit
        self._plan = plan
        self._snapshot = snapshot
        self._to_skip = already_emitted
        self._started = asyncio.get_running_loop().time()
        self._last_progress = self._started
        self._phase = "pending"
        self._generation = 0
        self._children = 0
        self._best: Candidate | None = None
        self._baseline: Candidate | None = None
        self._front: tuple[int, ...] = (0,)

    def started(self) -> None:
        self._milestone(
            "job.started",
            {
                "cursor": 0,
                "heartbeat_interval_seconds": HEARTBEAT_S,
                "plan": self._plan.to_document(),
                "not_applied": list(self._plan.not_applied),
            },
        )
        self._enter("baseline")

    def baseline_scored(self, baseline: Candidate) -> None:
        self._baseline = self._best = baseline
        self._milestone("candidate.evaluated", events.baseline_evaluated(baseline))

    def child_started(self, child: Child) -> None:
        self._enter("population" if child.is_founder else "search")
        if child.generation > self._generation:
            self._generation = child.generation
            self._milestone("generation.started", {"generation": child.generation})
        self._milestone(
            "candidate.started",
            {
                "candidate_id": child.id,
                "parent_id": child.parent.id,
                "generation": child.generation,
                "components": list(child.components),
                "train_seeds": [key.seed for key in child.batch.lessons],
            },
        )

    def child_settled(
        self,
        child: Child,
        candidates: Sequence[Candidate],
        front: tuple[int, ...],
        best: Candidate,
        *,
        rollouts: int,
    ) -> None:
        """A child was accepted or rejected, when the search had used so many rollouts."""
        self._children += 1
        newest = candidates[-1]
        accepted = newest if newest.number == child.number else None
        if child.prompt is not None:
            is_on_front = accepted is not None and accepted.index in front
            data = events.child_evaluated(child, accepted, is_on_front=is_on_front)
            self._milestone("candidate.evaluated", {**data, "rollouts_used": rollouts})
        if accepted is not None:
            self._front_changed(candidates, front, best)
        if self._best is not None and best.index != self._best.index:
            self._milestone("candidate.new_best", events.new_best(best, self._best.reward))
            self._best = best
        self.progressed()

    def generation_ended(
        self, generation: int, attempts: Sequence[Child], candidates: Sequence[Candidate], best: Candidate
    ) -> None:
        members = [child for child in attempts if child.generation == generation]
        proposed = [child for child in members if child.prompt is not None]
        admitted = [c for c in candidates if c.generation == generation and c.parent is not None]
        self._milestone(
            "generation.completed",
            {
                "generation": generation,
                "best_accuracy": best.reward,
                "best_reward": best.reward,
                "children": len(members),
                "candidates_proposed": len(proposed),
                "candidates_accepted": len(admitted),
            },
        )

    def checking(self, seeds: Sequence[int], candidates: Sequence[CandidateResult]) -> None:
        self._enter("validation")
        self._milestone(
            "validation.started",
            {"seeds": list(seeds), "candidates": [candidate.id for candidate in candidates]},
        )

    def checked(self, entry: HeldOut) -> None:
        kind = "validation.completed" if entry.reward is not None else "validation.failed"
        self._milestone(kind, events.validated(entry))

    def ended(self, outcome: OptimizationOutcome) -> None:
        """The last events. A cancelled run has no terminal one: the wire knows none."""
        best = outcome.best
        if best is not None and self._best is not None and best.id != self._best.id:
            chosen = {**events.ranked(best, outcome.held_out_of(best.id)), "best_score": best.reward}
            self._milestone("candidate.new_best", {**chosen, "best_prompt": events.wire_prompt(best.prompt)})
        for candidate in outcome.candidates:
            self._milestone(
                "candidate.evaluated", events.ranked(candidate, outcome.held_out_of(candidate.id))
            )
        self.progressed(at_once=True)
        if outcome.has_failed:
            self._milestone("job.failed", {"error": outcome.detail or "failing", **events.ending(outcome)})
        elif not outcome.is_cancelled:
            self._milestone("job.completed", events.completed(outcome))

    def progressed(self, *, at_once: bool = False) -> None:
        """Something has moved; says so at most once in `PROGRESS_S`."""
        now = asyncio.get_running_loop().time()
        if not at_once and now - self._last_progress < PROGRESS_S:
            return
        self._last_progress = now
        snapshot, total = self._snapshot(), self._plan.budget
        elapsed = now - self._started
        done = min(snapshot.rollouts, total)
        eta = elapsed / done * (total - done) if done else None
        wanted = self._plan.children_wanted
        children = self._plan.children_max if wanted is None else wanted
        self._emit(
            events.PROGRESS,
            {
                "phase": self._phase,
                "generation": self._generation,
                "rollouts_completed": snapshot.rollouts,
                "rollouts_total": total,
                "percent_overall": round(done / total, 3),  # a share: the published client multiplies it
                "transformations_tried": self._children,
                "transformations_planned": self._plan.founders + children,
                "elapsed_seconds": round(elapsed, 3),
                "eta_seconds": None if eta is None else round(eta, 3),
                "rollout_tokens_used": snapshot.tokens,
                "best_score": None if self._best is None else self._best.reward,
                "baseline_score": None if self._baseline is None else self._baseline.reward,
                "cost_usd": snapshot.cost_usd,
                "reflection_wait_seconds": round(snapshot.reflection_wait_s, 3),
            },
        )

    def _front_changed(
        self, candidates: Sequence[Candidate], front: tuple[int, ...], best: Candidate
    ) -> None:
        if front == self._front:
            return
        names = {candidate.index: candidate.id for candidate in candidates}
        before, self._front = self._front, front
        self._milestone(
            "frontier.updated",
            {
                "frontier": [names[index] for index in front],
                "added": [names[index] for index in front if index not in before],
                "removed": [names[index] for index in before if index not in front],
                "frontier_size": len(front),
                "frontier_scores": {names[index]: candidates[index].reward for index in front},
                "best_score": best.reward,
            },
        )

    def _enter(self, phase: str) -> None:
        if phase != self._phase:
            self._milestone("phase.started", {"from_phase": self._phase, "to_phase": phase})
            self._phase = phase

    def _milestone(self, name: str, data: dict[str, Any]) -> None:
        if self._to_skip:
            self._to_skip -= 1
        else:
            self._emit(events.PREFIX + name, data)
