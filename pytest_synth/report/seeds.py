"""The rows of an eval by seed: rewards, reasons, the worst ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import fsum

from pytest_synth.contracts.evals import EvalRow
from pytest_synth.report.entries import EvalEntry

Key = tuple[str | None, int]
EXAMPLES = 5  # seeds without a reward that are told one by one


@dataclass(frozen=True)
class SeedRows:
    """The rows of one seed, in order of sample."""

    split: str | None
    seed: int
    rows: tuple[EvalRow, ...]

    @property
    def key(self) -> Key:
        return (self.split, self.seed)

    @property
    def name(self) -> str:
        return str(self.seed) if self.split is None else f"{self.split}/{self.seed}"

    @property
    def reward(self) -> float | None:
        """Mean over the samples; None if one of them has no reward."""
        rewards = [reward_of(row) for row in self.rows]
        present = [reward for reward in rewards if reward is not None]
        return fsum(present) / len(present) if len(present) == len(rewards) else None

    @property
    def reason(self) -> str | None:
        """Why there is no reward."""
        return next((reason_of(row) for row in self.rows if reward_of(row) is None), None)

    @property
    def lowest(self) -> EvalRow:
        """The sample that tells most about a failure: one without a reward, else the one with the lowest."""
        return min(self.rows, key=lambda row: (reward_of(row) is not None, reward_of(row) or 0.0, row.sample))


def reward_of(row: EvalRow) -> float | None:
    """Reward of a row; an error beside it wins."""
    if row.error or row.error_kind:
        return None
    return row.outcome_reward if row.outcome_reward is not None else row.score


def reason_of(row: EvalRow) -> str:
    return row.error or row.error_kind or "no reward and no reason was given"


def answer_of(row: EvalRow) -> object:
    """The answer as the gateway saw it, else what the task app says it predicted."""
    return row.answer if row.answer is not None else row.details.get("predicted")


def seeds_of(rows: Sequence[EvalRow]) -> list[SeedRows]:
    """Group rows by (split, seed), in order of both."""
    groups: dict[Key, list[EvalRow]] = {}
    for row in rows:
        groups.setdefault((row.split, row.seed), []).append(row)
    ordered = sorted(groups.items(), key=lambda item: (item[0][0] or "", item[0][1]))
    return [
        SeedRows(split, seed, tuple(sorted(members, key=lambda row: row.sample)))
        for (split, seed), members in ordered
    ]


def worst_seeds(entry: EvalEntry, n: int) -> list[SeedRows]:
    """The seeds that tell most about a failure: newly failing ones first, then by reward, all below 1."""
    newly = {(c.split, c.seed) for c in entry.baseline.newly_failing} if entry.baseline is not None else set()
    ranked = sorted(
        (
            (seed.key not in newly, seed.reward, seed.seed, seed)
            for seed in seeds_of(entry.rows)
            if seed.reward is not None
        ),
        key=lambda item: item[:3],
    )
    return [seed for _, reward, _, seed in ranked if reward < 1][:n]


def told_in_full(entry: EvalEntry, n: int) -> list[SeedRows]:
    """The seeds that are told one by one: the worst ones, and examples of those without a reward."""
    return [*worst_seeds(entry, n), *missing_examples(entry)]


def missing_examples(entry: EvalEntry) -> list[SeedRows]:
    """Some seeds without a reward, for each of the most frequent reasons."""
    groups = list(missing_seeds(entry.rows).values())[:EXAMPLES]
    return [seed for seeds in groups for seed in seeds[: max(1, EXAMPLES // len(groups))]]


def missing_seeds(rows: Sequence[EvalRow]) -> dict[str, list[SeedRows]]:
    """Seeds without a reward by reason, the most frequent reason first."""
    groups: dict[str, list[SeedRows]] = {}
    for seed in seeds_of(rows):
        if seed.reason is not None:
            groups.setdefault(seed.reason, []).append(seed)
    return dict(sorted(groups.items(), key=lambda item: -len(item[1])))
