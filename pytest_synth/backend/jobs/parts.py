"""What both kinds of job are run with."""

from __future__ import annotations

from dataclasses import dataclass

from pytest_synth.backend.gateway import Budget, Gateway
from pytest_synth.backend.jobs.credentials import Credentials
from pytest_synth.backend.jobs.curtailment import IsCertain
from pytest_synth.backend.jobs.probe import Probe
from pytest_synth.backend.jobs.rollouts import Failure, RolloutRunner
from pytest_synth.backend.jobs.scheduler import Scheduler
from pytest_synth.backend.store import Store


@dataclass(frozen=True)
class Parts:
    """The parts of a backend that jobs share; they live on its loop."""

    store: Store
    gateway: Gateway
    scheduler: Scheduler
    runner: RolloutRunner
    probe: Probe
    credentials: Credentials
    is_certain: IsCertain | None = None
    budget: Budget | None = None  # ceiling of the whole backend


class JobEnds(Exception):
    """What is left of a job cannot run.

    Attributes:
        failure: What the job's error and its open rows say.
    """

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.error)
        self.failure = failure
