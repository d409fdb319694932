"""Runs each rollout of a run once: known ones come from memory or the ledger, the others are paid."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from pytest_synth.backend.optimizer.pool import Slots
from pytest_synth.backend.optimizer.ports import Host, Purpose, RolloutKey, RolloutOutcome, RolloutRequest
from pytest_synth.backend.optimizer.spending import Spending
from pytest_synth.backend.optimizer.stopping import FailureStreak, StopSignal, end_tasks
from pytest_synth.prompts import Prompt


class Evaluations:
    """All rollouts of a run, by key.

    Whoever asks for a key first starts it; others wait for the same one. A rollout that the
    infrastructure lost is forgotten, so that it is tried again when it is next asked for.

    Attributes:
        sent: Rollouts that the host was asked for, lost ones included.
        replayed: Rollouts that the ledger had.
        finished: Both, once they have ended.
        tokens: Of all of them.
    """

    def __init__(
        self,
        host: Host,
        slots: Slots,
        streak: FailureStreak,
        stop: StopSignal,
        spending: Spending,
        *,
        limit: int,
        on_finished: Callable[[], None],
    ) -> None:
        self._host = host
        self._slots = slots
        self._streak = streak
        self._stop = stop
        self._spending = spending
        self._limit = limit
        self._on_finished = on_finished
        self._tasks: dict[RolloutKey, asyncio.Task[RolloutOutcome]] = {}
        self._purposes: dict[RolloutKey, Purpose] = {}
        self.sent = 0
        self.replayed = 0
        self.finished = 0
        self.tokens = 0

    @property
    def paid(self) -> int:
        """Rollouts of the run, those of its earlier starts included."""
        return self.sent + self.replayed

    async def outcomes(
        self,
        prompt: Prompt,
        keys: Sequence[RolloutKey],
        *,
        purpose: Purpose,
        urgency: int,
    ) -> dict[RolloutKey, RolloutOutcome]:
        """Run a prompt; the result is in the order of the keys."""
        tasks = [self._task(RolloutRequest(key, prompt, purpose), urgency) for key in keys]
        return dict(zip(keys, await asyncio.gather(*map(asyncio.shield, tasks)), strict=True))

    def known(self, key: RolloutKey) -> RolloutOutcome | None:
        """The outcome of a rollout that has ended with one."""
        task = self._tasks.get(key)
        return task.result() if task is not None and task.done() and not task.cancelled() else None

    async def abandon(self, *, keep: Purpose | None = None) -> None:
        """Give up what is in flight, but for one purpose; finished rollouts stay known."""
        given_up = [
            key
            for key, task in self._tasks.items()
            if not task.done() and (keep is None or self._purposes[key] != keep)
        ]
        await end_tasks([self._tasks.pop(key) for key in given_up])

    def _task(self, request: RolloutRequest, urgency: int) -> asyncio.Task[RolloutOutcome]:
        task = self._tasks.get(request.key)
        if task is None:
            task = asyncio.create_task(self._run(request, urgency))
            self._tasks[request.key] = task
            self._purposes[request.key] = request.purpose
        return task

    async def _run(self, request: RolloutRequest, urgency: int) -> RolloutOutcome:
        known = self._host.ledger.find_rollout(request.key)
        outcome = known if known is not None else await self._send(request, urgency)
        self.finished += 1
        self.tokens += outcome.tokens
        self._spending.add(outcome.cost_usd)
        if known is not None:
            self.replayed += 1
        elif outcome.is_lost:
            self._tasks.pop(request.key, None)
            self._host.ledger.add_lost_rollout()
            self._streak.failure(outcome.error or "")
        else:
            self._streak.success()
            self._host.ledger.add_rollout(request.key, outcome)
        self._on_finished()
        return outcome

    async def _send(self, request: RolloutRequest, urgency: int) -> RolloutOutcome:
        async with self._slots.slot(urgency):
            self._spending.check()
            await self._stop.hold(is_search=request.purpose != "final_check")
            # Reservations make this impossible; it is the last lock on the user's money.
            assert self.paid < self._limit, f"rollout {self.paid + 1} would break the budget {self._limit}"
            self.sent += 1
            return await self._host.rollouts.rollout(request)
