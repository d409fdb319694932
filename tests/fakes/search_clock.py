"""An event loop on a virtual clock for searches: sleeping takes no time, and what happens when is exact.

Time passes only when nothing else is left to do: no callback is ready, and no worker thread computes.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

from pytest_synth.backend.optimizer.worker import Worker

T = TypeVar("T")


class _Clock(selectors.DefaultSelector):
    """Jumps to the next timer instead of sleeping; while a worker computes, it waits for the worker."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.workers: list[Worker] = []

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout != 0 and any(worker.is_computing for worker in self.workers):
            return super().select(None)
        if timeout is None:
            raise AssertionError("the search waits for something that nothing will do")
        self.now += max(0.0, timeout)
        return super().select(0)


class SearchLoop(asyncio.SelectorEventLoop):
    """Its `time()` starts at 0."""

    def __init__(self) -> None:
        self._clock = _Clock()
        super().__init__(self._clock)

    def time(self) -> float:
        return self._clock.now

    def worker(self) -> Worker:
        """A worker whose computing holds the clock; for `GepaEngine(loop.worker)`."""
        worker = Worker()
        self._clock.workers.append(worker)
        return worker

    def run(self, main: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine to its end and close the loop."""
        with asyncio.Runner(loop_factory=lambda: self) as runner:
            return runner.run(main)
