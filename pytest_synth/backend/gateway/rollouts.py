"""A rollout as the gateway sees it: what was asked for, the calls made, what came of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from pytest_synth.backend.gateway.budget import Budget
from pytest_synth.backend.gateway.providers import Target
from pytest_synth.backend.gateway.recorder import Recorder, RecordMode
from pytest_synth.backend.gateway.refusals import CallRefused
from pytest_synth.backend.gateway.relays import RelayTarget
from pytest_synth.prompts import Message, Prompt

SHORT: Final = 2048  # characters of query and answer that travel with a row
VOIDING: Final = frozenset({"replay_miss", "budget"})  # failures after which a reward is no reward


@dataclass(frozen=True)
class RolloutSpec:
    """What a rollout runs with.

    Attributes:
        job_id, tenant: Whose rollout it is.
        split, seed, sample: Which task instance, and which repetition of it (from 0).
        policy: The job's policy; its provider and model decide where the calls go.
        prompt: The prompt under test, which takes the place of the task app's own. None: nothing does.
        baseline: The prompt that the task app is known to send, with its wildcards (see `substitute`);
            without it the system message is replaced, and no other.
        cassette: Name of the file that calls are recorded in and replayed from.
        record_mode: A `RecordMode`; `off` without a cassette.
        budget: Ceiling that the calls count against; one object for all rollouts that share it.
        timeout_s: How long the rollout may take; a call gets half of what is left of it before it is made
            again. None: as long as the gateway's patience lasts.
    """

    job_id: str
    tenant: str
    split: str | None
    seed: int
    sample: int
    policy: Mapping[str, Any]
    prompt: Prompt | None
    cassette: str | None = None
    record_mode: str = "off"
    budget: Budget | None = None
    baseline: Prompt | None = None
    timeout_s: float | None = None


@dataclass(frozen=True)
class ModelCall:
    """One call to a model, as it was sent and answered.

    Attributes:
        request: The body as sent, after substitution.
        response: The answer's body (a stream: put together); None when there was none.
        status: HTTP status that the task app got.
        latency_ms: From request to the last byte of the answer, retries included.
        prompt_tokens, completion_tokens: 0 when the answer told no usage.
        cost_usd: US dollars that were paid for it; None when that is not known.
        error: Why there is no answer.
        operation: Which API was called.
        is_policy: The policy's own call, not a judge's.
        left_out: Fields of the body that the provider would have refused, and was not sent.
        replayed: The answer came from a cassette.
        saved_usd, saved_ms: Cost (None: not known) and latency of the recorded call, for a replay.
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
    operation: str = "chat/completions"
    is_policy: bool = True
    left_out: tuple[str, ...] = ()
    replayed: bool = False
    saved_usd: float | None = 0.0
    saved_ms: float = 0.0


@dataclass(frozen=True)
class CallFailure:
    """A call without an answer.

    Attributes:
        kind: `replay_miss`, `budget`, or what the provider or the gateway calls it (`upstream_timeout`, ...).
        is_cut_off: The answer broke off on its way to the task app, so that the rollout is worth a retry.
    """

    kind: str
    message: str
    is_cut_off: bool = False


