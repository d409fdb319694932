"""Two prompts on the same seeds, compared seed by seed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import fsum

from pytest_synth.gates import Baseline, Conditions, SeedOutcome, compare
from pytest_synth.report.text import seed_list

CONFIDENCE = 0.95
Key = tuple[str | None, int]


@dataclass(frozen=True)
class PairedRewards:
    """Two prompts on the same seeds, of which the search has seen none.

    Attributes:
        seeds: Split and number of each.
        before, after: Mean rewards.
        interval: Two-sided, of the mean paired difference.
    """

    seeds: tuple[Key, ...]
    before: float
    after: float
    interval: tuple[float, float]

    @classmethod
    def of(
        cls, before: Mapping[Key, float], after: Mapping[Key, float], confidence: float = CONFIDENCE
    ) -> PairedRewards:
        """Pair the rewards of two prompts, which are for the same seeds."""
        assert before.keys() == after.keys(), "the rewards of two prompts are paired seed by seed"
        outcomes = [SeedOutcome(*key, (reward,), None, {}) for key, reward in after.items()]
        found = compare(outcomes, Baseline(Conditions(), 1, before), confidence)
        return cls(
            seeds=tuple(before),
            before=found.baseline_mean,
            after=fsum(after.values()) / len(after),
            interval=found.interval,
        )

    @property
    def is_better(self) -> bool:
        return self.after > self.before

    @property
    def is_surely_better(self) -> bool:
        """Whether the gain is more than chance, at the interval's confidence."""
        return self.interval[0] > 0

    @property
    def text(self) -> str:
        """`0.71 -> 0.86 on 100 eval seeds`."""
        noun = "seed" if len(self.seeds) == 1 else "seeds"
        return f"{self.before:.2f} -> {self.after:.2f} on {len(self.seeds)} eval {noun}"

    @property
    def interval_text(self) -> str:
        """`paired difference +0.15 (interval +0.08 to +0.22)`."""
        low, high = self.interval
        return f"paired difference {self.after - self.before:+.2f} (interval {low:+.2f} to {high:+.2f})"

    @property
    def named_seeds(self) -> str:
        """`test 0-63`, as a record has it."""
        splits: dict[str | None, list[int]] = {}
        for split, seed in self.seeds:
            splits.setdefault(split, []).append(seed)
        return "; ".join(
            f"{split or 'default'} {seed_list(seeds, len(seeds))}" for split, seeds in splits.items()
        )
