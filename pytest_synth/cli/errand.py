"""The one rollout that `pytest-synth doctor` has run, and what its outcome says. No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from pytest_synth.cli.check import Check
from pytest_synth.cli.shapes import KEY_REMEDY, LOG_REMEDY, ROW_REMEDY, Answer, Problem, read_rollout, shorten

if TYPE_CHECKING:
    from pytest_synth.cli.tap import SeenRollout
    from pytest_synth.client import EvalResult, SynthClient
    from pytest_synth.contracts.evals import EvalRow


@dataclass(frozen=True)
class Errand:
    """Where the one rollout is run.

    Attributes:
        url: Of the task app, for the backend of `client`.
        is_stand_in: The embedded backend with the offline model, in place of what is configured.
    """

    client: SynthClient
    url: str
    policy: Mapping[str, Any]
    is_stand_in: bool

    @property
    def model(self) -> str:
        return f"{self.policy['provider']}/{self.policy['model']}"


@dataclass(frozen=True)
class Outcome:
    """What has come of it: the job's result, and the rollout as it passed on this machine, if it did."""

    result: EvalResult
    seen: SeenRollout | None

    @property
    def row(self) -> EvalRow | None:
        return self.result.rows[0] if self.result.rows else None


def judge_rollout(checked: str, outcome: Outcome) -> Check:
    """Judge the task app's answer, first as it was seen, then as the backend tells it."""
    row, seen = outcome.row, outcome.seen
    if row is not None and row.error_kind == "model":
        return Check("rollout", "skipped", checked, "its model call has failed")
    if seen is not None:
        reward = read_rollout(Answer(seen.status, seen.body), seen.correlation_id)
        if isinstance(reward, Problem):
            return problem_check("rollout", checked, reward)
    if row is None or row.outcome_reward is None:
        said = (row.error if row is not None else None) or outcome.result.error
        kind = row.error_kind if row is not None else None
        remedy = {"refused": KEY_REMEDY, "out_of_range": ROW_REMEDY}.get(kind or "", LOG_REMEDY)
        return Check(
            "rollout", "failed", checked, shorten(said or f"the job is {outcome.result.status}"), remedy
        )
    return Check("rollout", "ok", checked, f"reward {row.outcome_reward:.2f}")


def judge_inference(errand: Errand, outcome: Outcome) -> Check:
    """Judge whether model calls arrived where the rollout was told to send them, and were answered."""
    row, seen = outcome.row, outcome.seen
    where = _origin(seen.inference_url) if seen is not None else errand.client.base_url
    if row is not None and row.error_kind == "model":
        return _model_failure(errand, row.error or "")
    if row is None or row.outcome_reward is None:
        return Check("inference", "skipped", errand.model, "the rollout has failed before")
    # A backend that does not count calls leaves the field out; tokens tell of them as well.
    calls = outcome.result.seed_results[0].get("calls")
    if calls or (calls is None and row.tokens > 0):
        count = "model calls" if calls is None else f"{calls} model call{'s' if calls > 1 else ''}"
        return Check("inference", "ok", errand.model, f"{count} arrived at {where}")
    if calls is None:
        return Check("inference", "skipped", errand.model, "this backend does not tell of model calls")
    remedy = "send model calls to policy.config['inference_url'], unless the app calls no model"
    return Check("inference", "warning", errand.model, f"no model call arrived at {where}", remedy)


def problem_check(name: str, checked: str, problem: Problem) -> Check:
    return Check(name, "failed", checked, shorten(problem.what), problem.remedy)


def _model_failure(errand: Errand, error: str) -> Check:
    said = shorten(error.rpartition("its last model call failed: ")[2])
    if errand.is_stand_in:
        remedy = "set synth_provider and synth_model to check it with a model"
        return Check("inference", "skipped", errand.model, f"a stand-in, which says: {said}", remedy)
    if errand.policy["provider"] == "offline":
        remedy = "set synth_provider and synth_model, or give the prompt what the offline model needs"
    else:
        remedy = f"check key and address of provider {errand.policy['provider']!r}, and the model's name"
    return Check("inference", "failed", errand.model, said, remedy)


def _origin(url: str) -> str:
    """Scheme and host; the rest of an inference URL is a secret."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