@dataclass(frozen=True)
class RolloutUse:
    """What a rollout used, and what the gateway saw of it.

    Attributes:
        tokens: Of all calls, replayed ones included.
        cost_usd: Of all calls; None when the price of one of them is not known, or one was cut.
        prompt_applied: None when no prompt was to be applied.
        prompt_reason: Why the prompt was not applied.
        prompt_fingerprint: Of the system message that ran, as `Prompt.parse(text).fingerprint` has it; of its
            pattern, where one is known.
        replaced_fingerprint: Likewise of the task app's own that the prompt has replaced, if one was.
        query, answer: Last user message and the model's answer, at most `SHORT` characters each.
        replayed: Calls that a cassette answered.
        saved_usd, saved_ms: What the recorded calls had cost and taken; None: not known of one of them.
        failure: The first failure that voids the rollout (see `is_void`), else the first.
        fatal: Why no other rollout of the job can do better (the provider refuses key, model or payment).
        is_cut_off: An answer broke off on its way to the task app, so that the rollout is worth another try.
    """

    calls: tuple[ModelCall, ...]
    tokens: int
    cost_usd: float | None
    prompt_applied: bool | None
    prompt_reason: str | None
    prompt_fingerprint: str | None
    query: str | None
    answer: str | None
    replayed: int = 0
    saved_usd: float | None = 0.0
    saved_ms: float = 0.0
    failure: CallFailure | None = None
    fatal: str | None = None
    replaced_fingerprint: str | None = None
    is_cut_off: bool = False

    def after(self, earlier: RolloutUse) -> RolloutUse:
        """Add what an earlier try of the same rollout has used; all else stays as the last try had it."""
        return replace(
            self,
            calls=earlier.calls + self.calls,
            tokens=earlier.tokens + self.tokens,
            cost_usd=_total((earlier.cost_usd, self.cost_usd)),
            replayed=earlier.replayed + self.replayed,
            saved_usd=_total((earlier.saved_usd, self.saved_usd)),
            saved_ms=earlier.saved_ms + self.saved_ms,
        )

    @property
    def is_void(self) -> bool:
        """A reward of this rollout would not be one: a call that it needed was not made."""
        return self.fatal is not None or (self.failure is not None and self.failure.kind in VOIDING)


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
    """State of an open rollout; touched on the backend's loop only.

    Attributes:
        relay: Where its calls go, for a rollout of another backend.
        ends_at: When its time is up, on the loop's clock; None: not known.
        streams: What closes the answers that are being passed on.
    """

    spec: RolloutSpec
    target: Target
    relay: RelayTarget | None = None
    recorder: Recorder | None = None
    mode: RecordMode = RecordMode.OFF
    ends_at: float | None = None
    calls: list[ModelCall] = field(default_factory=list)
    failures: list[CallFailure] = field(default_factory=list)
    fatal: str | None = None
    running: set[asyncio.Task[Any]] = field(default_factory=set)
    streams: set[Callable[[], None]] = field(default_factory=set)
    policy_system: str | _Unseen | None = UNSEEN
    own_system: str | None = None
    system_ran: str | None = None
    reason: str | None = None
    applied: bool = False
    query: str | None = None
    answer: str | None = None
    closed: bool = False
    repeats: dict[str, set[int]] = field(default_factory=dict)

    def claim(self, system: str | None, *, fits: bool = False) -> bool:
        """Say whether a call with this system message is the policy's.

        It is if it `fits` the baseline's. Else the first system message of a rollout is the policy's, and
        calls with another one (judges, tools) are somebody else's.
        """
        if self.policy_system is UNSEEN:
            self.policy_system = system
        return fits or self.policy_system == system

    def take_repeat(self, call_key: str) -> int:
        """The number of a call among the equal ones of this rollout: the lowest that is free."""
        taken = self.repeats.setdefault(call_key, set())
        number = next(number for number in range(len(taken) + 1) if number not in taken)
        taken.add(number)
        return number

    def give_back_repeat(self, call_key: str, number: int) -> None:
        """The call was not answered; a client that tries again asks for the same one."""
        self.repeats[call_key].discard(number)

    def fail(self, refused: CallRefused) -> None:
        self.failures.append(CallFailure(refused.kind, refused.message, refused.is_cut_off))
        if refused.is_fatal and self.fatal is None:
            self.fatal = refused.message

    def use(self) -> RolloutUse:
        """Sum up."""
        applied = None if self.spec.prompt is None else self.applied
        voiding = (failure for failure in self.failures if failure.kind in VOIDING)
        return RolloutUse(
            calls=tuple(self.calls),
            tokens=sum(call.prompt_tokens + call.completion_tokens for call in self.calls),
            cost_usd=None if self.is_cut_short else _total(call.cost_usd for call in self.calls),
            prompt_applied=applied,
            prompt_reason=self._reason() if applied is False else None,
            prompt_fingerprint=_fingerprint(self.system_ran),
            replaced_fingerprint=_fingerprint(self.own_system) if applied else None,
            query=self.query,
            answer=self.answer,
            replayed=sum(call.replayed for call in self.calls),
            saved_usd=_total(call.saved_usd for call in self.calls),
            saved_ms=sum(call.saved_ms for call in self.calls),
            failure=next(voiding, self.failures[0] if self.failures else None),
            fatal=self.fatal,
            is_cut_off=any(failure.is_cut_off for failure in self.failures),
        )

    @property
    def is_cut_short(self) -> bool:
        """Calls that may cost something were in flight when the rollout was closed."""
        return not self.target.provider.local and any(not task.done() for task in self.running)

    def _reason(self) -> str:
        if self.policy_system is UNSEEN:
            return (
                "the task app made no model call at its inference_url "
                "(policy.config['inference_url'] of the rollout)"
            )
        return self.reason or "no model call with the prompt was answered"


def _fingerprint(system: str | None) -> str | None:
    return None if system is None else Prompt((Message("system", system),)).fingerprint


def _total(costs: Iterable[float | None]) -> float | None:
    """The sum; None if one is not known."""
    total = 0.0
    for cost in costs:
        if cost is None:
            return None
        total += cost
    return total


def shorten(text: str | None) -> str | None:
    """Cut a text to `SHORT` characters, with an ellipsis as the last one."""
    return text if text is None or len(text) <= SHORT else text[: SHORT - 1] + "…"
