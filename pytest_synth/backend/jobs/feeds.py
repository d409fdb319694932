"""Events of a job as they come: all from the start, then each new one, until the job's end is told."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from pytest_synth.backend.store import JobRecord, Store

LINGER_S = 5.0  # published clients ask for the status every 2 s while they stream; busy machines add to it
SUCCESS_S = 0.5  # enough for them to hand on what came before, and short beside those 2 s
KEEP_ALIVE_S = 15.0  # proxies cut connections that are silent for a minute or so
_PAGE = 500
_LAST = re.compile(r"\.job\.(completed|failed|cancelled)$")
_SUCCESS_OF_SEARCH = re.compile(r"^learning\..*\.job\.completed$")

monotonic = time.monotonic  # taken at import: a clock frozen by a test must not hold streams open


class Feeds:
    """Follows the events of jobs; lives on the backend's loop.

    Args:
        linger_s: For readers without a cursor: how long after a job's end its last event is held back.
    """

    def __init__(self, store: Store, *, linger_s: float = LINGER_S) -> None:
        self._store = store
        self._linger_s = linger_s
        self._waiting: dict[int, set[asyncio.Event]] = {}
        store.events.listen(self._wake)

    def _wake(self, number: int) -> None:
        for event in self._waiting.get(number, ()):
            event.set()

    @contextmanager
    def _wakeups(self, number: int) -> Iterator[asyncio.Event]:
        event = asyncio.Event()
        self._waiting.setdefault(number, set()).add(event)
        try:
            yield event
        finally:
            self._waiting[number].discard(event)
            if not self._waiting[number]:
                del self._waiting[number]

    async def follow(self, job: JobRecord, *, since_seq: int | None) -> AsyncIterator[dict[str, Any] | None]:
        """Give the events after `since_seq` as they come; None now and then, while nothing comes.

        With a cursor it ends with the job's last event. Without one it is for published clients, which
        take the state of a stream's last event for the job's own and misread it, and lose the reason of a
        failure, unless they have seen the status first: the last event is held back until they have. A
        search's success is the one end that they read right; but with it they drop all events that they have
        not handed on yet. So those who followed the job get it after a moment; who comes later has all
        events at once to hand on, and gets it as late as any other end.
        """
        end = _End(self._linger_s if since_seq is None else 0.0, monotonic())
        cursor = since_seq or 0
        with self._wakeups(job.number) as wakeup:
            while True:
                wakeup.clear()
                # The status is read before the events: where it says the end, they are complete.
                now = self._store.jobs.get(job.number)
                page = self._store.events.after(job.number, job.id, since_seq=cursor, limit=_PAGE)
                for event in page:
                    if _LAST.search(event["type"]):
                        await asyncio.sleep(end.left_s(now, event["type"]))
                    yield event
                    cursor = event["seq"]
                    # Nothing else waits in a replay: others' turn, and how a lost reader is noticed.
                    await asyncio.sleep(0)
                if len(page) == _PAGE:
                    continue
                if now.status.is_terminal:
                    return
                try:
                    async with asyncio.timeout(KEEP_ALIVE_S):
                        await wakeup.wait()
                except TimeoutError:
                    yield None


@dataclass(frozen=True)
class _End:
    """When a reader may hear of a job's end: so long after it, and after the reader has come."""

    linger_s: float
    came_at: float
    wall: Callable[[], float] = time.time

    def left_s(self, job: JobRecord, event_type: str) -> float:
        since_end = 0.0 if job.completed_at is None else max(0.0, self.wall() - job.completed_at)
        is_here = monotonic() - self.came_at
        held_s = self.linger_s
        if _SUCCESS_OF_SEARCH.match(event_type) and is_here > since_end:
            held_s = min(held_s, SUCCESS_S)
        return max(0.0, held_s - min(since_end, is_here))
