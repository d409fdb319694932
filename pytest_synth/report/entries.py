"""What a report is made of: the evals and optimisations of a run, as values that cross processes and files.

Models forbid unknown fields: a report is read by the version that wrote it, or refused by its number.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict

from pytest_synth.contracts.evals import EvalRow, PromptMessage, PromptSource

Outcome = Literal["passed", "measured", "failed", "incomplete"]
"""What a gate says; "measured": every reward is there, and nothing was demanded of them."""

OUTCOMES: tuple[Outcome, ...] = ("passed", "measured", "failed", "incomplete")
Interval = tuple[float, float]


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class MetricLimit(_Entry):
    """Limit for the mean of an objective."""

    name: str
    relation: Literal[">=", "<="]
    limit: float


class Rule(_Entry):
    """What a gate demanded; enough to judge the rows again."""

    rule: Literal["mean", "lower_bound", "not_worse"] = "mean"
    min_reward: float | None = None
    max_regression: float | None = None
    confidence: float = 0.95
    allow_missing: int = 0
    metrics: tuple[MetricLimit, ...] = ()


class SeedChange(_Entry):
    """Reward of one seed in the baseline and now."""

    split: str | None = None
    seed: int
    before: float
    now: float


class BaselineEntry(_Entry):
    """The comparison of an eval with its stored baseline."""

    mean: float
    """Mean of the baseline over the seeds that were compared."""
    difference: float
    """Mean paired difference, now minus before."""
    interval: Interval
    """Two-sided interval of the difference."""
    lower_bound: float
    """One-sided lower bound of the difference."""
    newly_failing: tuple[SeedChange, ...] = ()
    newly_fixed: tuple[SeedChange, ...] = ()
    drops: tuple[SeedChange, ...] = ()
    """All seeds whose reward fell, the largest fall first."""


class ModelCall(_Entry):
    """One call of the model in a rollout."""

    messages: tuple[PromptMessage, ...]
    """As they were sent; `pattern` is the text."""
    answer: str | None = None
    """Text of the answer, or its tool calls as text."""
    error: str | None = None
    model: str | None = None
    tokens: int = 0
    cost_usd: float | None = None
    latency_ms: float | None = None
    replayed: bool = False


class RolloutCalls(_Entry):
    """The model calls of one rollout, in order."""

    split: str | None = None
    seed: int
    sample: int = 0
    calls: tuple[ModelCall, ...]


class EvalEntry(_Entry):
    """One eval of a run."""

    node_id: str
    """Of the test; with a suffix where one test ran several evals."""
    outcome: Outcome
    expected_failure: bool = False
    """The test is marked as an expected failure, and has failed as expected."""
    gate_text: str
    """The verdict in words: one line."""
    gate_details: tuple[str, ...] = ()
    """Further lines of the verdict."""
    rule: Rule | None = None
    mean_reward: float | None = None
    """Mean over the seeds; null if too many seeds are missing, or the eval was ended early."""
    at_most: float | None = None
    """Highest mean that was still possible when the eval was ended early."""
    interval: Interval | None = None
    """Two-sided confidence interval of the mean."""
    lower_bound: float | None = None
    """One-sided, where the gate holds it against the threshold."""
    threshold: float | None = None
    """`min_reward`; null if the gate has none."""
    baseline: BaselineEntry | None = None
    seeds_asked: int = 0
    seeds_done: int = 0
    """Seeds that have a reward."""
    seeds_not_run: int = 0
    """Seeds that were spared because the verdict was certain."""
    rollouts: int = 0
    """Rollouts that were run, repeats included."""
    duration_s: float = 0.0
    """From the first rollout's start to the last one's end."""
    tokens: int = 0
    cost_usd: float | None = None
    """US dollars; null when a price is not known."""
    saved_usd: float | None = None
    """What the replayed calls cost when they were recorded; null when not known."""
    replayed: int = 0
    """Model calls that were answered from a cassette."""
    model: str | None = None
    """Provider and model, `openai/gpt-4.1-nano`."""
    prompt_source: PromptSource | None = None
    prompt_fingerprint: str | None = None
    scorer_fingerprint: str | None = None
    """Of what gives the rewards; known where a baseline was compared."""
    data_fingerprint: str | None = None
    """Of the rows, likewise."""
    prompt: tuple[PromptMessage, ...] | None = None
    """The prompt that ran, where it is known."""
    stored_prompt: tuple[PromptMessage, ...] | None = None
    """The prompt of the snapshot, where there is one and another one ran."""
    code_prompt: tuple[PromptMessage, ...] | None = None
    """The code's prompt, where it is known and the snapshot's is under test in its place."""
    rows: tuple[EvalRow, ...] = ()
    """One for each rollout, in any order."""
    calls: tuple[RolloutCalls, ...] = ()
    """Model calls of the rollouts that tell most about a failure, as far as they are known."""

    @property
    def told_outcome(self) -> str:
        """The outcome as reports tell it: an expected failure does not read as a plain one."""
        return f"{self.outcome} (expected)" if self.expected_failure else self.outcome

    @property
    def is_red(self) -> bool:
        """Whether somebody has to look at it."""
        return self.outcome in ("failed", "incomplete") and not self.expected_failure

    @property
    def rollouts_per_s(self) -> float | None:
        """None where nothing was timed."""
        return self.rollouts / self.duration_s if self.rollouts and self.duration_s > 0 else None


class Candidate(_Entry):
    """One prompt that an optimisation tried."""

    id: str
    parents: tuple[str, ...] = ()
    """Empty for the baseline; two for a merge."""
    generation: int = 0
    accepted: bool
    reward: float | None = None
    """Mean on the search's own seeds; null if it was rejected before it was scored on them."""
    rollouts: int
    """Rollouts of the budget that were used when it was decided."""
    prompt: tuple[PromptMessage, ...] | None = None


