"""Searches for better prompts: submitted as prompt-learning jobs, and waited for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from pytest_synth.errors import (
    BackendUnreachable,
    InvalidRequestError,
    OptimizationFailed,
    RateLimitError,
    ServerError,
    SynthError,
)
from pytest_synth.evals import jobs
from pytest_synth.evals.optimization_results import OptimizationResult, Search, read_result
from pytest_synth.evals.published import refuse_own_fields

if TYPE_CHECKING:
    from pytest_synth.evals.optimize_spec import OptimizeSpec
    from pytest_synth.evals.resources import Resources
    from pytest_synth.evals.settings import Settings
    from pytest_synth.evals.spec import EvalSpec

STALL_S = 900.0  # a rollout may take 600 s, a reflection 120 s


Report = Callable[[list[str]], None]
"""Shows how far a search is: what there is to say, the most important first."""


class OptimizationJobs:
    """The searches of one run. What goes wrong is raised as `OptimizationFailed`, again at each call."""

    def __init__(self, resources: Resources, settings: Settings) -> None:
        self._resources = resources
        self._settings = settings
        self._open: dict[str, Search] = {}
        self._ended: dict[str, OptimizationResult | OptimizationFailed] = {}

    def submit(
        self, key: str, spec: OptimizeSpec, app: object, eval_spec: EvalSpec | None = None
    ) -> str | None:
        """Submit a search; nothing happens if its key was submitted before.

        Args:
            key: Names the search within the run.
            eval_spec: Of the test; gives model and task app's settings where `spec` names none.

        Returns:
            The backend's plan, at the first call; None if the search was refused.
        """
        if key in self._open or key in self._ended:
            return None
        try:
            self._open[key] = self._start(spec, app, eval_spec)
        except SynthError as error:
            self._ended[key] = OptimizationFailed(f"the search was not started: {_said(error, spec)}")
            return None
        return self._open[key].plan or "the backend tells no plan"

    def wait(self, key: str, report: Report) -> OptimizationResult:
        """Wait for a search that was submitted; its result is kept, so that a rerun costs nothing.

        Raises:
            OptimizationFailed: If it was refused, has failed or was cancelled.
        """
        if key not in self._ended:
            search = self._open[key]
            try:
                self._ended[key] = self._follow(search, report)
            except OptimizationFailed as error:
                self._ended[key] = error
            except SynthError as error:
                self._ended[key] = OptimizationFailed(f"the search {search.job_id} was lost: {error}")
            del self._open[key]
        ended = self._ended[key]
        if isinstance(ended, OptimizationFailed):
            raise ended
        return ended

    def cancel_all(self) -> list[str]:
        """Cancel what still runs at a backend that outlives the run; returns what could not be cancelled."""
        ids, self._open = [search.job_id for search in self._open.values()], {}
        if self._resources.is_local:
            return []
        left = []
        for job_id in ids:
            try:
                self._resources.client().cancel_prompt_job(job_id)
            except SynthError:
                left.append(job_id)
        return left

    def _start(self, spec: OptimizeSpec, app: object, eval_spec: EvalSpec | None) -> Search:
        client = self._resources.client()
        section = section_of(spec, self._settings, eval_spec)
        refuse_own_fields(section, self._resources.backend())
        address = self._resources.address_of(app)
        section["task_app_url"] = address.url
        is_named = isinstance(app, str) and "task_app_api_key" in section  # a file knows the key of its URL
        if address.key is not None and not is_named:
            section["task_app_api_key"] = address.key
        body = {
            "algorithm": section.get("algorithm", "gepa"),
            "config_body": {"prompt_learning": section},
            "auto_start": True,
        }
        job_id = client.submit_prompt_job(body)
        plan = _table(client.prompt_job(job_id).get("plan")).get("text")
        return Search(job_id, spec, _model(section), str(plan or ""))

    def _follow(self, search: Search, report: Report) -> OptimizationResult:
        from pytest_synth.client import endpoints
        from pytest_synth.client.prompt_results import PromptLearningResult

        client, is_local = self._resources.client(), self._resources.is_local
        pause, longest = jobs.LOCAL_POLL_S if is_local else jobs.REMOTE_POLL_S
        told: list[str] = []
        moved_at = heard_at = jobs.monotonic()
        while True:
            try:
                state = PromptLearningResult.from_response(search.job_id, client.prompt_job(search.job_id))
                heard_at = jobs.monotonic()
            except (BackendUnreachable, RateLimitError, ServerError):
                if is_local or jobs.monotonic() - heard_at > jobs.SILENCE_S:
                    raise
            else:
                if state.is_terminal:
                    break
                parts = progress_parts(_table(state.raw.get("progress")))
                if parts != told:
                    told, moved_at = parts, jobs.monotonic()
                report(parts)
            if jobs.monotonic() - moved_at > STALL_S:
                client.cancel_prompt_job(search.job_id)
                raise OptimizationFailed(
                    f"the search {search.job_id} made no progress for {STALL_S:.0f} s "
                    f"({', '.join(told) or 'none at all'})"
                )
            jobs.sleep(pause)
            pause = min(pause * 1.5, longest)
        if not state.succeeded:
            why = state.error or state.raw.get("finish_detail") or "the backend does not say why"
            raise OptimizationFailed(f"the search {search.job_id} ended {state.status.value!r}: {why}")
        return read_result(search, state.raw, client.run(endpoints.all_prompt_events(search.job_id)))


def section_of(spec: OptimizeSpec, settings: Settings, eval_spec: EvalSpec | None) -> dict[str, Any]:
    """Complete a section by what the run knows: model, split, limits; what the section names stays."""
    section = dict(spec.section)
    gepa = dict(_table(section.get("gepa")))
    rollout = dict(_table(gepa.get("rollout")))
    policy = settings.policy | dict((eval_spec.policy if eval_spec is not None else None) or {})
    section.setdefault("policy", {"inference_mode": "synth_hosted", **policy})
    env_config = dict((eval_spec.env_config if eval_spec is not None else None) or {})
    if spec.split is not None:
        env_config["split"] = spec.split
    if env_config and not section.get("env_config") and not gepa.get("env_config"):
        section["env_config"] = env_config
    if eval_spec is not None and eval_spec.env_name is not None:
        section.setdefault("env_name", eval_spec.env_name)
    limit = eval_spec.max_concurrent if eval_spec is not None else None
    rollout.setdefault("max_concurrent", limit or settings.concurrency)
    gepa["rollout"] = rollout
    if settings.max_cost:
        token = dict(_table(gepa.get("token")))
        gepa["token"] = {"max_spend_usd": settings.max_cost} | token
    return section | {"gepa": gepa}


def progress_parts(progress: Mapping[str, Any]) -> list[str]:
    """Rollouts of the budget, best and baseline, generation and children, cost, waiting for reflection."""
    if not progress:
        return []
    parts = [f"{progress.get('rollouts_completed', 0)}/{progress.get('rollouts_total', '?')} rollouts"]
    best, baseline = progress.get("best_score"), progress.get("baseline_score")
    if best is not None:
        parts.append(f"best {best:.2f}" + ("" if baseline is None else f" (baseline {baseline:.2f})"))
    if progress.get("phase") == "search":
        tried, planned = progress.get("transformations_tried", 0), progress.get("transformations_planned")
        parts += [f"generation {progress.get('generation', 0)}", f"{tried}/{planned or '?'} children"]
    elif progress.get("phase"):
        parts.append(str(progress["phase"]))
    if progress.get("cost_usd"):
        parts.append(f"${progress['cost_usd']:.4f}")
    if progress.get("reflection_wait_seconds"):
        parts.append(f"{progress['reflection_wait_seconds']:.0f} s waited for reflection")
    return parts


def _said(error: SynthError, spec: OptimizeSpec) -> str:
    return spec.explain(error.detail if isinstance(error, InvalidRequestError) else str(error))


def _model(section: Mapping[str, Any]) -> str:
    policy = _table(section.get("policy"))
    return f"{policy.get('provider')}/{policy.get('model')}"


def _table(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
