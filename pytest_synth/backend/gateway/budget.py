"""A ceiling on spending that no call can cross: each reserves its worst case before it starts."""

from __future__ import annotations

import asyncio


class BudgetExhausted(Exception):
    """A call could cross the ceiling, so it was not made; the message tells limit, spent and worst case."""


class Budget:
    """US dollars that calls may spend. One loop only.

    Args:
        limit_usd: The ceiling.
        spent_usd: What was spent before, by a job that goes on.
        name: What the user knows the ceiling as, for messages.
        parent: A wider ceiling that the same calls count against.
    """

    def __init__(
        self,
        limit_usd: float,
        *,
        spent_usd: float = 0.0,
        name: str = "max_cost",
        parent: Budget | None = None,
    ) -> None:
        self.limit_usd = limit_usd
        self.spent_usd = spent_usd
        self.name = name
        self._parent = parent
        self._reserved = 0.0
        self._waiting: set[asyncio.Future[None]] = set() if parent is None else parent._waiting

    async def reserve(self, worst_usd: float) -> None:
        """Set the worst case of a call aside; waits while calls in flight may still leave room for it.

        Raises:
            BudgetExhausted: If it cannot fit any more, however the calls in flight end.
        """
        while True:
            chain = self._chain()
            for budget in chain:
                if budget._exceeds(budget.spent_usd + worst_usd):
                    raise BudgetExhausted(
                        f"budget: {budget.name} is ${budget.limit_usd:.4f}, ${budget.spent_usd:.4f} spent, "
                        f"and this call could cost up to ${worst_usd:.4f}"
                    )
            if not any(budget._exceeds(budget.spent_usd + budget._reserved + worst_usd) for budget in chain):
                for budget in chain:
                    budget._reserved += worst_usd
                return
            settled = asyncio.get_running_loop().create_future()
            self._waiting.add(settled)
            try:
                await settled
            finally:
                self._waiting.discard(settled)

    def settle(self, worst_usd: float, actual_usd: float) -> None:
        """Give back what was reserved and book what the call cost; the worst case if that is not known."""
        for budget in self._chain():
            budget._reserved -= worst_usd
            budget.spent_usd += actual_usd
        for waiting in self._waiting:
            if not waiting.done():
                waiting.set_result(None)

    def _chain(self) -> list[Budget]:
        return [self] if self._parent is None else [self, *self._parent._chain()]

    def _exceeds(self, usd: float) -> bool:
        return usd > self.limit_usd * (1 + 1e-9)  # 25 times 0.01 must fit 0.25
