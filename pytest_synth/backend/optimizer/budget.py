"""The hard budget of rollouts: reserved in the worst case before, counted after, in a fixed order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from pytest_synth.backend.optimizer.ports import Purpose, RolloutKey, RolloutOutcome


class Budget:
    """Decides whether a child may start.

    A child starts only if what settled children have paid, the worst case of those that are in flight,
    its own worst case and the final check fit in together. All of these depend on the order in which
    children are settled, never on which rollout happened to end first: so the same children start at
    any concurrency and latency, and no rollout is ever over the budget.

    Args:
        limit: Rollouts of the whole run.
        final_check: Rollouts set aside for the end.
    """

    def __init__(self, limit: int, final_check: int) -> None:
        self.limit = limit
        self._final_check = self.final_check = final_check
        self._paid: set[RolloutKey] = set()
        self._reserved: dict[int, int] = {}
        self.used: Counter[Purpose] = Counter()

    @property
    def reserved(self) -> int:
        """The worst case of the children in flight."""
        return sum(self._reserved.values())

    @property
    def searched(self) -> int:
        """Rollouts of the search so far, as settled children have paid them; the same in every run."""
        return self.used.total() - self.used["final_check"]

    @property
    def left(self) -> int:
        return self.limit - self.used.total() - self.reserved - self._final_check

    def is_paid(self, key: RolloutKey) -> bool:
        return key in self._paid

    def unpaid(self, keys: Iterable[RolloutKey]) -> int:
        return sum(1 for key in set(keys) if key not in self._paid)

    def reserve(self, child: int, cost: int) -> None:
        assert cost <= self.left, f"child {child} costs up to {cost}, {self.left} are left"
        self._reserved[child] = cost

    def settle(
        self, child: int, purpose: Purpose, outcomes: Mapping[RolloutKey, RolloutOutcome]
    ) -> list[RolloutOutcome]:
        """Turn a reservation into what was really paid, and return that.

        A lost rollout is charged to everyone who saw it, although it ran once: whether the next one sees
        the same loss or tries again is a matter of timing, which must decide nothing.
        """
        cost = self._reserved.pop(child, 0)
        paid = self.pay(purpose, outcomes)
        assert len(paid) <= cost, f"child {child} paid {len(paid)} of at most {cost}"
        return paid

    def pay(self, purpose: Purpose, outcomes: Mapping[RolloutKey, RolloutOutcome]) -> list[RolloutOutcome]:
        """Count rollouts that were not reserved by a child: the baseline's."""
        new = [key for key in outcomes if key not in self._paid]
        self._paid.update(key for key in new if not outcomes[key].is_lost)
        self.used[purpose] += len(new)
        return [outcomes[key] for key in new]

    def pay_final_check(self, outcomes: Mapping[RolloutKey, RolloutOutcome]) -> None:
        """Count rollouts that were set aside for the end; what is left for children does not change."""
        self._final_check -= len(outcomes)
        self.used["final_check"] += len(outcomes)
