"""Why a run ends, and the signal that ends it early."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from typing import Any, Literal, TypeVar

FinishReason = Literal["budget", "generations", "patience", "cost", "time", "perfect", "cancelled", "failing"]
"""Why the search made no more children.

`budget`: no further child could be paid for. `generations`: all were made. `patience`: no better best
for so many generations. `cost`: `max_spend_usd`. `time`: `max_time_seconds`. `perfect`: a candidate has
reward 1 on the whole Pareto set. `cancelled`: the host asked for it. `failing`: too many failures in a
row, or a baseline without a single reward.
"""

T = TypeVar("T")


class StopSignal:
    """Asked once to stop: the search alone, or the whole run; the first reason counts.

    Attributes:
        reason: None while nobody has asked.
        detail: What happened, for people.
    """

    def __init__(self) -> None:
        self.reason: FinishReason | None = None
        self.detail: str | None = None
        self._search = asyncio.Event()
        self._run = asyncio.Event()

    @property
    def ends_search(self) -> bool:
        return self._search.is_set()

    @property
    def ends_run(self) -> bool:
        return self._run.is_set()

    def request(self, reason: FinishReason, detail: str | None = None, *, whole_run: bool) -> None:
        """Stop now: what is in flight is given up. The final check goes on unless the whole run ends."""
        if self.reason is None or (whole_run and not self.ends_run):
            self.reason, self.detail = reason, detail
        self._search.set()
        if whole_run:
            self._run.set()

    async def hold(self, *, is_search: bool) -> None:
        """Let paid work pass while it may still begin; else keep it here until it is given up."""
        if self.ends_run or (is_search and self.ends_search):
            await asyncio.get_running_loop().create_future()

    async def before_search_ends(self, work: Awaitable[T]) -> T | None:
        """Wait for some work, but no longer than the search may last; None if it was given up."""
        return await _race(work, self._search)

    async def before_run_ends(self, work: Awaitable[T]) -> T | None:
        """Wait for some work, but no longer than the run may last; None if it was given up."""
        return await _race(work, self._run)


async def _race(work: Awaitable[T], stop: asyncio.Event) -> T | None:
    task = asyncio.ensure_future(work)
    waiting = asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait({task, waiting}, return_when=asyncio.FIRST_COMPLETED)
        return task.result() if task.done() else None
    finally:
        await end_tasks([waiting, task])


async def end_tasks(tasks: Sequence[asyncio.Future[Any]]) -> None:
    """Cancel what has not ended, and return once all have; what they raise is of no interest any more."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


class FailureStreak:
    """Ends the run when too many of one kind of work fail in a row.

    Args:
        what: Names the work in the reason, in the plural.
    """

    def __init__(self, what: str, limit: int, stop: StopSignal) -> None:
        self._what = what
        self._limit = limit
        self._stop = stop
        self._length = 0

    def success(self) -> None:
        self._length = 0

    def failure(self, reason: str) -> None:
        self._length += 1
        if self._length >= self._limit:
            self._stop.request(
                "failing", f"{self._length} {self._what} failed in a row; the last: {reason}", whole_run=True
            )
