"""One run of a search, from the baseline to the final check."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import get_args

from pytest_synth.backend.optimizer.budget import Budget
from pytest_synth.backend.optimizer.candidates import Candidate, Child, mean
from pytest_synth.backend.optimizer.components import Components
from pytest_synth.backend.optimizer.config import MAX_FAILED_REFLECTIONS, GepaConfig
from pytest_synth.backend.optimizer.drawing import draw_pareto_set
from pytest_synth.backend.optimizer.evaluations import Evaluations
from pytest_synth.backend.optimizer.final_check import FinalCheck
from pytest_synth.backend.optimizer.outcome import (
    Attempt,
    CandidateResult,
    HeldOut,
    OptimizationOutcome,
    Usage,
)
from pytest_synth.backend.optimizer.plan import Plan
from pytest_synth.backend.optimizer.pool import Slots, UsageMeter
from pytest_synth.backend.optimizer.ports import Host, Purpose, RolloutKey
from pytest_synth.backend.optimizer.progress import Reporter, Snapshot
from pytest_synth.backend.optimizer.reflection import Proposer
from pytest_synth.backend.optimizer.seams import run_gepa
from pytest_synth.backend.optimizer.search import Search
from pytest_synth.backend.optimizer.spending import Spending
from pytest_synth.backend.optimizer.stopping import FailureStreak, StopSignal, end_tasks
from pytest_synth.backend.optimizer.worker import Worker


class SearchRun:
    """Holds the parts of one run together. Made on the event loop that it runs on."""

    def __init__(
        self, config: GepaConfig, plan: Plan, host: Host, worker: Worker, *, already_emitted: int
    ) -> None:
        # Founders that cannot be paid for are left out, as the plan says; what is left goes to children.
        self._config = config = replace(config, initial_size=1 + plan.founders)
        self._plan = plan
        self._worker = worker
        self._meter = UsageMeter()
        self._started = asyncio.get_running_loop().time()
        self._pareto, self._feedback = draw_pareto_set(config)
        components = Components(config.prompt, config.rewritten)
        self._components = components
        self._stop = StopSignal()
        self._reporter = Reporter(host.emit, plan, self._snapshot, already_emitted=already_emitted)
        self._spending = Spending(config.max_spend_usd, self._stop)
        limit = plan.budget - host.ledger.lost_rollouts
        self._budget = Budget(limit, plan.final_check)
        self._evaluations = Evaluations(
            host,
            Slots(config.max_concurrent, self._meter),
            FailureStreak("rollouts", config.max_failures, self._stop),
            self._stop,
            self._spending,
            limit=limit,
            on_finished=self._reporter.progressed,
        )
        self._proposer = Proposer(
            config,
            components,
            host,
            meter=self._meter,
            streak=FailureStreak("reflections", MAX_FAILED_REFLECTIONS, self._stop),
            spending=self._spending,
            stop=self._stop,
        )
        self._search = Search(
            config,
            components,
            pareto=self._pareto,
            feedback=self._feedback,
            evaluations=self._evaluations,
            proposer=self._proposer,
            budget=self._budget,
            spending=self._spending,
            stop=self._stop,
            reporter=self._reporter,
        )
        self._check = FinalCheck(config, self._evaluations, self._budget, self._stop, self._reporter)

    async def finish(self, cancel: asyncio.Event) -> OptimizationOutcome:
        """Run to the end and say what came of it."""
        watchers = [asyncio.create_task(self._watch_cancel(cancel))]
        if self._config.max_time_s is not None:
            watchers.append(asyncio.create_task(self._watch_time(self._config.max_time_s)))
        try:
            self._reporter.started()
            if await self._score_baseline():
                await self._breed()
            outcome = await self._conclude()
        finally:
            await end_tasks(watchers)
            await self._search.abandon()
            await self._check.close()
            await self._evaluations.abandon()
        self._reporter.ended(outcome)
        return outcome

    async def _watch_cancel(self, cancel: asyncio.Event) -> None:
        await cancel.wait()
        self._stop.request("cancelled", whole_run=True)

    async def _watch_time(self, limit_s: float) -> None:
        await asyncio.sleep(limit_s)
        self._stop.request("time", f"{limit_s:g} s have passed", whole_run=False)

    async def _score_baseline(self) -> bool:
        """Score the baseline on the Pareto set; False if the search cannot start from it."""
        if self._budget.left < self._plan.baseline:
            self._stop.request(
                "failing",
                f"earlier starts lost {self._plan.budget - self._budget.limit} of {self._plan.budget}"
                " rollouts; the rest does not pay for the baseline and the final check",
                whole_run=True,
            )
            return False
        scored = asyncio.ensure_future(
            self._evaluations.outcomes(
                self._config.prompt,
                [
                    RolloutKey(self._config.prompt.fingerprint, self._config.task.split, seed, 0)
                    for seed in self._pareto
                ],
                purpose="baseline",
                urgency=0,
            )
        )
        self._check.start_baseline()
        outcomes = await self._stop.before_run_ends(scored)
        if outcomes is None:
            return False
        self._budget.pay("baseline", outcomes)
        self._spending.settle((outcome.cost_usd for outcome in outcomes.values()), ())
        if all(outcome.reward is None for outcome in outcomes.values()):
            error = next(iter(outcomes.values())).error
            self._stop.request("failing", f"no rollout of the baseline has a reward: {error}", whole_run=True)
            return False
        self._search.start({key.seed: outcome for key, outcome in outcomes.items()})
        self._reporter.baseline_scored(self._search.best)
        return not self._stop.ends_search

    async def _breed(self) -> None:
        if self._search.finish_reason is not None:
            return
        await self._worker.run(
            lambda: run_gepa(
                self._config,
                self._components,
                self._search,
                self._worker,
                pareto=self._pareto,
                feedback=self._feedback,
            )
        )

    async def _conclude(self) -> OptimizationOutcome:
        """Rank the pool, check the best on held-out seeds, and count what it took."""
        await self._search.abandon()
        await self._evaluations.abandon(keep="final_check")
        self._search.end_generation()
        ranked = self._ranked()
        held_out: tuple[HeldOut, ...] = ()
        if ranked and not self._stop.ends_run:
            others = [candidate for candidate in ranked if candidate.parent_id is not None]
            held_out = await self._check.run(tuple(others[: self._config.validation_top_k]))
        reason, detail = self._stop.reason, self._stop.detail
        if reason is None:
            reason, detail = self._search.finish_reason, self._search.finish_detail
        assert reason is not None, "a search ends for a reason"
        return OptimizationOutcome(
            plan=self._plan,
            finish_reason=reason,
            detail=detail,
            best=_best(ranked, held_out),
            candidates=ranked,
            attempts=tuple(_attempt(child, self._accepted) for child in self._search.attempts),
            held_out=held_out,
            usage=self._usage(),
        )

    @property
    def _accepted(self) -> frozenset[int]:
        return frozenset(candidate.number for candidate in self._search.candidates)

    def _ranked(self) -> tuple[CandidateResult, ...]:
        pool = self._search.candidates
        order = sorted(pool, key=lambda candidate: (-candidate.reward, candidate.index))
        return tuple(_result(c, rank, pool, self._search.front) for rank, c in enumerate(order, 1))

    def _snapshot(self) -> Snapshot:
        return Snapshot(
            rollouts=self._evaluations.finished,
            tokens=self._evaluations.tokens,
            cost_usd=self._spending.total_usd,
            reflection_wait_s=self._meter.reflection_wait_s,
        )

    def _usage(self) -> Usage:
        wall = asyncio.get_running_loop().time() - self._started
        used = self._budget.used
        return Usage(
            rollouts=self._evaluations.paid,
            by_purpose={purpose: used[purpose] for purpose in get_args(Purpose) if used[purpose]},
            unfinished=max(0, self._evaluations.paid - used.total()),
            sent=self._evaluations.sent,
            replayed=self._evaluations.replayed,
            reflections=self._proposer.asked + self._proposer.replayed,
            tokens=self._evaluations.tokens,
            cost_usd=self._spending.total_usd,
            wall_s=wall,
            reflection_wait_s=self._meter.reflection_wait_s,
            utilisation=self._meter.busy_s / (wall * self._config.max_concurrent) if wall else 0.0,
        )


def _best(ranked: tuple[CandidateResult, ...], held_out: tuple[HeldOut, ...]) -> CandidateResult | None:
    """Rank 1, or the best on the validation seeds of several that were checked; never by them alone.

    Where the baseline has rank 1, nothing found was better, and the check does not overrule that.
    """
    if not ranked or ranked[0].parent_id is None:
        return ranked[0] if ranked else None
    scores = {entry.candidate_id: entry.reward for entry in held_out if not entry.is_baseline}
    checked = [candidate for candidate in ranked if scores.get(candidate.id) is not None]
    return max(checked, key=lambda c: (scores[c.id], -c.rank), default=ranked[0])


def _result(
    candidate: Candidate, rank: int, pool: list[Candidate], front: tuple[int, ...]
) -> CandidateResult:
    return CandidateResult(
        id=candidate.id,
        rank=rank,
        prompt=candidate.prompt,
        parent_id=None if candidate.parent is None else pool[candidate.parent].id,
        generation=candidate.generation,
        reward=candidate.reward,
        rewards={seed: outcome.reward for seed, outcome in candidate.outcomes.items()},
        is_on_front=candidate.index in front,
        changed=candidate.changed,
    )


def _attempt(child: Child, accepted: frozenset[int]) -> Attempt:
    return Attempt(
        id=child.id,
        parent_id=child.parent.id,
        generation=child.generation,
        components=child.components,
        lessons=tuple(key.seed for key in child.batch.lessons),
        gate=child.batch.seeds,
        fate="accepted" if child.number in accepted else "rejected" if child.after else "no_proposal",
        reason=child.reason,
        before=mean(child.before) if child.before else None,
        after=mean(child.after) if child.after else None,
        prompt=child.prompt,
    )