class OptimizationEntry(_Entry):
    """One optimisation of a run."""

    node_id: str
    finish_reason: str
    budget: int
    rollouts: int
    """Rollouts that were used; never more than the budget."""
    cost_usd: float | None = None
    candidates: tuple[Candidate, ...]
    """In the order in which they were decided; the first one is the baseline."""
    best: str
    """Id of the best candidate."""
    held_out_seeds: int = 0
    held_out_baseline: float | None = None
    """Mean reward of the baseline on seeds that the search has not seen."""
    held_out_best: float | None = None
    held_out_interval: Interval | None = None
    """Two-sided interval of the paired difference, best minus baseline."""
    not_applied: tuple[str, ...] = ()
    """Settings that were accepted and have no effect."""
    plan: str | None = None
    """What the budget was to be spent on, in one line."""
    summary: str | None = None
    """What it was spent on, and why the search ended, in one line."""
    decision: str | None = None
    """What has become of the best prompt."""

    def lineage(self) -> list[Candidate]:
        """The best candidate's line of first parents, from the baseline on."""
        known = {candidate.id: candidate for candidate in self.candidates}
        line: list[Candidate] = []
        step = known.get(self.best)
        while step is not None and step not in line:
            line.insert(0, step)
            step = known.get(step.parents[0]) if step.parents else None
        return line


class RunReport(_Entry):
    """All that the reports of one run show."""

    created_at: str | None = None
    """ISO 8601 with an offset."""
    package_version: str | None = None
    evals: tuple[EvalEntry, ...] = ()
    optimizations: tuple[OptimizationEntry, ...] = ()
    skipped: tuple[str, ...] = ()
    """Node ids of tests that were skipped with their evals."""

    @property
    def told_outcomes(self) -> str:
        """`2 passed, 1 failed, 1 skipped`; `no evals` if there is nothing to tell."""
        skipped = [f"{len(self.skipped)} skipped"] if self.skipped else []
        return ", ".join(filter(None, [outcome_counts(self.evals), *skipped])) or "no evals"


def outcome_counts(evals: Sequence[EvalEntry]) -> str:
    """`2 passed, 1 failed, 1 failed (expected)`."""
    counted = Counter(entry.told_outcome for entry in evals)
    told = [name for outcome in OUTCOMES for name in (outcome, f"{outcome} (expected)")]
    return ", ".join(f"{counted[name]} {name}" for name in told if name in counted)


def total_cost(evals: Sequence[EvalEntry]) -> float | None:
    """Sum of the costs; None if one of them is not known."""
    costs = [entry.cost_usd for entry in evals]
    return None if None in costs else sum(cost for cost in costs if cost is not None)
