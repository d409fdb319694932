"""Keeps children in flight and hands them over in order; knows the event loop, not gepa.

gepa decides who is a parent, who gets into the pool and who is on the front. This module decides only
when a child starts, and has its rollouts and its reflection run before gepa asks for them.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence

from pytest_synth.backend.optimizer.batches import Batches
from pytest_synth.backend.optimizer.budget import Budget
from pytest_synth.backend.optimizer.candidates import Batch, Candidate, Child, Keys, has_lesson, improves
from pytest_synth.backend.optimizer.components import Components
from pytest_synth.backend.optimizer.config import GepaConfig
from pytest_synth.backend.optimizer.drawing import draw_components, stream
from pytest_synth.backend.optimizer.evaluations import Evaluations
from pytest_synth.backend.optimizer.feedback import record_of
from pytest_synth.backend.optimizer.ports import Purpose, RolloutKey, RolloutOutcome
from pytest_synth.backend.optimizer.progress import Reporter
from pytest_synth.backend.optimizer.reflection import Proposer
from pytest_synth.backend.optimizer.spending import Spending
from pytest_synth.backend.optimizer.stopping import FinishReason, StopSignal, end_tasks
from pytest_synth.prompts import Prompt

MAX_BARREN = 20  # children in a row without a single paid rollout; else an unbounded run would never end


class Search:
    """The children of a run.

    All methods run on the event loop. The order of calls is gepa's: `next_child`, any number of
    `evaluate`, `settle`, and again.

    Attributes:
        candidates: gepa's pool, in its order.
        attempts: Settled children, in order.
        front: Indices of the candidates that win at least one Pareto seed.
        finish_reason, finish_detail: Why no more children start; None while they may.
    """

    def __init__(
        self,
        config: GepaConfig,
        components: Components,
        *,
        pareto: Sequence[int],
        feedback: Sequence[int],
        evaluations: Evaluations,
        proposer: Proposer,
        budget: Budget,
        spending: Spending,
        stop: StopSignal,
        reporter: Reporter,
    ) -> None:
        self._config = config
        self._components = components
        self._pareto = tuple(pareto)
        self._batches = Batches(config, feedback, self._paid)
        self._messages = stream(config, "messages")
        self._evaluations = evaluations
        self._proposer = proposer
        self._budget = budget
        self._spending = spending
        self._stop = stop
        self._reporter = reporter
        self._live: deque[Child] = deque()
        self._launched = 0
        self._stale_generations = 0
        self._barren = 0
        self._best_before = 0.0
        self.candidates: list[Candidate] = []
        self.attempts: list[Child] = []
        self.front: tuple[int, ...] = (0,)
        self.finish_reason: FinishReason | None = None
        self.finish_detail: str | None = None

    def start(self, baseline: Mapping[int, RolloutOutcome]) -> None:
        """Take in the baseline's rollouts on the Pareto set."""
        self.candidates.append(Candidate(0, 0, self._components.baseline, None, 0, 0, baseline))
        self._best_before = self.best.reward
        if self.best.reward == 1.0:
            self.finish_reason = "perfect"

    @property
    def best(self) -> Candidate:
        """The candidate with the highest mean reward; the oldest of equals."""
        return max(self.candidates, key=lambda candidate: (candidate.reward, -candidate.index))

    @property
    def current(self) -> Child:
        """The child that gepa is looking at."""
        return self._live[0]

    async def next_child(self, select_parent: Callable[[], int]) -> Child | None:
        """Start what may start, and wait for the oldest child in flight; None when the search is over."""
        if not self._stop.ends_search:
            self._launch(select_parent)
        if self._live:
            task = self.current.task
            assert task is not None
            await self._stop.before_search_ends(task)
        if self._live and not self._stop.ends_search:
            return self.current
        await self.abandon()
        return None

    async def evaluate(self, prompt: Prompt, seeds: Sequence[int]) -> list[RolloutOutcome]:
        """Rollouts that gepa asks for; those of the current child are there already."""
        if not self._live:  # gepa starts with the baseline
            assert prompt == self.candidates[0].prompt
            return [self.candidates[0].outcomes[seed] for seed in seeds]
        child = self.current
        if prompt == child.parent.prompt:
            keys = {key.seed: key for key in child.batch.gate}
            return await self._run(child, prompt, tuple(keys[seed] for seed in seeds))
        return await self._run(child, prompt, self._own_keys(child, seeds))

    def proposed_texts(self) -> dict[str, str]:
        """New texts of the current child; none if it has no proposal, or somebody else had it first."""
        child = self.current
        if child.prompt is None:
            return {}
        if any(child.prompt == candidate.prompt for candidate in self.candidates):
            child.reason = "another child proposed the same prompt"
            return {}
        return child.proposal.texts

    async def settle(self, *, is_accepted: bool, front: Sequence[int]) -> None:
        """Count the current child, take it into the pool if gepa did, and see what follows."""
        child = self._live.popleft()
        purpose: Purpose = "population" if child.is_founder else "children"
        paid = self._budget.settle(child.number, purpose, child.seen)
        self._spending.settle((outcome.cost_usd for outcome in paid), child.proposal.costs)
        self.attempts.append(child)
        self._batches.remember(child.seen)
        self._barren = 0 if paid else self._barren + 1
        if is_accepted:
            self._admit(child)
            self.front = tuple(front)
        elif not child.reason:
            child.reason = "it did not beat its parent on the minibatch"
        self._reporter.child_settled(
            child, self.candidates, self.front, self.best, rollouts=self._budget.searched
        )
        self._end_generation(child)
        if self.best.reward == 1.0:
            self._finish("perfect")
        elif self._barren >= MAX_BARREN:
            last = f"; the last: {child.reason}" if child.reason else ""
            self._finish("patience", f"{MAX_BARREN} children in a row found nothing new to try{last}")

    async def abandon(self) -> None:
        """Give up the children in flight."""
        tasks = [child.task for child in self._live if child.task is not None]
        self._live.clear()
        await end_tasks(tasks)

    def end_generation(self) -> None:
        """Report a generation that the end of the search has cut short."""
        if self.attempts and not self._is_last_of_generation(self.attempts[-1]):
            self._report_generation(self.attempts[-1].generation)

    def _finish(self, reason: FinishReason, detail: str | None = None) -> None:
        if self.finish_reason is None:
            self.finish_reason, self.finish_detail = reason, detail

    # Starting children

    def _launch(self, select_parent: Callable[[], int]) -> None:
        while self.finish_reason is None and self._may_follow():
            child = self._make(select_parent)
            if child is None:
                if not self._live:
                    self._finish("budget")
                return
            wanted = self._budget.reserved + child.cost + self._budget.final_check
            if not self._spending.can_afford(wanted, len(self._live) + 1):
                self._finish("cost")
                return
            self._budget.reserve(child.number, child.cost)
            self._batches.take(child.batch)
            self._launched += 1
            self._live.append(child)
            child.task = asyncio.create_task(self._raise(child))
            self._reporter.child_started(child)

    def _may_follow(self) -> bool:
        """Whether the next child may see what is settled by now, or must wait for more."""
        founders, size = self._config.founders, self._config.children_per_generation
        position = self._launched - founders  # among the children of generations, from 0
        if position < 0:
            return True
        most = self._config.max_children
        if most is not None and position >= most:
            if not self._live:
                self._finish("generations")
            return False
        settled = len(self.attempts) - founders
        if self._config.pipeline.mode == "window":
            return settled >= max(0, position - self._config.pipeline.window + 1)
        return settled >= position // size * size

    def _make(self, select_parent: Callable[[], int]) -> Child | None:
        """Choose parent, seeds and messages; None if the worst case cannot be paid yet, or ever."""
        number = self._launched + 1
        is_founder = number <= self._config.founders
        parent = self.candidates[0 if is_founder else select_parent()]
        for batch in self._choices(parent, number, is_founder=is_founder):
            cost = self._budget.unpaid(batch.keys) + len({*batch.seeds, *self._pareto})
            if cost <= self._budget.left:
                return Child(
                    number=number,
                    generation=0 if is_founder else self._generation(number),
                    parent=parent,
                    components=draw_components(
                        self._components.rewritable, self._config.mutation_rate, self._messages
                    ),
                    is_founder=is_founder,
                    batch=batch,
                    sample=2 * number + 1,
                    cost=cost,
                )
        return None

    def _choices(self, parent: Candidate, number: int, *, is_founder: bool) -> Iterable[Batch]:
        if not is_founder:
            return self._batches.for_child(parent, number)
        batch = self._batches.for_founder(parent, number)
        return () if batch is None else (batch,)

    def _generation(self, number: int) -> int:
        return (number - 1 - self._config.founders) // self._config.children_per_generation + 1

    def _paid(self, key: RolloutKey) -> RolloutOutcome | None:
        return self._evaluations.known(key) if self._budget.is_paid(key) else None

    def _own_keys(self, child: Child, seeds: Sequence[int]) -> Keys:
        assert child.prompt is not None
        return tuple(self._batches.key(child.prompt, seed, child.sample) for seed in seeds)

    # One child's way

    async def _raise(self, child: Child) -> None:
        known = {candidate.prompt.fingerprint for candidate in self.candidates}
        child.lessons = await self._run(child, child.parent.prompt, child.batch.lessons)
        child.before = await self._run(child, child.parent.prompt, child.batch.gate)
        if not has_lesson(child.lessons):
            child.reason = "its parent has no failure on the minibatch to learn from"
            return
        records = [record_of(outcome) for outcome in child.lessons if not outcome.is_lost]
        child.proposal = await self._proposer.propose(
            child.number, child.parent.prompt, child.components, records, known
        )
        if not child.proposal.texts:
            child.reason = "; ".join(child.proposal.reasons)
            return
        child.prompt = self._components.replace(child.parent.prompt, child.proposal.texts)
        pareto = self._own_keys(child, self._pareto)
        if child.is_founder:
            await self._run(child, child.prompt, pareto)
        child.after = await self._run(child, child.prompt, self._own_keys(child, child.batch.seeds))
        child.is_better = improves(child.before, child.after)
        if child.is_better:
            await self._run(child, child.prompt, pareto)

    async def _run(self, child: Child, prompt: Prompt, keys: Keys) -> list[RolloutOutcome]:
        """Rollouts of a child; what it has seen once, lost ones included, is not run again."""
        missing = [key for key in keys if key not in child.seen]
        if missing:
            purpose: Purpose = "population" if child.is_founder else "children"
            child.seen.update(
                await self._evaluations.outcomes(prompt, missing, purpose=purpose, urgency=child.stage)
            )
        return [child.seen[key] for key in keys]

    # After a child

    def _admit(self, child: Child) -> None:
        assert child.prompt is not None
        seen = {key.seed: child.seen[key] for key in self._own_keys(child, self._pareto)}
        self.candidates.append(
            Candidate(
                index=len(self.candidates),
                number=child.number,
                prompt=child.prompt,
                parent=child.parent.index,
                generation=child.generation,
                sample=child.sample,
                outcomes=seen,
                changed=tuple(child.proposal.texts),
            )
        )
        child.reason = ""

    def _is_last_of_generation(self, child: Child) -> bool:
        position = child.number - self._config.founders
        return position == 0 or (position > 0 and position % self._config.children_per_generation == 0)

    def _report_generation(self, generation: int) -> None:
        self._reporter.generation_ended(generation, self.attempts, self.candidates, self.best)

    def _end_generation(self, child: Child) -> None:
        """Report a generation whose last child has settled, and lose patience if it brought nothing."""
        if not self._is_last_of_generation(child):
            return
        self._report_generation(child.generation)
        is_better = self.best.reward > self._best_before
        self._best_before = self.best.reward
        if child.generation == 0:
            return
        self._stale_generations = 0 if is_better else self._stale_generations + 1
        patience = self._config.patience
        if patience is not None and self._stale_generations >= patience:
            self._finish("patience", f"{patience} generations in a row brought nothing better")
