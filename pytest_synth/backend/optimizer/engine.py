"""The seam: an engine plans and runs a search. `GepaEngine` is the one on the gepa library."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from pytest_synth.backend.optimizer.config import GepaConfig
from pytest_synth.backend.optimizer.outcome import OptimizationOutcome
from pytest_synth.backend.optimizer.plan import Plan, make_plan
from pytest_synth.backend.optimizer.ports import Host
from pytest_synth.backend.optimizer.run import SearchRun
from pytest_synth.backend.optimizer.worker import Worker


class Engine(Protocol):
    """Searches for a better prompt."""

    def plan(self, config: GepaConfig) -> Plan:
        """Say what the budget will be spent on.

        Raises:
            GepaConfigError: If it cannot pay for the baseline, one candidate and the final check.
        """
        ...

    async def run(
        self, config: GepaConfig, host: Host, *, cancel: asyncio.Event, already_emitted: int = 0
    ) -> OptimizationOutcome:
        """Search until something ends it; failures are in the outcome (`finish_reason`).

        The same config and rewards give the same candidates at any concurrency and latency. Never more
        rollouts than the plan's budget are asked for.

        Args:
            cancel: Set it to end the run: nothing more is started, what is in flight is given up.
            already_emitted: How many events other than `job.progress` an earlier start of this run has
                emitted; so many are left out.

        Raises:
            GepaConfigError: As `plan` does.
            Exception: What a port raises against its contract.
        """
        ...


class GepaEngine:
    """Reflective prompt evolution (arXiv 2507.19457) on `gepa.optimize`.

    gepa, in a thread, selects parents, accepts children and keeps the front. Around it stand what it
    lacks: children in flight at the same time, a hard budget, results that do not depend on timing,
    resuming by a ledger, held-out scores.

    Args:
        make_worker: Makes the thread for one run.
    """

    def __init__(self, make_worker: Callable[[], Worker] = Worker) -> None:
        self._make_worker = make_worker

    def plan(self, config: GepaConfig) -> Plan:
        return make_plan(config)

    async def run(
        self, config: GepaConfig, host: Host, *, cancel: asyncio.Event, already_emitted: int = 0
    ) -> OptimizationOutcome:
        run = SearchRun(config, make_plan(config), host, self._make_worker(), already_emitted=already_emitted)
        return await run.finish(cancel)
