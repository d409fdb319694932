"""Eval jobs of a run: submitted once each, waited for in short steps, cancelled when the run ends early."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pytest_synth.errors import SynthError

if TYPE_CHECKING:
    from pytest_synth.client import EvalResult
    from pytest_synth.contracts.evals import PromptSource
    from pytest_synth.evals.resources import Resources
    from pytest_synth.evals.settings import Settings
    from pytest_synth.evals.spec import EvalSpec

# Taken at import: a clock that a test has frozen must not stop the waiting.
monotonic = time.monotonic
sleep = time.sleep

LOCAL_POLL_S = (0.01, 0.1)  # first and longest pause; a status of the embedded backend costs 1 ms
REMOTE_POLL_S = (0.5, 3.0)
STALL_S = 60.0  # beyond the time-out of a rollout: what retries and a slow backend may add


@dataclass(frozen=True)
class Progress:
    """Rollouts of one eval that have ended, of all that it asked for."""

    completed: int
    total: int


@dataclass(frozen=True)
class Request:
    """One eval to be submitted.

    Attributes:
        key: Names the eval within the run; a second submission of the same key is the same job.
        position: Lower ones are served first.
        prompt_source: Whose prompt `spec.prompt` is; "app" if there is none.
    """

    key: str
    spec: EvalSpec
    position: int
    prompt_source: PromptSource


class EvalJobs:
    """The jobs of one run.

    Everything that goes wrong with a job becomes its result: a status `failed` with the reason in
    `error`; nothing is raised but what interrupts the run.
    """

    def __init__(self, resources: Resources, settings: Settings, run_id: str | None) -> None:
        self._resources = resources
        self._settings = settings
        self._run_id = run_id
        self._ids: dict[str, str] = {}
        self._results: dict[str, EvalResult] = {}

    def submit(self, request: Request, app: object) -> None:
        """Submit an eval; nothing happens if its key was submitted before."""
        if request.key in self._ids or request.key in self._results:
            return
        try:
            address = self._resources.address_of(app)
            body = self._body(request, address.url, address.key)
            self._ids[request.key] = self._resources.client().submit_eval(body)
        except SynthError as error:
            self._results[request.key] = _failed(str(error))

    def wait(self, request: Request, report: Callable[[Progress], None]) -> EvalResult:
        """Wait for an eval that was submitted; its result is kept, so that a rerun costs nothing."""
        if request.key not in self._results:
            try:
                self._results[request.key] = self._poll(request, report)
            except SynthError as error:
                self._results[request.key] = _failed(str(error), self._ids[request.key])
            del self._ids[request.key]
        return self._results[request.key]

    def cancel_all(self) -> None:
        """Cancel what is still running at a backend that outlives the run."""
        ids, self._ids = list(self._ids.values()), {}
        if self._resources.is_local:
            return  # its own backend stops with the run
        for job_id in ids:
            try:
                self._resources.client().cancel_eval(job_id)
            except SynthError:
                return  # unreachable: the others cannot be cancelled either

    def _body(self, request: Request, url: str, key: str | None) -> dict[str, Any]:
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
        if self._settings.fail_fast and spec.min_reward is not None:
            extensions["fail_fast"] = {"min_reward": spec.min_reward, "allow_missing": spec.allow_missing}
        return {
            "task_app_url": url,
            "task_app_api_key": key,
            "env_name": spec.env_name,
            "seeds": list(spec.seeds),
            "policy": self._settings.policy | dict(spec.policy or {}),
            "env_config": dict(spec.env_config or {}),
            "max_concurrent": spec.max_concurrent or self._settings.concurrency,
            "timeout": spec.timeout,
            "extensions": extensions,
        }

    def _poll(self, request: Request, report: Callable[[Progress], None]) -> EvalResult:
        from pytest_synth.client import EvalResult

        client, job_id = self._resources.client(), self._ids[request.key]
        pause, longest = LOCAL_POLL_S if self._resources.is_local else REMOTE_POLL_S
        done, since = -1, monotonic()
        while True:
            result = EvalResult.from_response(job_id, client.eval_status(job_id))
            if result.is_terminal:
                return EvalResult.from_response(job_id, result.raw | client.eval_results(job_id))
            if result.num_completed != done:
                done, since = result.num_completed, monotonic()
                report(Progress(result.num_completed, result.num_total))
            elif monotonic() - since > request.spec.timeout + STALL_S:
                client.cancel_eval(job_id)
                raise SynthError(
                    f"job {job_id} made no progress for {monotonic() - since:.0f} s "
                    f"({result.num_completed} of {result.num_total} rollouts done)"
                )
            sleep(pause)
            pause = min(pause * 1.5, longest)


def _failed(reason: str, job_id: str = "") -> EvalResult:
    from pytest_synth.client import EvalResult

    return EvalResult.from_response(job_id, {"status": "failed", "error": reason, "results": []})
