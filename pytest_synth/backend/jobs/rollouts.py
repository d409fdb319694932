"""One rollout: opened at the gateway, run by the task app, read, and made into a row."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pytest_synth.backend.gateway import Budget, Gateway, Rollout, RolloutSpec, RolloutUse
from pytest_synth.backend.jobs.credentials import key_paths, take_secrets
from pytest_synth.backend.jobs.task_apps import Answer, TaskApp, TaskAppCaller, Unreachable, refusal, shorten
from pytest_synth.contracts.evals import EvalRow, PromptSource
from pytest_synth.contracts.rewards import RewardReading, read_reward
from pytest_synth.prompts import Prompt

monotonic = time.monotonic  # taken at import: a clock frozen by a test must not change latencies

TRIES = 3  # of a rollout whose model breaks its answers off
WORTH_A_TRY = 0.1  # of the rollout's time

_FAILED_STATES = frozenset({"timeout", "network_error", "apply_failed", "runtime_error"})
_HIDDEN = "[hidden]"
_QUOTE_CHARS = 60  # of a model's error in a task app's: so much of it, and it is the same
_SECRET_CHARS = 6  # what is shorter is a word


@dataclass(frozen=True)
class Target:
    """What all rollouts of a job have in common.

    Attributes:
        policy: With the user's own `api_key`, if the job has one: the task app gets it.
        timeout_s: For one rollout, its retries included.
        cassette, record_mode, budget, baseline: As in `RolloutSpec`.
    """

    job_id: str
    tenant: str
    app: TaskApp
    env_name: str | None
    env_config: Mapping[str, Any]
    policy: Mapping[str, Any] = field(repr=False)
    timeout_s: float
    prompt: Prompt | None = None
    prompt_source: PromptSource = "app"
    cassette: str | None = None
    record_mode: str = "off"
    budget: Budget | None = None
    baseline: Prompt | None = None

    @property
    def split(self) -> str | None:
        split = self.env_config.get("split")
        return split if isinstance(split, str) else None

    def without_secrets(self, value: Any) -> Any:
        """Take the job's keys out of all texts of a JSON value: task apps echo what they were sent."""
        _, own = take_secrets(self.policy, list(key_paths(self.policy)))
        secrets = [secret for secret in (*self.app.keys, *own.values()) if len(secret) >= _SECRET_CHARS]
        return _without(value, secrets) if secrets else value


@dataclass(frozen=True)
class Failure:
    """Why a rollout has no reward: a text for people, and a word for programs."""

    error: str
    kind: str


@dataclass(frozen=True)
class Outcome:
    """A rollout that has ended.

    Attributes:
        row: As it is stored and sent.
        answer: The task app's answer, if it was a JSON object.
        use: The model calls, as the gateway saw them.
    """

    row: EvalRow
    answer: Mapping[str, Any] | None
    use: RolloutUse


