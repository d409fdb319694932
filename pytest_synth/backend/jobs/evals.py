"""Eval jobs: taken in, run to their end, cancelled, resumed after a crash."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, NoReturn

from pytest_synth.backend.gateway import Budget, CassetteError, PolicyRefused
from pytest_synth.backend.jobs.credentials import LostSecret, put_back, take_keys
from pytest_synth.backend.jobs.curtailment import Curtailment
from pytest_synth.backend.jobs.documents import mean
from pytest_synth.backend.jobs.parts import JobEnds, Parts
from pytest_synth.backend.jobs.probe import NotReady
from pytest_synth.backend.jobs.rollouts import Failure, Outcome, Target
from pytest_synth.backend.jobs.task_apps import TaskApp
from pytest_synth.backend.jobs.tasks import JobTasks
from pytest_synth.backend.jobs.traces import trace_of
from pytest_synth.backend.jobs.turns import Turns
from pytest_synth.backend.store import JobRecord, RolloutPlace
from pytest_synth.backend.store.encoding import encode
from pytest_synth.contracts.evals import EvalExtensions, EvalRow, EvalSubmit, FailFast
from pytest_synth.contracts.jobs import JobStatus
from pytest_synth.contracts.rewards import NOT_RUN
from pytest_synth.prompts import Prompt

UNREACHABLE_IN_A_ROW = 3
"""So many unreachable rollouts in a row, and the task app is asked whether it is still there."""

_CANCELLED = Failure("cancelled", "cancelled")
_SPARED = Failure(NOT_RUN, "not_run")
_log = logging.getLogger(__name__)


class VerdictCertain(JobEnds):
    """The gate of a job is certain not to pass; the rest is spared."""


class EvalJobs:
    """The eval jobs of a backend; lives on its loop."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._store = parts.store
        self._credentials = parts.credentials
        self._tasks = JobTasks()
        self._turns = Turns()

    def submit(self, tenant: str, body: EvalSubmit) -> JobRecord:
        """Store a job and start it; an idempotent submission that is known returns its job.

        Raises:
            PolicyRefused: If the gateway cannot serve the policy.
        """
        content, own_secrets = take_keys(body.model_dump(mode="json"))
        content["secrets"] = sorted(own_secrets)
        same_as = _digest(body, content)
        known = None if same_as is None else self._store.jobs.find_same(tenant, same_as)
        if known is not None:
            return known
        extensions = body.extensions or EvalExtensions()
        self._parts.gateway.check_policy(
            body.policy,
            record_mode=extensions.record_mode,
            cassette=extensions.cassette,
            has_budget=extensions.max_cost is not None or self._parts.budget is not None,
        )
        job_id = f"eval-{secrets.token_hex(8)}"
        samples = extensions.samples
        with self._store.database.transaction():
            job = self._store.jobs.add(
                job_id=job_id,
                tenant=tenant,
                kind="eval",
                body=content,
                position=extensions.position,
                same_as=same_as,
                rollouts=places(body.seeds, samples),
            )
            self._credentials.put(job_id, own_secrets)
        self._start(job)
        return job

    def resume(self) -> None:
        """Start the unfinished jobs of an earlier process; finished rollouts are not run again."""
        for job in self._store.jobs.unfinished():
            if job.kind == "eval":
                self._start(job)

    async def cancel(self, job: JobRecord) -> JobStatus:
        """Cut a job; returns its status once it has ended: an ended one stays as it is."""
        if not await self._tasks.cut(job) and not job.status.is_terminal:
            self._finish(job, JobStatus.CANCELLED, _CANCELLED)  # of an earlier process, and not resumed
        return self._store.jobs.get(job.number).status

    async def cancel_all(self) -> None:
        """Cut all jobs for good."""
        unfinished = [job for job in self._store.jobs.unfinished() if job.kind == "eval"]
        await asyncio.gather(*(self.cancel(job) for job in unfinished))

    async def stop(self) -> None:
        """Cut all jobs and leave them unfinished, as a crash would."""
        await self._tasks.stop()

    def _start(self, job: JobRecord) -> None:
        self._tasks.start(job, self._run(job))

    async def _run(self, job: JobRecord) -> None:
        """Run a job to its end; whatever happens, it does not stay `running`."""
        try:
            await self._run_rollouts(job)
        except asyncio.CancelledError:
            if not self._tasks.is_stopping:
                self._finish(job, JobStatus.CANCELLED, _CANCELLED)
        except VerdictCertain as ends:
            self._finish(job, JobStatus.COMPLETED, ends.failure)
        except JobEnds as ends:
            self._finish(job, JobStatus.FAILED, ends.failure)
        except Exception as error:
            _log.exception("eval job %s", job.id)
            failure = Failure(f"the backend failed: {type(error).__name__}", "backend")
            self._finish(job, JobStatus.FAILED, failure)
        else:
            self._finish(job, JobStatus.COMPLETED, None)

    async def _run_rollouts(self, job: JobRecord) -> None:
        open_places = self._store.jobs.open_places(job.number)
        total = self._store.jobs.progress(job.number).total
        target = self._target(job)
        order = (job.position, job.number)
        try:
            self._parts.gateway.check_policy(
                target.policy,
                record_mode=target.record_mode,
                cassette=target.cassette,
                has_budget=target.budget is not None,
            )
            async with self._turns.turn((job.tenant, target.app.url), order):
                seeds = [place.seed for place in open_places]
                await self._parts.probe.check(target.app, split=target.split, seeds=seeds)
        except PolicyRefused as error:  # a key that the environment had before a restart
            raise JobEnds(Failure(str(error), "model")) from error
        except NotReady as error:
            raise JobEnds(Failure(str(error), error.kind)) from error
        lane = self._parts.scheduler.lane(job.tenant, order, limit=int(job.body["max_concurrent"]))
        run = _Run(
            job,
            target,
            total=total,
            completed=total - len(open_places),
            curtailment=self._curtailment(job, total),
        )
        is_complete = False
        try:
            await asyncio.gather(*(lane.submit(partial(self._rollout, run, place)) for place in open_places))
            is_complete = True
        finally:
            await lane.cancel()
            await self._finish_cassette(run, is_complete=is_complete)

    async def _finish_cassette(self, run: _Run, *, is_complete: bool) -> None:
        """Write the job's cassette, and keep what became of it in the job's document.

        Raises:
            JobEnds: If it cannot be written; the rewards are kept, and the job says so.
        """
        target = run.target
        if target.cassette is None or target.record_mode == "off":
            return
        try:
            use = await self._parts.gateway.finish_cassette(
                target.cassette, record_mode=target.record_mode, is_complete=is_complete
            )
        except CassetteError as error:
            if is_complete:
                raise JobEnds(Failure(str(error), "backend")) from error
            return
        self._store.jobs.write_document(run.job.number, {"cassette": asdict(use)})

    def _begin(self, run: _Run) -> None:
        """Say that a job runs: until its first rollout starts, it waits for the jobs before it."""
        run.has_begun = True
        with self._store.database.transaction():
            self._store.jobs.start(run.job.number)
            if run.job.started_at is None:
                data = {"seed_count": run.total}
                self._event(run.job, "job.started", data, message=f"{run.total} rollouts")

    async def _rollout(self, run: _Run, place: RolloutPlace) -> None:
        if not run.has_begun:
            self._begin(run)
        rollout = self._parts.runner.open(run.target, place.seed, place.sample)
        try:
            outcome = await rollout.run()
        except asyncio.CancelledError:
            outcome = rollout.cut(run.failure or _CANCELLED)
            if not self._tasks.is_stopping:
                self._record(run, place, outcome)
            raise
        self._record(run, place, outcome)
        if run.curtailment is not None and run.curtailment.ends(outcome.row):
            run.failure = _SPARED
            raise VerdictCertain(_SPARED)
        if outcome.use.fatal is not None:
            run.ends(Failure(outcome.row.error or outcome.use.fatal, "model"))
        if run.notice(outcome.row):
            await self._look(run)

    def _curtailment(self, job: JobRecord, total: int) -> Curtailment | None:
        """The watch over a job that asks for `fail_fast`, with the rows that an earlier process ended."""
        extensions = job.body.get("extensions") or {}
        rule, samples = extensions.get("fail_fast"), extensions.get("samples", 1)
        if rule is None or self._parts.is_certain is None:
            return None
        rows = [EvalRow.model_validate(row) for row in self._store.jobs.rows(job.number)]
        fail_fast = FailFast.model_validate(rule)
        return Curtailment(self._parts.is_certain, fail_fast, total // samples, samples, rows)

    async def _look(self, run: _Run) -> None:
        """Ask a task app that does not answer its rollouts whether it is still there.

        Raises:
            JobEnds: If it is not.
        """
        run.is_asking = True
        try:
            await self._parts.probe.check_alive(run.target.app)
        except NotReady as error:
            run.ends(Failure(str(error), error.kind))
        finally:
            run.is_asking = False
        run.unreachable_in_a_row = 0

    def _target(self, job: JobRecord) -> Target:
        """Put a job's secrets back.

        Raises:
            JobEnds: If a secret of the job was lost with the process that had it, and no other one will do.
        """
        body = job.body
        try:
            own = self._credentials.get(job)
        except LostSecret as error:
            raise JobEnds(Failure(str(error), "backend")) from error
        extensions = body.get("extensions") or {}
        prompt = extensions.get("prompt")
        return Target(
            job_id=job.id,
            tenant=job.tenant,
            app=TaskApp(body["task_app_url"], self._credentials.task_app_keys(job, own)),
            env_name=body.get("env_name"),
            env_config=body["env_config"],
            policy=put_back(body, own)["policy"],
            timeout_s=body["timeout"],
            prompt=None if prompt is None else Prompt.parse(prompt),
            prompt_source="app" if prompt is None else extensions.get("prompt_source") or "call",
            cassette=extensions.get("cassette"),
            record_mode=extensions.get("record_mode", "off"),
            budget=self._budget(job, extensions.get("max_cost")),
        )

    def _budget(self, job: JobRecord, max_cost: float | None) -> Budget | None:
        """The ceilings that a job's calls count against; what an earlier process spent is spent."""
        if max_cost is None:
            return self._parts.budget
        spent = self._store.jobs.progress(job.number).cost_usd or 0.0
        return Budget(max_cost, spent_usd=spent, parent=self._parts.budget)

    def _record(self, run: _Run, place: RolloutPlace, outcome: Outcome) -> None:
        """Store a row and its events together."""
        row, job = outcome.row, run.job
        with self._store.database.transaction():
            self._store.jobs.finish_place(
                job.number,
                place.place,
                row.model_dump(mode="json"),
                reward=row.score,
                tokens=row.tokens,
                cost_usd=row.cost_usd,
                trace=run.target.without_secrets(trace_of(outcome, whole=bool(job.body["save_trace"]))),
            )
            data = {"seed": row.seed, "sample": row.sample, "reward": row.score, "error": row.error}
            self._event(job, "seed.completed", data)
            self._event(job, "job.progress", {"completed": run.completed + 1, "total": run.total})
        run.completed += 1

    def _finish(self, job: JobRecord, status: JobStatus, failure: Failure | None) -> None:
        """End a job: no rollout is left without a row, no state without its event."""
        with self._store.database.transaction():
            if failure is not None:
                self._fill(job, failure)
            progress = self._store.jobs.progress(job.number)
            error = failure.error if failure is not None and status is JobStatus.FAILED else None
            if status is JobStatus.COMPLETED and not progress.rewards:
                status = JobStatus.FAILED
                error = self._all_failed(job)
            self._store.jobs.end(job.number, status, error)
            self._credentials.forget(job.id)
            match status:
                case JobStatus.COMPLETED:
                    missing = progress.total - len(progress.rewards)
                    said = f"{missing} of {progress.total} rollouts have no reward" if missing else None
                    data = {"mean_reward": mean(progress.rewards), "error": said}
                    self._event(job, "job.completed", data)
                case JobStatus.CANCELLED:
                    self._event(job, "job.cancelled", {})
                case _:
                    self._event(job, "job.failed", {"error": error})

    def _fill(self, job: JobRecord, failure: Failure) -> None:
        split = job.body["env_config"].get("split")
        for place in self._store.jobs.open_places(job.number):
            row = EvalRow(
                seed=place.seed,
                split=split if isinstance(split, str) else None,
                sample=place.sample,
                error=failure.error,
                error_kind=failure.kind,
                cost_usd=0.0,
            )
            self._store.jobs.finish_place(
                job.number, place.place, row.model_dump(mode="json"), reward=None, tokens=0, cost_usd=0.0
            )

    def _all_failed(self, job: JobRecord) -> str:
        rows = self._store.jobs.rows(job.number)
        first = rows[0]
        return f"all {len(rows)} rollouts failed; seed {first['seed']}: {first['error']}"

    def _event(self, job: JobRecord, name: str, data: Mapping[str, Any], *, message: str = "") -> None:
        self._store.events.add(
            job.number,
            f"eval.policy.{name}",
            data,
            message=message,
            level="error" if name == "job.failed" else "info",
        )


@dataclass
class _Run:
    """A job while it runs.

    Attributes:
        completed: How many of its `total` rollouts have ended.
        failure: Why the rest cannot run, once that is known.
    """

    job: JobRecord
    target: Target
    total: int
    completed: int
    unreachable_in_a_row: int = 0
    is_asking: bool = False
    has_begun: bool = False
    curtailment: Curtailment | None = None
    failure: Failure | None = None

    def notice(self, row: EvalRow) -> bool:
        """Hear of a rollout that has ended; returns whether the task app seems to be gone."""
        self.unreachable_in_a_row = self.unreachable_in_a_row + 1 if row.error_kind == "unreachable" else 0
        return self.unreachable_in_a_row >= UNREACHABLE_IN_A_ROW and not self.is_asking

    def ends(self, failure: Failure) -> NoReturn:
        """End the job: what is in flight is cut, and the rest gets the same reason.

        Raises:
            JobEnds: Always.
        """
        self.failure = failure
        raise JobEnds(failure)


def places(seeds: Sequence[int], samples: int) -> Iterable[RolloutPlace]:
    """List the rollouts of a job: each seed `samples` times; a seed that is given twice gets more samples."""
    seen: dict[int, int] = {}
    place = 0
    for seed in seeds:
        for _ in range(samples):
            sample = seen.get(seed, 0)
            seen[seed] = sample + 1
            yield RolloutPlace(place, seed, sample)
            place += 1


def _digest(body: EvalSubmit, content: Mapping[str, Any]) -> str | None:
    """Name an idempotent submission: its run, its test and all that it asks for, but for secrets."""
    extensions = body.extensions
    if extensions is None or extensions.run_id is None or extensions.node_id is None:
        return None
    return hashlib.sha256(encode(content).encode()).hexdigest()
