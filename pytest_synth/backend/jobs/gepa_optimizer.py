"""GEPA as the optimiser of prompt-learning jobs: its ports on the scheduler, the gateway and the store."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from pytest_synth.backend.gateway import Budget, CallRefused, Gateway, ModelCall, RolloutSpec
from pytest_synth.backend.jobs.optimizers import FieldsRefused, RunRollout, SearchEnd, SearchPlan, SearchRun
from pytest_synth.backend.jobs.rollouts import Outcome
from pytest_synth.backend.optimizer import (
    Engine,
    GepaConfig,
    GepaConfigError,
    GepaEngine,
    Host,
    ReflectionAnswer,
    ReflectionFailed,
    ReflectionKey,
    ReflectionRequest,
    RolloutKey,
    RolloutOutcome,
    RolloutRequest,
    inputs_of,
    parse_gepa_config,
)
from pytest_synth.backend.store import Store
from pytest_synth.backend.store.encoding import encode
from pytest_synth.contracts.jobs import JobStatus
from pytest_synth.prompts import Prompt

OFFLINE, OFFLINE_REFLECTION = "offline", "reflect"
CAPPED_REFLECTION_TOKENS = 8192  # under a ceiling; without a limit no worst case could be set aside
_PROMPT_MAY_BE_AT_FAULT = ("task_app", "no_reward")  # error kinds that the reflection model is shown


class GepaOptimizer:
    """An `Optimizer` over the GEPA engine."""

    def __init__(
        self, store: Store, gateway: Gateway, engine: Engine | None = None, *, ceiling: Budget | None = None
    ) -> None:
        self._store = store
        self._gateway = gateway
        self._engine = engine if engine is not None else GepaEngine()
        self._ceiling = ceiling

    def plan(self, section: Mapping[str, Any]) -> SearchPlan:
        try:
            config = parse_gepa_config(section)
            plan = self._engine.plan(config)
        except GepaConfigError as error:
            raise FieldsRefused(error.problems) from error
        seeds: dict[str | None, list[int]] = {config.task.split: list(config.train_seeds)}
        seeds.setdefault(config.validation_split, []).extend(config.validation_seeds)
        return SearchPlan(
            app_url=config.task.app_url,
            env_name=config.task.env_name,
            env_config=config.task.env_config,
            policy=config.task.policy,
            models={
                "prompt_learning.policy": config.task.policy,
                "prompt_learning.gepa.reflection": reflection_policy(config),
            },
            seeds=seeds,
            max_concurrent=config.max_concurrent,
            baseline=config.prompt if config.has_wildcards else None,
            document={"plan": plan.to_document(), "not_applied": list(config.not_applied)},
        )

    async def run(self, run: SearchRun) -> SearchEnd:
        config = parse_gepa_config(run.section)
        host = Host(
            rollouts=TaskAppRollouts(run.run_rollout),
            reflector=GatewayReflector(
                self._gateway, config, run.job.id, run.job.tenant, ceiling=self._ceiling
            ),
            emit=run.emit,
            ledger=StoreLedger(self._store, run.job.number),
        )
        outcome = await self._engine.run(config, host, cancel=run.cancel, already_emitted=run.already_emitted)
        if outcome.is_cancelled:
            return SearchEnd(JobStatus.CANCELLED)
        if outcome.has_failed:
            return SearchEnd(JobStatus.FAILED, outcome.detail)
        return SearchEnd(JobStatus.SUCCEEDED)


def reflection_policy(config: GepaConfig) -> dict[str, Any]:
    """Say which model proposes prompts: the config's, else the policy's; for `offline` its own one."""
    policy = config.task.policy
    provider = config.reflection.provider or policy["provider"]
    if config.reflection.model is not None:
        return {"provider": provider, "model": config.reflection.model}
    if provider == OFFLINE:
        return {"provider": OFFLINE, "model": OFFLINE_REFLECTION}
    chosen = {"provider": provider, "model": policy["model"]}
    return {**chosen, "api_key": policy["api_key"]} if "api_key" in policy else chosen


class TaskAppRollouts:
    """The engine's rollouts, by the job's lane."""

    def __init__(self, run_rollout: RunRollout) -> None:
        self._run_rollout = run_rollout

    async def rollout(self, request: RolloutRequest) -> RolloutOutcome:
        key = request.key
        outcome = await self._run_rollout(request.prompt, key.split, key.seed, key.sample)
        return rollout_outcome(request.prompt, outcome)


def rollout_outcome(prompt: Prompt, outcome: Outcome) -> RolloutOutcome:
    """Translate a row into what the engine learns from."""
    row = outcome.row
    calls = [call for call in outcome.use.calls if call.is_policy]
    inputs = _inputs(prompt, calls[-1]) if calls else {}
    if not inputs and row.query is not None:
        inputs = {"user": row.query}
    kind = None
    if row.error is not None:
        kind = "rollout" if row.error_kind in _PROMPT_MAY_BE_AT_FAULT else "infrastructure"
    return RolloutOutcome(
        reward=row.score,
        error=row.error,
        error_kind=kind,  # type: ignore[arg-type]
        inputs=inputs,
        output=row.answer,
        details=row.details,
        event_rewards=_event_rewards(outcome.answer),
        cost_usd=row.cost_usd,
        tokens=row.tokens,
    )


def _inputs(prompt: Prompt, call: ModelCall) -> dict[str, Any]:
    messages = call.request.get("messages")
    if not isinstance(messages, list):
        return {}
    return inputs_of(prompt, [message for message in messages if isinstance(message, Mapping)])


def _event_rewards(answer: Mapping[str, Any] | None) -> tuple[float, ...]:
    block = answer.get("reward_info") if answer is not None else None
    rewards = block.get("event_rewards") if isinstance(block, Mapping) else None
    if not isinstance(rewards, list):
        return ()
    return tuple(float(reward) for reward in rewards if isinstance(reward, int | float))


class GatewayReflector:
    """The engine's reflection model, through the gateway, which prices and retries the call."""

    def __init__(
        self,
        gateway: Gateway,
        config: GepaConfig,
        job_id: str,
        tenant: str,
        *,
        ceiling: Budget | None = None,
    ) -> None:
        self._gateway = gateway
        self._ceiling = ceiling
        self._settings = config.reflection
        self._policy = reflection_policy(config)
        self._job_id = job_id
        self._tenant = tenant

    async def reflect(self, request: ReflectionRequest) -> ReflectionAnswer:
        spec = RolloutSpec(
            job_id=self._job_id,
            tenant=self._tenant,
            split=None,
            seed=request.key.child,
            sample=0,
            policy=self._policy,
            prompt=None,
            budget=self._ceiling,
        )
        rollout = self._gateway.open_rollout(spec)
        body = {
            "model": self._policy["model"],
            "messages": [{"role": "user", "content": request.text}],
            "temperature": self._settings.temperature,
        }
        if self._ceiling is not None:
            body["max_completion_tokens"] = CAPPED_REFLECTION_TOKENS
        try:
            async with asyncio.timeout(self._settings.timeout_s):
                answer = await self._gateway.ask(rollout, body)
        except TimeoutError:
            raise ReflectionFailed(
                f"the reflection model gave no answer within {self._settings.timeout_s:g} s"
            ) from None
        except CallRefused as error:
            raise ReflectionFailed(f"the reflection model gave no answer: {error}") from error
        finally:
            use = self._gateway.close_rollout(rollout)
        text = _text(answer)
        if text is None:
            raise ReflectionFailed("the reflection model's answer holds no text")
        return ReflectionAnswer(text, use.cost_usd)


