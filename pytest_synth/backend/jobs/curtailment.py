"""Ends an eval whose gate is certain not to pass. Who decides that is handed in: gates are not ours."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import fsum

from pytest_synth.contracts.evals import EvalRow, FailFast

IsCertain = Callable[[Sequence[EvalRow], FailFast, int, int], bool]
"""`is_certain(rows that have ended, rule, seeds, samples)`: can the gate no longer pass?"""


@dataclass
class Curtailment:
    """Watches the rows of one job as they come.

    Attributes:
        seeds, samples: How many were asked for.
    """

    is_certain: IsCertain
    rule: FailFast
    seeds: int
    samples: int
    rows: list[EvalRow] = field(default_factory=list)

    def ends(self, row: EvalRow) -> bool:
        """Take a row that has ended; returns whether the verdict is certain now."""
        self.rows.append(row)
        return self._is_possible() and self.is_certain(self.rows, self.rule, self.seeds, self.samples)

    def _is_possible(self) -> bool:
        """Rule out cheaply what cannot be certain yet, so that a long job is not judged at every row.

        As long as the mean could reach the threshold with every open rollout at 1, and no more seeds are
        missing than allowed, nothing is certain: leaving seeds out could only raise the mean.
        """
        total = self.seeds * self.samples
        missing = {row.seed for row in self.rows if row.score is None}
        best = total - fsum(1 - row.score for row in self.rows if row.score is not None)
        return len(missing) > self.rule.allow_missing or best / total < self.rule.min_reward
