"""How far the evals of a run are."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

Item = TypeVar("Item")


@dataclass(frozen=True)
class Progress:
    """Rollouts that have ended, of all that were asked for, in all evals that were submitted.

    Attributes:
        mean_reward: Of the eval that is waited for, so far; None before its first reward.
        cost_usd: US dollars so far; None if a price is not known.
    """

    completed: int
    total: int
    mean_reward: float | None = None
    cost_usd: float | None = None


Look = Callable[[], Progress]
"""Looks how far the run is; it may ask the backend, so it is called only by what shows the answer."""


def sum_up(parts: Iterable[Progress], *, mean_reward: float | None) -> Progress:
    """Add up the progress of single evals.

    Args:
        mean_reward: Of the one that is waited for.
    """
    known = list(parts)
    return Progress(
        sum(part.completed for part in known),
        sum(part.total for part in known),
        mean_reward,
        total(part.cost_usd for part in known),
    )


def total(costs: Iterable[float | None]) -> float | None:
    """Add up costs; None if one of them is not known."""
    known = list(costs)
    return None if None in known else sum(cost for cost in known if cost is not None)


class Turns:
    """Takes a few of many, in turn."""

    def __init__(self) -> None:
        self._next = 0

    def take(self, items: Sequence[Item], n: int) -> list[Item]:
        """Take the next `n`, or all if there are fewer; over many calls none is left out."""
        taken = [items[(self._next + step) % len(items)] for step in range(min(n, len(items)))]
        self._next += len(taken)
        return taken
