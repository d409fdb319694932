"""The seam between prompt-learning jobs and what searches for better prompts."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from pytest_synth.backend.jobs.rollouts import Outcome
from pytest_synth.backend.store import JobRecord
from pytest_synth.contracts.jobs import JobStatus
from pytest_synth.errors import SynthError
from pytest_synth.prompts import Prompt

PREFIX = "learning.policy.gepa."


class FieldsRefused(SynthError):
    """A job's config cannot be run.

    Attributes:
        problems: (dotted path of the field, what is wrong with it), all of them.
    """

    def __init__(self, problems: Sequence[tuple[str, str]]) -> None:
        super().__init__("; ".join(f"{path} {text}" for path, text in problems))
        self.problems = tuple(problems)


@dataclass(frozen=True)
class SearchPlan:
    """What a job's config asks for, as far as its host needs to know.

    Attributes:
        policy: Sent with each rollout.
        models: All policies that models are called by, with the path of the field that names each.
        seeds: All seeds that may be run, by split.
        max_concurrent: Rollouts in flight, at most.
        baseline: The messages that the task app is known to send, with their wildcards; None: not known.
        document: Shown in the job's status before it runs.
    """

    app_url: str
    env_name: str | None
    env_config: Mapping[str, Any]
    policy: Mapping[str, Any] = field(repr=False)
    models: Mapping[str, Mapping[str, Any]] = field(repr=False)
    seeds: Mapping[str | None, Sequence[int]]
    max_concurrent: int
    baseline: Prompt | None
    document: Mapping[str, Any]


RunRollout = Callable[[Prompt, str | None, int, int], Awaitable[Outcome]]
"""Runs (prompt, split, seed, sample); cancelling it cuts the rollout. Failures are outcomes."""


@dataclass(frozen=True)
class SearchRun:
    """A job that is to be run to its end.

    Attributes:
        section: The `prompt_learning` section of the job's config, secrets included.
        emit: Takes an event of wire section 8: its type and its data.
        already_emitted: Events that an earlier start of this job has emitted, `job.progress` apart.
        cancel: Is set when the job is to end; what was found so far is kept if the run ends soon.
    """

    job: JobRecord
    section: Mapping[str, Any] = field(repr=False)
    run_rollout: RunRollout
    emit: Callable[[str, Mapping[str, Any]], None]
    already_emitted: int
    cancel: asyncio.Event


@dataclass(frozen=True)
class SearchEnd:
    """How a job ended: `SUCCEEDED`, `FAILED` with an error, or `CANCELLED`."""

    status: JobStatus
    error: str | None = None


class Optimizer(Protocol):
    """Searches for better prompts; one for all jobs, on the backend's loop."""

    def plan(self, section: Mapping[str, Any]) -> SearchPlan:
        """Read a job's config, before it is stored.

        Raises:
            FieldsRefused: If it cannot be run.
        """
        ...

    async def run(self, run: SearchRun) -> SearchEnd:
        """Run a job. The same events come in the same order when it is run again."""
        ...
