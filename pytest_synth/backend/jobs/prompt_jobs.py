"""Prompt-learning jobs: taken in, run by an optimiser, cancelled, resumed after a crash."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from pytest_synth.backend.gateway import PolicyRefused
from pytest_synth.backend.jobs.credentials import LostSecret, put_back, take_keys
from pytest_synth.backend.jobs.optimizers import (
    PREFIX,
    FieldsRefused,
    Optimizer,
    SearchEnd,
    SearchPlan,
    SearchRun,
)
from pytest_synth.backend.jobs.parts import JobEnds, Parts
from pytest_synth.backend.jobs.probe import NotReady
from pytest_synth.backend.jobs.prompt_documents import learn
from pytest_synth.backend.jobs.rollouts import Failure, Outcome, Target
from pytest_synth.backend.jobs.scheduler import Lane
from pytest_synth.backend.jobs.task_apps import TaskApp
from pytest_synth.backend.jobs.tasks import JobTasks
from pytest_synth.backend.store import JobRecord
from pytest_synth.contracts.jobs import JobStatus
from pytest_synth.prompts import Prompt

ROLLOUT_S = 600.0  # the published default for one rollout; the config has no field for it
CANCEL_S = 5.0  # what a search gets to let go of its rollouts and to keep what it found
_ENDS = {
    JobStatus.SUCCEEDED: f"{PREFIX}job.completed",
    JobStatus.FAILED: f"{PREFIX}job.failed",
    JobStatus.CANCELLED: f"{PREFIX}job.cancelled",
}
_NOTHING: Mapping[str, Mapping[str, Any]] = {}
_log = logging.getLogger(__name__)


@dataclass
class _Live:
    """What ends a job that runs.

    Attributes:
        told: What the search has told of its end. It becomes an event only with the job's state, so that
            who hears of the end finds it in the status.
    """

    cancel: asyncio.Event = field(default_factory=asyncio.Event)
    lane: Lane | None = None
    told: dict[str, Mapping[str, Any]] = field(default_factory=dict)

    def end(self) -> None:
        """Start no rollout more, and ask the search to end."""
        if self.lane is not None:
            self.lane.hold()
        self.cancel.set()


class PromptJobs:
    """The prompt-learning jobs of a backend; lives on its loop."""

    def __init__(self, parts: Parts, optimizer: Optimizer) -> None:
        self._parts = parts
        self._store = parts.store
        self._credentials = parts.credentials
        self._optimizer = optimizer
        self._tasks = JobTasks()
        self._live: dict[int, _Live] = {}

    def submit(self, tenant: str, section: Mapping[str, Any], metadata: Mapping[str, Any]) -> JobRecord:
        """Store a job and start it.

        Args:
            section: The config below `prompt_learning`.
            metadata: The client's own notes; shown in the status.

        Raises:
            FieldsRefused: If the config cannot be run.
        """
        plan = self._check_models(self._optimizer.plan(section))
        content, own_secrets = take_keys(section)
        body = {"section": content, "metadata": dict(metadata), "secrets": sorted(own_secrets)}
        with self._store.database.transaction():
            job = self._store.jobs.add(
                job_id=f"pl_{secrets.token_hex(8)}", tenant=tenant, kind="prompt_learning", body=body
            )
            self._store.jobs.write_document(job.number, plan.document)
            self._credentials.put(job.id, own_secrets)
        self._start(job)
        return self._store.jobs.get(job.number)

    def resume(self) -> None:
        """Start the unfinished jobs of an earlier process."""
        for job in self._store.jobs.unfinished():
            if job.kind == "prompt_learning":
                self._start(job)

    async def cancel(self, job: JobRecord) -> JobStatus:
        """End a job; returns its status once it has ended: an ended one stays as it is."""
        live = self._live.get(job.number)
        if live is not None:
            live.end()
            if live.lane is not None:
                await self._tasks.ends(job, within_s=CANCEL_S)
            await self._tasks.cut(job)
        elif not job.status.is_terminal:
            self._finish(job, SearchEnd(JobStatus.CANCELLED))  # of an earlier process, and not resumed
        return self._store.jobs.get(job.number).status

    async def stop(self) -> None:
        """Cut all jobs and leave them unfinished, as a crash would."""
        await self._tasks.stop()

    def _start(self, job: JobRecord) -> None:
        self._live[job.number] = _Live()
        self._tasks.start(job, self._run(job))

    async def _run(self, job: JobRecord) -> None:
        """Run a job to its end; whatever happens, it does not stay `running`."""
        try:
            end = await self._search(job)
        except asyncio.CancelledError:
            if self._tasks.is_stopping:
                return
            end = SearchEnd(JobStatus.CANCELLED)
        except JobEnds as ends:
            end = SearchEnd(JobStatus.FAILED, ends.failure.error)
        except Exception as error:
            _log.exception("prompt-learning job %s", job.id)
            end = SearchEnd(JobStatus.FAILED, f"the backend failed: {type(error).__name__}")
        finally:
            live = self._live.pop(job.number)
        if live.cancel.is_set() and end.status is JobStatus.FAILED:
            end = SearchEnd(JobStatus.CANCELLED)
        self._finish(job, end, live.told)

    async def _search(self, job: JobRecord) -> SearchEnd:
        self._store.jobs.start(job.number)
        own = self._own_secrets(job)
        section = put_back(job.body["section"], own)
        try:
            plan = self._check_models(self._optimizer.plan(section))
        except FieldsRefused as error:  # an earlier version took it, or an earlier environment had the key
            raise JobEnds(Failure(str(error), "config")) from error
        app = TaskApp(plan.app_url, self._credentials.task_app_keys(job, own))
        try:
            for split, seeds in plan.seeds.items():
                await self._parts.probe.check(app, split=split, seeds=seeds)
        except NotReady as error:
            raise JobEnds(Failure(str(error), error.kind)) from error
        lane = self._parts.scheduler.lane(job.tenant, (job.position, job.number), limit=plan.max_concurrent)
        live = self._live[job.number]
        live.lane = lane
        try:
            return await self._optimizer.run(
                SearchRun(
                    job=job,
                    section=section,
                    run_rollout=partial(self._rollout, job, plan, app, lane),
                    emit=partial(self._hear, job, live),
                    already_emitted=self._store.events.count(job.number, without=f"{PREFIX}job.progress"),
                    cancel=live.cancel,
                )
            )
        finally:
            await lane.cancel()

    def _check_models(self, plan: SearchPlan) -> SearchPlan:
        problems = []
        for path, policy in plan.models.items():
            try:
                self._parts.gateway.check_policy(policy, has_budget=self._parts.budget is not None)
            except PolicyRefused as error:
                problems.append((path, str(error)))
        if problems:
            raise FieldsRefused(problems)
        return plan

    def _own_secrets(self, job: JobRecord) -> dict[str, str]:
        """Find a job's secrets again.

        Raises:
            JobEnds: If a secret of the job was lost with the process that had it, and no other one will do.
        """
        try:
            return self._credentials.get(job)
        except LostSecret as error:
            raise JobEnds(Failure(str(error), "backend")) from error

    async def _rollout(
        self,
        job: JobRecord,
        plan: SearchPlan,
        app: TaskApp,
        lane: Lane,
        prompt: Prompt,
        split: str | None,
        seed: int,
        sample: int,
    ) -> Outcome:
        env_config = dict(plan.env_config) if split is None else {**plan.env_config, "split": split}
        target = Target(
            job_id=job.id,
            tenant=job.tenant,
            app=app,
            env_name=plan.env_name,
            env_config=env_config,
            policy=plan.policy,
            timeout_s=ROLLOUT_S,
            prompt=prompt,
            prompt_source="call",
            baseline=plan.baseline,
            budget=self._parts.budget,
        )

        async def run() -> Outcome:
            rollout = self._parts.runner.open(target, seed, sample)
            try:
                return await rollout.run()
            except asyncio.CancelledError:
                rollout.cut(Failure("cancelled", "cancelled"))
                raise

        outcome: Outcome = await lane.submit(run)
        if outcome.use.fatal is not None:
            raise JobEnds(Failure(outcome.row.error or outcome.use.fatal, "model"))
        return outcome

    def _hear(self, job: JobRecord, live: _Live, kind: str, data: Mapping[str, Any]) -> None:
        """Take an event from a search."""
        if kind in _ENDS.values():
            live.told[kind] = data
        else:
            self._emit(job, kind, data)

    def _emit(self, job: JobRecord, kind: str, data: Mapping[str, Any]) -> None:
        """Store an event, and what it tells for the status, together."""
        with self._store.database.transaction():
            known = self._store.jobs.get(job.number).document
            self._store.jobs.write_document(job.number, learn(known, kind, data))
            self._store.events.add(
                job.number, kind, data, level="error" if kind.endswith("job.failed") else "info"
            )

    def _finish(
        self, job: JobRecord, end: SearchEnd, told: Mapping[str, Mapping[str, Any]] = _NOTHING
    ) -> None:
        """End a job, with the one event of its end."""
        kind = _ENDS[end.status]
        data = told.get(kind, {} if end.error is None else {"error": end.error})
        with self._store.database.transaction():
            self._emit(job, kind, data)
            self._store.jobs.end(job.number, end.status, end.error)
            self._credentials.forget(job.id)
