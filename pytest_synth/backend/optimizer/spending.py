"""Money: what a run has spent, and whether one more child can be afforded."""

from __future__ import annotations

from collections.abc import Iterable

from pytest_synth.backend.optimizer.stopping import StopSignal


class Spending:
    """Adds up the costs of rollouts and reflections, and keeps them below a cap.

    New children are refused by an estimate from what settled children have cost, so that the decision
    does not depend on timing. What has really been spent ends the whole run at the cap, should the
    estimate be wrong; what is in flight then is the only overrun.

    Attributes:
        total_usd: Spent so far; None if the price of any call is not known.
    """

    def __init__(self, cap_usd: float | None, stop: StopSignal) -> None:
        self._cap = cap_usd
        self._stop = stop
        self.total_usd: float | None = 0.0
        self._settled = {"rollout": (0.0, 0), "reflection": (0.0, 0)}

    def add(self, cost_usd: float | None) -> None:
        """Count the cost of a finished call."""
        if self.total_usd is None:
            return
        if cost_usd is None:
            self.total_usd = None
            if self._cap is not None:
                self._stop.request(
                    "failing",
                    f"token.max_spend_usd {self._cap:g} cannot be kept: the price of the model is not known;"
                    " leave the cap out, or name a model with a known price",
                    whole_run=True,
                )
            return
        self.total_usd += cost_usd

    def check(self) -> None:
        """Stop the run if the cap is reached; called before each paid call."""
        if self._cap is not None and self.total_usd is not None and self.total_usd >= self._cap:
            spent = f"{self.total_usd:.4f} of {self._cap:g} USD are spent"
            self._stop.request("cost", spent, whole_run=True)

    def settle(self, rollouts: Iterable[float | None], reflections: Iterable[float | None]) -> None:
        """Learn the usual costs from a child that has ended."""
        for kind, costs in (("rollout", rollouts), ("reflection", reflections)):
            total, number = self._settled[kind]
            for cost in costs:
                total, number = total + (cost or 0.0), number + 1
            self._settled[kind] = total, number

    def can_afford(self, rollouts: int, reflections: int) -> bool:
        """Whether so many more calls, beside those that have settled, stay below the cap."""
        if self._cap is None:
            return True
        needed = sum(total for total, _ in self._settled.values())
        for kind, wanted in (("rollout", rollouts), ("reflection", reflections)):
            total, number = self._settled[kind]
            needed += wanted * total / number if number else 0.0
        return needed < self._cap
