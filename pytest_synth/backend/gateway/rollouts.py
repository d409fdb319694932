"""A rollout as the gateway sees it: what was asked for, the calls made, what came of them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from pytest_synth.backend.gateway.providers import Target
from pytest_synth.prompts import Message, Prompt

SHORT: Final = 2048  # characters of query and answer that travel with a row


@dataclass(frozen=True)
class RolloutSpec:
    """What a rollout runs with.

    Attributes:
        job_id, tenant: Whose rollout it is.
        split, seed, sample: Which task instance, and which repetition of it (from 0).
        policy: The job's policy; its provider and model decide where the calls go.
        prompt: The prompt under test; its system message replaces the task app's own. None: nothing is.
    """

    job_id: str
    tenant: str
    split: str | None
    seed: int
    sample: int
    policy: Mapping[str, Any]
    prompt: Prompt | None


@dataclass(frozen=True)
class ModelCall:
    """One call to a model, as it was sent and answered.

    Attributes:
        request: The body as sent, after substitution.
        response: The answer's body (a stream: put together); None when there was none.
        status: HTTP status that the task app got.
        latency_ms: From request to the last byte of the answer, retries included.
        prompt_tokens, completion_tokens: 0 when the answer told no usage.
        cost_usd: US dollars; None when the price is not known.
        error: Why there is no answer.
    """

    provider: str
    model: str
    request: dict[str, Any]
    response: dict[str, Any] | None
    status: int
    latency_ms: float
    prompt_tokens: int
    completion_tokens: int
    cost_usd: float | None
    error: str | None


@dataclass(frozen=True)
class RolloutUse:
    """What a rollout used, and what the gateway saw of it.

    Attributes:
        cost_usd: Of all calls; None when the price of one of them is not known.
        prompt_applied: None when no prompt was to be applied.
        prompt_reason: Why the prompt was not applied.
        prompt_fingerprint: Of the system message that ran, as `Prompt.parse(text).fingerprint` has it.
        query, answer: Last user message and the model's answer, at most `SHORT` characters each.
    """

    calls: tuple[ModelCall, ...]
    tokens: int
    cost_usd: float | None
    prompt_applied: bool | None
    prompt_reason: str | None
    prompt_fingerprint: str | None
    query: str | None
    answer: str | None


@dataclass(frozen=True)
class Rollout:
    """An open rollout: the secret pair of ids, and the base URL for its model calls."""

    trial_id: str
    correlation_id: str
    inference_url: str


class _Unseen:
    """Stands for "no call yet": None already means a call without a system message."""


UNSEEN: Final = _Unseen()


@dataclass
class LiveRollout:
    """State of an open rollout; touched on the backend's loop only."""

    spec: RolloutSpec
    target: Target
    calls: list[ModelCall] = field(default_factory=list)
    running: set[asyncio.Task[Any]] = field(default_factory=set)
    policy_system: str | _Unseen | None = UNSEEN
    system_ran: str | None = None
    applied: bool = False
    query: str | None = None
    answer: str | None = None
    closed: bool = False

    def claim(self, system: str | None) -> bool:
        """Say whether a call with this system message is the policy's.

        The first system message of a rollout is the policy's; calls with another one (judges, tools)
        are somebody else's.
        """
        if self.policy_system is UNSEEN:
            self.policy_system = system
        return self.policy_system == system

    def use(self) -> RolloutUse:
        """Sum up."""
        applied = None if self.spec.prompt is None else self.applied
        costs = [call.cost_usd for call in self.calls]
        return RolloutUse(
            calls=tuple(self.calls),
            tokens=sum(call.prompt_tokens + call.completion_tokens for call in self.calls),
            cost_usd=None if None in costs else sum(cost for cost in costs if cost is not None),
            prompt_applied=applied,
            prompt_reason=self._reason() if applied is False else None,
            prompt_fingerprint=(
                None if self.system_ran is None else Prompt((Message("system", self.system_ran),)).fingerprint
            ),
            query=self.query,
            answer=self.answer,
        )

    def _reason(self) -> str:
        assert self.spec.prompt is not None
        if self.spec.prompt.system is None:
            return "the prompt has no system message, and the gateway replaces system messages only"
        if self.policy_system is UNSEEN:
            return (
                "the task app made no model call at its inference_url "
                "(policy.config['inference_url'] of the rollout)"
            )
        return "no model call with the prompt was answered"


def shorten(text: str | None) -> str | None:
    """Cut a text to `SHORT` characters, with an ellipsis as the last one."""
    return text if text is None or len(text) <= SHORT else text[: SHORT - 1] + "…"