def _text(answer: Mapping[str, Any]) -> str | None:
    try:
        text = answer["choices"][0]["message"]["content"]
    except (KeyError, IndexError, TypeError):
        return None
    return text if isinstance(text, str) and text.strip() else None


class StoreLedger:
    """The engine's ledger, in the store."""

    def __init__(self, store: Store, job: int) -> None:
        self._table = store.ledger
        self._job = job
        self._lost = self._table.count(job, "lost")

    def find_rollout(self, key: RolloutKey) -> RolloutOutcome | None:
        entry = self._table.find(self._job, "rollout", _rollout_name(key))
        return None if entry is None else RolloutOutcome.from_document(entry)

    def add_rollout(self, key: RolloutKey, outcome: RolloutOutcome) -> None:
        self._table.add(self._job, "rollout", _rollout_name(key), outcome.to_document())

    def add_lost_rollout(self) -> None:
        self._lost += 1
        self._table.add(self._job, "lost", str(self._lost), {})

    @property
    def lost_rollouts(self) -> int:
        return self._lost

    def find_reflection(self, key: ReflectionKey) -> ReflectionAnswer | None:
        entry = self._table.find(self._job, "reflection", _reflection_name(key))
        return None if entry is None else ReflectionAnswer(entry["text"], entry["cost_usd"])

    def add_reflection(self, key: ReflectionKey, answer: ReflectionAnswer) -> None:
        entry = {"text": answer.text, "cost_usd": answer.cost_usd}
        self._table.add(self._job, "reflection", _reflection_name(key), entry)


def _rollout_name(key: RolloutKey) -> str:
    return encode([key.fingerprint, key.split, key.seed, key.sample])


def _reflection_name(key: ReflectionKey) -> str:
    return encode([key.child, key.prompt_hash])
