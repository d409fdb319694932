"""An event loop whose clock jumps to the next timer: hours pass in no time, and in the right order."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

_T = TypeVar("_T")


class _JumpingSelector(selectors.DefaultSelector):
    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise AssertionError("the test waits for something that nothing will do")
        self.now += max(0.0, timeout)
        return super().select(0)


class VirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._selector_of_ours = _JumpingSelector()
        super().__init__(self._selector_of_ours)

    def time(self) -> float:
        return self._selector_of_ours.now


def run_virtual(coroutine: Coroutine[Any, Any, _T]) -> tuple[_T, float]:
    """Run a coroutine; return its result and the seconds that passed on the loop's clock."""
    loop = VirtualLoop()
    try:
        return loop.run_until_complete(coroutine), loop.time()
    finally:
        loop.close()
