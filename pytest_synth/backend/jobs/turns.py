"""The order in which jobs may begin, whichever of them was looked at sooner."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Hashable
from contextlib import asynccontextmanager

Order = tuple[int, int]


class Turns:
    """Jobs that are about to begin; lives on the backend's loop.

    Each asks its task app first whether it is ready. Without turns the one that hears sooner would take all
    places in flight, and the run's first test would wait for the rollouts of its second.
    """

    def __init__(self) -> None:
        self._lines: dict[Hashable, dict[Order, asyncio.Event]] = {}

    @asynccontextmanager
    async def turn(self, line: Hashable, order: Order) -> AsyncIterator[None]:
        """Enter at once; leave after all of the same line that are in and have a lower order.

        Whoever leaves by an exception waits for nobody.
        """
        inside = self._lines.setdefault(line, {})
        inside[order] = left = asyncio.Event()
        try:
            yield
            for before in [event for other, event in inside.items() if other < order]:
                await before.wait()
        finally:
            left.set()
            del inside[order]
            if not inside:
                del self._lines[line]
