"""Eval jobs of a run: submitted once each, waited for in short steps, cancelled when the run ends early."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING, Any

from pytest_synth.errors import (
    BackendUnreachable,
    InvalidRequestError,
    NotFoundError,
    RateLimitError,
    ServerError,
    SynthError,
)
from pytest_synth.evals.joining import Seen, complete, recover
from pytest_synth.evals.open_evals import Job, OpenEval
from pytest_synth.evals.progress import Look, Progress, Turns, sum_up
from pytest_synth.evals.published import published_body
from pytest_synth.evals.recording import Recording

if TYPE_CHECKING:
    from pytest_synth.client import EvalResult
    from pytest_synth.contracts.evals import EvalRow, PromptSource
    from pytest_synth.evals.apps import AppAddress
    from pytest_synth.evals.backends import Backend
    from pytest_synth.evals.relaying import Note
    from pytest_synth.evals.resources import Resources
    from pytest_synth.evals.settings import Settings
    from pytest_synth.evals.spec import EvalSpec
    from pytest_synth.report import EvalEntry

# Taken at import: a clock that a test has frozen must not stop the waiting.
monotonic = time.monotonic
sleep = time.sleep

LOCAL_POLL_S = (0.01, 0.1)  # first and longest pause; a status of the embedded backend costs 1 ms
REMOTE_POLL_S = (0.5, 3.0)
LOOKS = 4  # jobs that one look at the whole run asks for; a look comes every 0.2 s at most
STALL_S = 60.0  # beyond the time-out of a rollout: what retries and a slow backend may add
SILENCE_S = 60.0  # a backend elsewhere may be away for so long; its jobs go on meanwhile
OUTAGE_S = 120.0  # a tunnel is noticed to be down within 30 s, and restarted within 60 s
CANCEL_S = 10.0  # for all jobs that are left over at the end
_CANCEL_READ_S = 5.0
_TUNNEL_POLL_S = 0.2
NOT_RECORDED = Recording()


@dataclass(frozen=True)
class Request:
    """One eval to be submitted.

    Attributes:
        key: Names the eval within the run; a second submission of the same key is the same job.
        position: Lower ones are served first.
        prompt_source: Whose prompt `spec.prompt` is; "app" if there is none.
        recording: Where its model calls are recorded and replayed.
    """

    key: str
    spec: EvalSpec
    position: int
    prompt_source: PromptSource
    recording: Recording = NOT_RECORDED


class EvalJobs:
    """The jobs of one run.

    Everything that goes wrong with a job becomes its result: a status `failed` with the reason in
    `error`; nothing is raised but what interrupts the run.
    """

    def __init__(self, resources: Resources, settings: Settings, run_id: str | None) -> None:
        self._resources = resources
        self._settings = settings
        self._run_id = run_id
        self._evals: dict[str, OpenEval] = {}
        self._results: dict[str, EvalResult] = {}
        self._lost: list[str] = []  # jobs whose end was not seen
        self._ended: list[Progress] = []
        self._turns = Turns()

    def submit(self, request: Request, app: object) -> None:
        """Submit an eval; nothing happens if its key was submitted before."""
        if request.key in self._evals or request.key in self._results:
            return
        run = self._evals[request.key] = OpenEval(request, app)
        spec = request.spec
        try:
            has_samples = self._resources.backend().takes_extensions
            for sample in [None] if has_samples else range(spec.samples):
                run.jobs.append(self._start(run, spec.seeds, sample))
        except SynthError as error:
            self._lost += self._cancel(job.id for job in run.jobs)
            reason = str(error)
            if isinstance(error, InvalidRequestError):
                reason = f"the backend refuses the eval: {error.detail}"
            self._results[request.key] = _failed(reason, None if run.jobs else spec)
            del self._evals[request.key]

    def wait(self, request: Request, report: Callable[[Look], None]) -> EvalResult:
        """Wait for an eval that was submitted; its result is kept, so that a rerun costs nothing.

        Args:
            report: Called at every poll with what looks how far the whole run is.
        """
        if request.key not in self._results:
            run = self._evals[request.key]
            try:
                self._poll(run, report)
                result = run.joined()
            except SynthError as error:
                self._give_up(run, may_ask=not isinstance(error, BackendUnreachable))
                result = run.joined(str(error))
            self._results[request.key] = result
            self._ended.append(run.progress)
            del self._evals[request.key]
        return self._results[request.key]

    def with_model_calls(self, entry: EvalEntry, result: EvalResult) -> EvalEntry:
        """Add to the entry of an eval the model calls that tell why it has not passed.

        As far as they can be had: a backend that knows the published API only has traces of its own shape.
        """
        if entry.outcome == "passed" or not result.job_id or not self._resources.backend().takes_extensions:
            return entry
        from pytest_synth.evals.model_calls import add_model_calls

        try:
            traces = self._resources.client().eval_traces(result.job_id)
        except SynthError:
            return entry  # the verdict is there; this would only explain it
        return add_model_calls(entry, traces)

    def abandon(self, key: str) -> None:
        """Cancel an eval that nobody will wait for any more, so that it takes no turn from others."""
        run = self._evals.pop(key, None)
        if run is not None:
            self._results[key] = run.joined("nobody waited for it to end")
            self._lost += self._cancel(job.id for job in run.jobs)

    def cancel_all(self) -> Sequence[str]:
        """Cancel what may still run at a backend that outlives the run, at most `CANCEL_S` seconds long.

        Returns:
            Ids of the jobs that could not be cancelled.
        """
        ids = [*self._lost, *(job.id for run in self._evals.values() for job in run.jobs)]
        self._lost, self._evals = [], {}
        return () if self._resources.is_local else self._cancel(ids)  # its own backend stops with the run

    def _cancel(self, job_ids: Iterable[str]) -> list[str]:
        """Cancel jobs, and say which ones could not be."""
        from pytest_synth.client.endpoints import segment
        from pytest_synth.client.exchange import exchange

        left = list(job_ids)
        if not left:
            return left
        client = self._resources.client()

        def cancel(job_id: str) -> None:
            path = f"/api/eval/jobs/{segment(job_id)}/cancel"
            with suppress(SynthError):  # it stays in `left`
                client.run(exchange("POST", path, body={}, timeout_s=_CANCEL_READ_S))
                left.remove(job_id)

        # Daemons, all at once: one that hangs holds up neither the others nor the end of the process.
        threads = [threading.Thread(target=cancel, args=(job_id,), daemon=True) for job_id in left]
        for thread in threads:
            thread.start()
        deadline = monotonic() + CANCEL_S
        for thread in threads:
            thread.join(max(0.0, deadline - monotonic()))
        return list(left)

    def _start(
        self, run: OpenEval, seeds: tuple[int, ...], sample: int | None, *, is_second: bool = False
    ) -> Job:
        backend = self._resources.backend()
        body, route = self._body(run.request, seeds), ""
        if not backend.takes_extensions:
            body = published_body(body, backend)  # refuses before a tunnel is opened
        address = self._address(run.app)
        if not backend.takes_extensions:
            route = self._resources.open_route(run.app, run.request.spec.prompt)
        body |= {"task_app_url": address.url + route, "task_app_api_key": address.key}
        return Job(backend.client.submit_eval(body), seeds, sample, address, route, is_second)

    def _address(self, app: object) -> AppAddress:
        """Where the task app is, once its tunnel is up: a job that starts earlier would lose rollouts."""
        deadline = monotonic() + OUTAGE_S
        while True:
            address = self._resources.address_of(app)
            if address.is_up or monotonic() > deadline:
                return address
            sleep(_TUNNEL_POLL_S)

    def _body(self, request: Request, seeds: tuple[int, ...]) -> dict[str, Any]:
        spec = request.spec
        extensions: dict[str, Any] = {
            "samples": spec.samples,
            "prompt_source": request.prompt_source,
            "run_id": self._run_id,
            "node_id": request.key,
            "position": request.position,
        }
        if spec.prompt is not None:
            extensions["prompt"] = spec.prompt.to_wire()
        if request.recording.cassette is not None:
            extensions["cassette"] = request.recording.cassette
            extensions["record_mode"] = request.recording.mode
        if spec.max_cost is not None:
            extensions["max_cost"] = spec.max_cost
        if self._settings.fail_fast and spec.min_reward is not None:
            extensions["fail_fast"] = {"min_reward": spec.min_reward, "allow_missing": spec.allow_missing}
        return {
            "env_name": spec.env_name,
            "seeds": list(seeds),
            "policy": self._settings.policy | dict(spec.policy or {}),
            "env_config": dict(spec.env_config or {}),
            "max_concurrent": self._concurrency(request),
            "timeout": spec.timeout,
            "extensions": extensions,
        }

    def _concurrency(self, request: Request) -> int:
        return request.spec.max_concurrent or self._settings.concurrency

    def _poll(self, run: OpenEval, report: Callable[[Look], None]) -> None:
        """Look at the jobs of an eval until all have ended.

        Raises:
            SynthError: If there is nothing to wait for any more; what has ended is in `run`.
        """
        backend = self._resources.backend()
        pause, longest = LOCAL_POLL_S if backend.is_near else REMOTE_POLL_S
        done, moved_at, heard_at = -1, monotonic(), monotonic()
        while run.jobs:
            address = self._resources.address_of(run.app)
            try:
                for job in list(run.jobs):
                    self._look(run, job, address)
                heard_at = monotonic()
            except (BackendUnreachable, RateLimitError, ServerError):
                if backend.is_near or monotonic() - heard_at > SILENCE_S:
                    raise
            if run.progress.completed != done:
                done, moved_at = run.progress.completed, monotonic()
            elif monotonic() - moved_at > self._stall_s(run.request, backend):
                raise SynthError(
                    f"job {run.jobs[0].id} made no progress for {monotonic() - moved_at:.0f} s "
                    f"({done} of {run.progress.total} rollouts done)"
                )
            if run.jobs:
                report(lambda: self._overview(run))
                sleep(pause)
                pause = min(pause * 1.5, longest)

    def _overview(self, awaited: OpenEval) -> Progress:
        """How far the run is, with a look at the next few jobs that nobody waits for."""
        from pytest_synth.client import EvalResult

        others = [job for run in self._evals.values() if run is not awaited for job in run.jobs]
        for job in self._turns.take(others, LOOKS):
            with suppress(SynthError):  # told when it is waited for
                job.note(EvalResult.from_response(job.id, self._resources.client().eval_status(job.id)))
        parts = [*self._ended, *(run.progress for run in self._evals.values())]
        return sum_up(parts, mean_reward=awaited.progress.mean_reward)

    def _stall_s(self, request: Request, backend: Backend) -> float:
        """Seconds without progress that are too many; a backend may tell of none before the end."""
        spec = request.spec
        waves = 1 if backend.is_ours else ceil(len(spec.seeds) / self._concurrency(request))
        return spec.timeout * waves + STALL_S

    def _look(self, run: OpenEval, job: Job, address: AppAddress) -> None:
        """Ask for a job's status; take its rows once it has ended, or can bring no more."""
        from pytest_synth.client import EvalResult

        client = self._resources.client()
        status = EvalResult.from_response(job.id, client.eval_status(job.id))
        has_moved = address.url != job.address.url
        if has_moved and not status.is_terminal:
            # A quick tunnel is back under another name, which the job does not know.
            self._cancel([job.id])
            status = EvalResult.from_response(job.id, client.eval_status(job.id))
        job.note(status)
        if not (status.is_terminal or has_moved):
            return
        result = self._result(status)
        missing = job.seeds_without_reward(job.rows_of(result), run.request.spec.samples)
        if missing and not has_moved and not address.is_up:
            # Its last rollouts may have been lost with the tunnel, which has not been restarted yet.
            job.ended_at = job.ended_at or monotonic()
            if monotonic() - job.ended_at < OUTAGE_S:
                return
        if missing and address.generation != job.address.generation:
            self._take_cut(run, job, result)
        else:
            run.rows += _completed(run, job, job.rows_of(result), self._notes(run, job))
            run.results.append(result)
            run.jobs.remove(job)

    def _take_cut(self, run: OpenEval, job: Job, result: EvalResult) -> None:
        """Keep the rewards of a job that a tunnel's restart has cut, and submit the rest again, once."""
        notes = self._notes(run, job)
        rows = recover(job.rows_of(result), notes or ())
        missing = job.seeds_without_reward(rows, run.request.spec.samples)
        run.rows += [row for row in _completed(run, job, rows, notes) if row.seed not in missing]
        run.jobs.remove(job)
        if not missing:
            return
        if job.is_second:
            raise SynthError(f"the tunnel to the task app was restarted twice, and cut job {job.id} too")
        try:
            run.jobs.append(self._start(run, missing, job.sample, is_second=True))
        except SynthError as error:
            raise SynthError(
                f"the tunnel was restarted, and what it had cut cannot run again: {error}"
            ) from error

    def _result(self, status: EvalResult) -> EvalResult:
        """A job's result, as far as there is one."""
        from pytest_synth.client import EvalResult

        try:
            results = self._resources.client().eval_results(status.job_id)
        except (InvalidRequestError, NotFoundError):
            if status.succeeded:
                raise
            return status  # the published API has results of completed jobs only
        return EvalResult.from_response(status.job_id, status.raw | results)

    def _notes(self, run: OpenEval, job: Job) -> Sequence[Note] | None:
        """What was seen of a job's rollouts here; asked for once, at its end. None: they do not come by."""
        return self._resources.close_route(run.app, job.route) if job.route else None

    def _give_up(self, run: OpenEval, *, may_ask: bool) -> None:
        """Cancel what is open, and keep the rewards that are there: they are paid for."""
        from pytest_synth.client import EvalResult

        self._lost += self._cancel(job.id for job in run.jobs)
        for job in run.jobs if may_ask else ():
            with suppress(SynthError):  # the eval has failed already, for a reason of its own
                status = EvalResult.from_response(job.id, self._resources.client().eval_status(job.id))
                notes = self._notes(run, job)
                rows = recover(job.rows_of(self._result(status)), notes or ())
                run.rows += [row for row in _completed(run, job, rows, notes) if row.score is not None]


def _completed(run: OpenEval, job: Job, rows: list[EvalRow], notes: Sequence[Note] | None) -> list[EvalRow]:
    """A job's rows with what the backend does not tell, if it is one of the published API."""
    if job.sample is None:
        return rows
    return complete(rows, Seen(run.request.spec, run.request.prompt_source, job.sample, notes))


def _failed(reason: str, unsent: EvalSpec | None) -> EvalResult:
    """The result of an eval that did not start; what no backend has is known to have cost nothing."""
    from pytest_synth.client import EvalResult

    rows = []
    if unsent is not None:
        common = {"split": unsent.split, "error": reason, "error_kind": "not_run", "cost_usd": 0.0}
        places = itertools.product(unsent.seeds, range(unsent.samples))
        rows = [{"seed": seed, "sample": sample, **common} for seed, sample in places]
    return EvalResult.from_response("", {"status": "failed", "error": reason, "results": rows})