class RunningRollout:
    """A rollout that is open at the gateway. Made by `RolloutRunner.open`; ends by `run` or `cut`."""

    def __init__(
        self, target: Target, seed: int, sample: int, gateway: Gateway, caller: TaskAppCaller
    ) -> None:
        self._target = target
        self._seed = seed
        self._sample = sample
        self._gateway = gateway
        self._caller = caller
        self._started = monotonic()
        self._earlier: RolloutUse | None = None
        self._rollout = self._open()

    async def run(self) -> Outcome:
        """Send the rollout and read its reward. Never raises but when it is cancelled: then call `cut`.

        A rollout that failed as an answer of its model broke off is sent again, `TRIES` times in all, while
        `WORTH_A_TRY` of its time is left.
        """
        outcome = await self._try()
        for _ in range(TRIES - 1):
            is_lost = outcome.row.error is not None and outcome.use.is_cut_off and not outcome.use.is_void
            if not is_lost or self._left_s < WORTH_A_TRY * self._target.timeout_s:
                break
            self._earlier = outcome.use
            self._rollout = self._open()
            outcome = await self._try()
        return outcome

    @property
    def _left_s(self) -> float:
        return self._target.timeout_s - (monotonic() - self._started)

    def _open(self) -> Rollout:
        target = self._target
        return self._gateway.open_rollout(
            RolloutSpec(
                job_id=target.job_id,
                tenant=target.tenant,
                split=target.split,
                seed=self._seed,
                sample=self._sample,
                policy=target.policy,
                prompt=target.prompt,
                cassette=target.cassette,
                record_mode=target.record_mode,
                budget=target.budget,
                baseline=target.baseline,
                timeout_s=self._left_s,
            )
        )

    async def _try(self) -> Outcome:
        answer: Answer | None = None
        failure: Failure | None = None
        try:
            answer = await self._caller.post(
                self._target.app, "/rollout", self._request(), timeout_s=self._left_s
            )
        except TimeoutError:
            failure = Failure(f"no answer within {self._target.timeout_s:g} s", "timeout")
        except Unreachable as error:
            failure = Failure(f"task app is unreachable ({error})", "unreachable")
        use = self._gateway.close_rollout(self._rollout)
        document: object = None
        if failure is None:
            assert answer is not None
            failure, document = read_answer(answer, self._target.app, self._rollout.correlation_id)
        reading = read_reward(document) if failure is None else RewardReading(None, None)
        failure = _void(use) or (
            self._judge(failure, reading, use) if failure is None or failure.kind == "task_app" else failure
        )
        return self._outcome(use, reading, failure, document if isinstance(document, Mapping) else None)

    def cut(self, failure: Failure) -> Outcome:
        """End the rollout without waiting for the task app; what its calls have cost is kept."""
        use = self._gateway.close_rollout(self._rollout)
        return self._outcome(use, RewardReading(None, None), failure, None)

    def _outcome(
        self,
        use: RolloutUse,
        reading: RewardReading,
        failure: Failure | None,
        document: Mapping[str, Any] | None,
    ) -> Outcome:
        if self._earlier is not None:
            use = use.after(self._earlier)
        return Outcome(self._row(use, reading, failure), document, use)

    def _request(self) -> dict[str, Any]:
        target = self._target
        env: dict[str, Any] = {"config": dict(target.env_config), "seed": self._seed}
        if target.env_name is not None:
            env["env_name"] = target.env_name
        return {
            "trace_correlation_id": self._rollout.correlation_id,
            "env": env,
            "policy": {"config": {**target.policy, "inference_url": self._rollout.inference_url}},
            "safety": {"max_time_s": target.timeout_s},
        }

    def _judge(self, failure: Failure | None, reading: RewardReading, use: RolloutUse) -> Failure | None:
        """Name what went wrong in the end: the model, the task app, its reward, or the prompt."""
        model_error = use.calls[-1].error if use.calls else None
        if failure is not None:
            if model_error is None:
                return failure
            # An app that quotes the model's answer would have it told twice.
            quoted = model_error[:_QUOTE_CHARS] in failure.error
            said = failure.error.partition(": ")[0] if quoted else failure.error
            return Failure(f"{said}; its last model call failed: {shorten(model_error, 500)}", "model")
        if use.calls and all(call.error is not None for call in use.calls):
            # An app that turns a dead model into a reward of 0 must not pass for a bad prompt.
            count = "the only model call" if len(use.calls) == 1 else f"all {len(use.calls)} model calls"
            return Failure(f"{count} failed: {shorten(model_error or '')}", "model")
        if reading.reason is not None:
            return Failure(reading.reason, "no_reward")
        if self._target.prompt is not None and use.prompt_applied is not True:
            reason = use.prompt_reason or "the gateway saw no model call that it could be applied to"
            return Failure(f"prompt not applied: {reason}", "prompt_not_applied")
        return None

    def _row(self, use: RolloutUse, reading: RewardReading, failure: Failure | None) -> EvalRow:
        reward = reading.reward if failure is None else None
        row = EvalRow(
            seed=self._seed,
            split=self._target.split,
            sample=self._sample,
            score=reward,
            outcome_reward=reward,
            tokens=use.tokens,
            cost_usd=use.cost_usd,
            latency_ms=round((monotonic() - self._started) * 1000, 3),
            error=None if failure is None else failure.error,
            error_kind=None if failure is None else failure.kind,
            calls=len(use.calls),
            replayed=use.replayed,
            saved_usd=use.saved_usd,
            correlation_id=self._rollout.correlation_id,
            prompt_source=self._target.prompt_source,
            prompt_fingerprint=use.prompt_fingerprint,
            replaced_fingerprint=use.replaced_fingerprint,
            query=use.query,
            answer=use.answer,
            objectives=dict(reading.objectives),
            details=dict(reading.details),
        )
        shown = {
            name: self._target.without_secrets(getattr(row, name))
            for name in ("error", "query", "answer", "details")
        }
        return row.model_copy(update=shown)


def _void(use: RolloutUse) -> Failure | None:
    """Say why a reward would be none, whatever the task app says: a call that it needed was not made."""
    if use.fatal is not None:
        return Failure(f"the model refuses: {shorten(use.fatal)}", "model")
    if use.is_void and use.failure is not None:
        return Failure(use.failure.message, use.failure.kind)
    return None


@dataclass(frozen=True)
class RolloutRunner:
    """Opens rollouts; all jobs share it."""

    gateway: Gateway
    caller: TaskAppCaller

    def open(self, target: Target, seed: int, sample: int) -> RunningRollout:
        return RunningRollout(target, seed, sample, self.gateway, self.caller)


def read_answer(answer: Answer, app: TaskApp, correlation_id: str) -> tuple[Failure | None, object]:
    """Decode the answer to a rollout; a failure says what is wrong with it."""
    if answer.status != 200:
        if answer.is_refusal:
            return Failure(refusal(app, "POST /rollout", answer.status), "refused"), None
        return Failure(f"task app answered {answer.status}: {answer.text}", "task_app"), None
    try:
        document = answer.json()
    except ValueError:
        return Failure(f"task app answered with text instead of JSON: {answer.text}", "task_app"), None
    if not isinstance(document, Mapping):
        return None, document
    echoed = document.get("trace_correlation_id")
    if echoed is not None and echoed != correlation_id:
        return Failure(
            f"task app answered for another rollout: its trace_correlation_id is {shorten(repr(echoed), 80)}"
            f" instead of {correlation_id!r}",
            "task_app",
        ), document
    state = document.get("success_status")
    if state in _FAILED_STATES:
        said = document.get("status_detail")
        return Failure(
            f"task app reports {state}" + (f": {shorten(said)}" if isinstance(said, str) else ""), "task_app"
        ), document
    return None, document


def _without(value: object, secrets: Sequence[str]) -> object:
    if isinstance(value, str):
        for secret in secrets:
            value = value.replace(secret, _HIDDEN)
        return value
    if isinstance(value, Mapping):
        return {_without(name, secrets): _without(item, secrets) for name, item in value.items()}
    if isinstance(value, list):
        return [_without(item, secrets) for item in value]
    return value
