"""Slots for rollouts, given to the most urgent, and a meter of how well they are used."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from itertools import count


class UsageMeter:
    """Measures on the loop's clock.

    Attributes:
        busy_s: Seconds that slots were taken, summed over slots.
        reflection_wait_s: Seconds in which no rollout was in flight, and a reflection was: time that a
            faster reflection model would save.
    """

    def __init__(self) -> None:
        self.busy_s = 0.0
        self.reflection_wait_s = 0.0
        self._rollouts = 0
        self._reflections = 0
        self._since = 0.0

    @contextmanager
    def rollout(self) -> Iterator[None]:
        self._tick()
        self._rollouts += 1
        try:
            yield
        finally:
            self._tick()
            self._rollouts -= 1

    @contextmanager
    def reflection(self) -> Iterator[None]:
        self._tick()
        self._reflections += 1
        try:
            yield
        finally:
            self._tick()
            self._reflections -= 1

    def _tick(self) -> None:
        now = asyncio.get_running_loop().time()
        passed = now - self._since
        self.busy_s += passed * self._rollouts
        if self._reflections and not self._rollouts:
            self.reflection_wait_s += passed
        self._since = now


class Slots:
    """A semaphore that serves the lowest urgency number first, and equals in order of arrival.

    Older children go first, so that a generation ends early; the baseline's final check only fills what
    would be idle.
    """

    def __init__(self, limit: int, meter: UsageMeter) -> None:
        self._free = limit
        self._meter = meter
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []
        self._arrival = count()

    @asynccontextmanager
    async def slot(self, urgency: int) -> AsyncIterator[None]:
        await self._take(urgency)
        try:
            with self._meter.rollout():
                yield
        finally:
            self._give_back()

    async def _take(self, urgency: int) -> None:
        if self._free:
            self._free -= 1
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (urgency, next(self._arrival), turn))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():  # it was our turn already: pass it on
                self._give_back()
            raise

    def _give_back(self) -> None:
        while self._waiting:
            turn = heapq.heappop(self._waiting)[2]
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1
