"""One scheduler for all rollouts of the backend: who may start next, and never more than the limit.

Between keys the one with the fewest rollouts in flight is served first, and among equals the one that
has waited longest: two busy keys share the limit half and half. Within a key, jobs are served by their
position in the run, then in order of submission; a job that has nothing left to start, or as many in
flight as it allows itself, passes its turn on. Knows nothing of HTTP, of stores, of rewards.
"""

from __future__ import annotations

import asyncio
from bisect import insort
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

Start = Callable[[], Awaitable[Any]]  # what a unit returns is its submitter's business


@dataclass(eq=False)
class _Unit:
    start: Start
    future: asyncio.Future[Any]


class Lane:
    """The queue of one job. Made by `Scheduler.lane`.

    Attributes:
        tenant: Whose job it is.
        order: (position in the run, number of submission); lower ones are served first.
        limit: Most units of this job in flight.
    """

    def __init__(self, scheduler: Scheduler, tenant: str, order: tuple[int, int], limit: int) -> None:
        self.tenant = tenant
        self.order = order
        self.limit = limit
        self._scheduler = scheduler
        self._waiting: deque[_Unit] = deque()
        self._running: set[asyncio.Task[Any]] = set()
        self._closed = False
        self._held = False

    def __lt__(self, other: Lane) -> bool:
        return self.order < other.order

    @property
    def in_flight(self) -> int:
        return len(self._running)

    @property
    def is_startable(self) -> bool:
        return bool(self._waiting) and not self._held and len(self._running) < self.limit

    def submit(self, start: Start) -> asyncio.Future[Any]:
        """Queue a unit of work; the future gives its result, or is cancelled with the lane.

        Cancelling the future takes the unit out of the queue, or cuts it if it runs.
        """
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        if self._closed:
            future.cancel()
            return future
        self._waiting.append(_Unit(start, future))
        self._scheduler.fill()
        return future

    def hold(self) -> None:
        """Start nothing more; what waits goes on waiting, for `cancel`."""
        self._held = True

    async def cancel(self) -> None:
        """Start nothing more, cut what is in flight, and return once it has ended."""
        self._closed = True
        self._scheduler.drop(self)
        while self._waiting:
            self._waiting.popleft().future.cancel()
        running = set(self._running)
        for task in running:
            task.cancel()
        if running:
            await asyncio.wait(running)

    def take(self, finished: Callable[[asyncio.Task[Any]], None]) -> None:
        """Start the next unit that still has somebody waiting for it."""
        while self._waiting:
            unit = self._waiting.popleft()
            if unit.future.cancelled():
                continue
            task = asyncio.ensure_future(_run(unit))
            self._running.add(task)
            task.add_done_callback(self._running.discard)
            # A task that is cancelled before its first step never gets to its own `except`.
            task.add_done_callback(lambda _, future=unit.future: future.cancel())  # type: ignore[misc]
            unit.future.add_done_callback(lambda _, task=task: task.cancel())  # type: ignore[misc]
            task.add_done_callback(finished)
            return


async def _run(unit: _Unit) -> None:
    """Run a unit; its outcome goes to the future, never out of the task."""
    try:
        result = await unit.start()
    except asyncio.CancelledError:
        unit.future.cancel()
    except Exception as error:
        if not unit.future.done():
            unit.future.set_exception(error)
    else:
        if not unit.future.done():
            unit.future.set_result(result)


class Scheduler:
    """Starts units of all lanes, at most `limit` at once. Lives on one event loop."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._lanes: dict[str, list[Lane]] = {}
        self._in_flight: dict[str, int] = {}
        self._served: dict[str, int] = {}
        self._turn = 0

    @property
    def in_flight(self) -> int:
        return sum(self._in_flight.values())

    def lane(self, tenant: str, order: tuple[int, int], *, limit: int) -> Lane:
        """Open the queue of a job; the caller ends it with `await lane.cancel()`."""
        lane = Lane(self, tenant, order, limit)
        insort(self._lanes.setdefault(tenant, []), lane)
        return lane

    def drop(self, lane: Lane) -> None:
        """Forget a lane that has ended."""
        lanes = self._lanes.get(lane.tenant, [])
        if lane in lanes:
            lanes.remove(lane)
        if not lanes:
            self._lanes.pop(lane.tenant, None)
            self._served.pop(lane.tenant, None)

    def fill(self) -> None:
        """Start what may start."""
        while self.in_flight < self.limit:
            lane = self._next()
            if lane is None:
                return
            self._turn += 1
            self._served[lane.tenant] = self._turn
            before = lane.in_flight
            lane.take(lambda _, tenant=lane.tenant: self._ended(tenant))  # type: ignore[misc]
            if lane.in_flight > before:
                self._in_flight[lane.tenant] = self._in_flight.get(lane.tenant, 0) + 1

    def _next(self) -> Lane | None:
        tenants = sorted(
            self._lanes, key=lambda tenant: (self._in_flight.get(tenant, 0), self._served.get(tenant, 0))
        )
        for tenant in tenants:
            for lane in self._lanes[tenant]:
                if lane.is_startable:
                    return lane
        return None

    def _ended(self, tenant: str) -> None:
        left = self._in_flight[tenant] - 1
        if left:
            self._in_flight[tenant] = left
        else:
            del self._in_flight[tenant]
        self.fill()
