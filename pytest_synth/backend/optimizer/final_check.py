"""Scores the baseline and the best candidates on the seeds that the search has not seen."""

from __future__ import annotations

import asyncio

from pytest_synth.backend.optimizer.budget import Budget
from pytest_synth.backend.optimizer.config import GepaConfig
from pytest_synth.backend.optimizer.evaluations import Evaluations
from pytest_synth.backend.optimizer.outcome import CandidateResult, HeldOut
from pytest_synth.backend.optimizer.ports import RolloutKey
from pytest_synth.backend.optimizer.progress import Reporter
from pytest_synth.backend.optimizer.stopping import StopSignal, end_tasks
from pytest_synth.prompts import Prompt

LEAST_URGENT = 1 << 30
_NOT_RUN = "not run: the run was stopped"


class FinalCheck:
    """The held-out scores of a run.

    The baseline's do not depend on the search, and may run beside it in slots that would be idle; the
    search never sees them.
    """

    def __init__(
        self,
        config: GepaConfig,
        evaluations: Evaluations,
        budget: Budget,
        stop: StopSignal,
        reporter: Reporter,
    ) -> None:
        self._config = config
        self._evaluations = evaluations
        self._budget = budget
        self._stop = stop
        self._reporter = reporter
        self._early: asyncio.Task[HeldOut] | None = None

    def start_baseline(self) -> None:
        """Score the baseline in the background."""
        self._early = asyncio.create_task(self._score("baseline", None, self._config.prompt))

    async def run(self, candidates: tuple[CandidateResult, ...]) -> tuple[HeldOut, ...]:
        """Score the baseline and the candidates; stops short if the run is stopped.

        Whatever ends is reported in order: the baseline, then by rank.
        """
        self._reporter.checking(self._config.validation_seeds, candidates)
        assert self._early is not None
        scores = [self._early]
        scores += [asyncio.create_task(self._score(c.id, c.rank, c.prompt)) for c in candidates]
        self._early = None
        entries: list[HeldOut] = []
        try:
            for score in scores:
                entry = await self._stop.before_run_ends(score)
                if entry is None:
                    break
                entries.append(entry)
                self._reporter.checked(entry)
        finally:
            await end_tasks(scores)
        return tuple(entries)

    async def close(self) -> None:
        """Give up what is in flight."""
        if self._early is not None:
            await end_tasks([self._early])

    async def _score(self, candidate_id: str, rank: int | None, prompt: Prompt) -> HeldOut:
        split, seeds = self._config.validation_split, self._config.validation_seeds
        outcomes = await self._evaluations.outcomes(
            prompt,
            [RolloutKey(prompt.fingerprint, split, seed, 0) for seed in seeds],
            purpose="final_check",
            urgency=LEAST_URGENT,
        )
        self._budget.pay_final_check(outcomes)
        rewards = {
            key.seed: outcome.reward for key, outcome in outcomes.items() if outcome.reward is not None
        }
        missing = {key.seed: outcome.error or _NOT_RUN for key, outcome in outcomes.items() if outcome.error}
        mean = sum(rewards.values()) / len(rewards) if rewards and not missing else None
        return HeldOut(candidate_id, rank, mean, rewards, missing)
