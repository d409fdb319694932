"""Evals while they run: the jobs that each has at the backend, and what has come of them so far."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pytest_synth.evals.joining import join
from pytest_synth.evals.progress import Progress, total

if TYPE_CHECKING:
    from pytest_synth.client import EvalResult
    from pytest_synth.contracts.evals import EvalRow
    from pytest_synth.evals.apps import AppAddress
    from pytest_synth.evals.jobs import Request


@dataclass
class Job:
    """One job at the backend.

    Attributes:
        sample: Number of the repetition that it is; None: it has all of them.
        address: Of the task app when the job was submitted.
        route: Path below it, for a backend that knows the published API only.
        is_second: It was submitted in place of one that a tunnel's restart had cut.
        completed: Rollouts that have ended.
        mean_reward, cost_usd: Of those, as far as the backend tells.
        ended_at: When its end was first seen, if it waits for the tunnel since.
    """

    id: str
    seeds: tuple[int, ...]
    sample: int | None
    address: AppAddress
    route: str
    is_second: bool
    completed: int = 0
    mean_reward: float | None = None
    cost_usd: float | None = 0.0
    ended_at: float | None = None

    def note(self, status: EvalResult) -> None:
        """Note how far it is."""
        self.completed = status.num_completed
        self.mean_reward = status.mean_reward
        self.cost_usd = status.total_cost_usd

    def rows_of(self, result: EvalResult) -> list[EvalRow]:
        """Its rows: of seeds that it was given, and for each rollout one."""
        asked = frozenset(self.seeds)
        return list({(row.seed, row.sample): row for row in result.rows if row.seed in asked}.values())

    def seeds_without_reward(self, rows: Iterable[EvalRow], samples: int) -> tuple[int, ...]:
        """Seeds of which a sample has no reward; `samples` is what the whole eval asked for."""
        asked = samples if self.sample is None else 1
        found = Counter(row.seed for row in rows if row.score is not None)
        return tuple(seed for seed in self.seeds if found[seed] < asked)


@dataclass
class OpenEval:
    """One eval while it runs: its open jobs, and what the others have brought."""

    request: Request
    app: object
    jobs: list[Job] = field(default_factory=list)
    results: list[EvalResult] = field(default_factory=list)
    rows: list[EvalRow] = field(default_factory=list)

    @property
    def progress(self) -> Progress:
        """How far this eval is."""
        spec = self.request.spec
        done = len(self.rows) + sum(job.completed for job in self.jobs)
        means = [job.mean_reward for job in self.jobs if job.mean_reward is not None]
        costs = [*(row.cost_usd for row in self.rows), *(job.cost_usd for job in self.jobs)]
        return Progress(
            done,
            len(spec.seeds) * spec.samples,
            mean_reward=sum(means) / len(means) if means else None,
            cost_usd=total(costs),
        )

    def joined(self, error: str | None = None) -> EvalResult:
        """The eval's result; the job's own, where one job was enough and nothing was to add."""
        results = self.results
        if error is None and len(results) == 1 and self.rows == list(results[0].rows):
            return results[0]
        places = {seed: place for place, seed in enumerate(self.request.spec.seeds)}
        return join(results, sorted(self.rows, key=lambda row: (places[row.seed], row.sample)), error)
