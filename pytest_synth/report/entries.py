"""What a report is made of: one entry for each eval, with the rows that it came from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import fsum
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from pytest_synth.contracts.evals import EvalRow, PromptSource

Outcome = Literal["passed", "failed", "incomplete"]


@dataclass(frozen=True)
class EvalEntry:
    """One eval of a run, as the reports show it.

    Attributes:
        node_id: Of the test; with a suffix where one test ran several evals.
        gate_text, gate_details: The verdict in words: one line, and further lines.
        mean_reward: None if the gate is incomplete.
        interval: Two-sided confidence interval of the mean.
        threshold: `min_reward`; None if the gate has none.
        seeds_asked, seeds_done: Seeds asked for, and those that have a reward.
        rollouts: Rollouts that were run, repeats included.
        duration_s: From the first rollout's start to the last one's end.
        cost_usd: US dollars; None when a price is not known.
        replayed: Model calls that were answered from a cassette.
        rows: One for each rollout, in any order.
    """

    node_id: str
    outcome: Outcome
    gate_text: str
    gate_details: tuple[str, ...] = ()
    mean_reward: float | None = None
    interval: tuple[float, float] | None = None
    threshold: float | None = None
    seeds_asked: int = 0
    seeds_done: int = 0
    rollouts: int = 0
    duration_s: float = 0.0
    tokens: int = 0
    cost_usd: float | None = None
    replayed: int = 0
    model: str | None = None
    prompt_source: PromptSource | None = None
    prompt_fingerprint: str | None = None
    rows: Sequence[EvalRow] = ()

    @property
    def rollouts_per_s(self) -> float | None:
        """None where nothing was timed."""
        return self.rollouts / self.duration_s if self.rollouts and self.duration_s > 0 else None


@dataclass(frozen=True)
class SeedRows:
    """The rows of one seed, in order of sample."""

    split: str | None
    seed: int
    rows: tuple[EvalRow, ...]

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
        """The sample that tells most about a failure: the one with the lowest reward."""
        return min(self.rows, key=lambda row: (reward_of(row) is not None, reward_of(row) or 0.0, row.sample))


def reward_of(row: EvalRow) -> float | None:
    """Reward of a row; an error beside it wins."""
    if row.error or row.error_kind:
        return None
    return row.outcome_reward if row.outcome_reward is not None else row.score


def reason_of(row: EvalRow) -> str:
    return row.error or row.error_kind or "no reward and no reason was given"


def seeds_of(rows: Sequence[EvalRow]) -> list[SeedRows]:
    """Group rows by (split, seed), in order of both."""
    groups: dict[tuple[str | None, int], list[EvalRow]] = {}
    for row in rows:
        groups.setdefault((row.split, row.seed), []).append(row)
    ordered = sorted(groups.items(), key=lambda item: (item[0][0] or "", item[0][1]))
    return [
        SeedRows(split, seed, tuple(sorted(members, key=lambda row: row.sample)))
        for (split, seed), members in ordered
    ]


def worst_seeds(rows: Sequence[EvalRow], n: int) -> list[SeedRows]:
    """The seeds with the lowest rewards below 1, lowest first."""
    ranked = sorted(
        ((seed.reward, seed.seed, seed) for seed in seeds_of(rows) if seed.reward is not None),
        key=lambda item: item[:2],
    )
    return [seed for reward, _, seed in ranked[:n] if reward < 1]


def missing_seeds(rows: Sequence[EvalRow]) -> dict[str, list[SeedRows]]:
    """Seeds without a reward by reason, the most frequent reason first."""
    groups: dict[str, list[SeedRows]] = {}
    for seed in seeds_of(rows):
        if seed.reason is not None:
            groups.setdefault(seed.reason, []).append(seed)
    return dict(sorted(groups.items(), key=lambda item: -len(item[1])))
