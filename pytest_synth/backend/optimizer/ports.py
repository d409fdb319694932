"""What the optimiser needs of its host: rollouts, reflections, a ledger, and somebody who listens.

Everything here is called on the event loop that `Engine.run` was awaited on. The host decides how a
rollout reaches a task app, which model reflects, and where the ledger is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from pytest_synth.errors import SynthError
from pytest_synth.prompts import Prompt

Purpose = Literal["baseline", "population", "children", "final_check"]
"""What a rollout is paid for; budgets are planned and reported by purpose."""

ErrorKind = Literal["infrastructure", "rollout"]
"""Why a rollout has no reward.

`infrastructure`: nobody can learn from it (task app unreachable, time-out, model provider down). It is
paid, but not shown to the reflection model, not kept in the ledger, and tried again when the pair of
prompt and seed is next needed. `rollout`: the task app answered, and the answer holds no reward; the
reflection model sees the reason, since the prompt may be at fault.
"""

Emit = Callable[[str, dict[str, Any]], None]
"""Takes one event: its type (wire name) and its data (JSON). Must not block."""


class ReflectionFailed(SynthError):
    """The reflection model gave no answer; the message says why. Raised by a `Reflector`."""


@dataclass(frozen=True)
class RolloutKey:
    """Names one rollout of a run. Equal keys are the same rollout: it is paid once.

    Attributes:
        fingerprint: Of the prompt.
        split: Part of the data that the seed counts in; None is the task app's default.
        sample: 0 when known rollouts are used again; else a number that no other use of the same
            prompt and seed has.
    """

    fingerprint: str
    split: str | None
    seed: int
    sample: int


@dataclass(frozen=True)
class RolloutRequest:
    """One rollout to run."""

    key: RolloutKey
    prompt: Prompt
    purpose: Purpose


@dataclass(frozen=True)
class RolloutOutcome:
    """What a rollout gave: a reward in [0, 1], or an error; exactly one of the two.

    Attributes:
        error_kind: Set with `error`.
        inputs: What varied between rollouts, by name: wildcard values, or what else the model was given
            beside the prompt under test (see `feedback.inputs_of`).
        output: The model's answer as text; tool calls as JSON.
        details: The task app's own notes; `feedback`, `expected` and `predicted` teach most.
        event_rewards: Reward of each step of the rollout.
        cost_usd: US dollars of the model calls; None when a price is not known.
        tokens: Of all model calls.
    """

    reward: float | None
    error: str | None = None
    error_kind: ErrorKind | None = None
    inputs: Mapping[str, Any] = field(default_factory=dict)
    output: str | None = None
    details: Mapping[str, Any] = field(default_factory=dict)
    event_rewards: tuple[float, ...] = ()
    cost_usd: float | None = 0.0
    tokens: int = 0

    def __post_init__(self) -> None:
        assert (self.reward is None) == (self.error is not None), "a rollout has a reward or an error"
        assert (self.error is None) == (self.error_kind is None), "an error has a kind"

    @property
    def is_lost(self) -> bool:
        """Whether the infrastructure failed."""
        return self.error_kind == "infrastructure"

    @property
    def score(self) -> float:
        """The reward, 0 without one: what the search reckons with."""
        return 0.0 if self.reward is None else self.reward

    def to_document(self) -> dict[str, Any]:
        """JSON for a ledger; `from_document` reads it."""
        return {
            "reward": self.reward,
            "error": self.error,
            "error_kind": self.error_kind,
            "inputs": dict(self.inputs),
            "output": self.output,
            "details": dict(self.details),
            "event_rewards": list(self.event_rewards),
            "cost_usd": self.cost_usd,
            "tokens": self.tokens,
        }

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> RolloutOutcome:
        """Read what `to_document` wrote."""
        return cls(**{**document, "event_rewards": tuple(document["event_rewards"])})


@dataclass(frozen=True)
class ReflectionKey:
    """Names one reflection of a run.

    Attributes:
        child: Number of the child that it is for, from 1.
        prompt_hash: Of the whole text that the reflection model is asked.
    """

    child: int
    prompt_hash: str


@dataclass(frozen=True)
class ReflectionRequest:
    """One question to the reflection model.

    Attributes:
        text: The whole question, as one user message.
        component: Which message of the prompt is to be rewritten (`"0:system"`).
        is_repair: Whether it asks to mend an answer that could not be used.
    """

    key: ReflectionKey
    text: str
    component: str
    is_repair: bool = False


@dataclass(frozen=True)
class ReflectionAnswer:
    """What the reflection model said, and what it cost in US dollars (None: price not known)."""

    text: str
    cost_usd: float | None = 0.0


class Rollouts(Protocol):
    """Runs rollouts. The engine asks for at most `max_concurrent` of them at once."""

    async def rollout(self, request: RolloutRequest) -> RolloutOutcome:
        """Run one rollout, with the host's own retries and time-out.

        Failures are outcomes, not exceptions: what is raised ends the run.
        """
        ...


class Reflector(Protocol):
    """Asks the reflection model."""

    async def reflect(self, request: ReflectionRequest) -> ReflectionAnswer:
        """Ask one question, with the host's own retries and time-out.

        Raises:
            ReflectionFailed: If there is no answer; the child is given up, and after a few such in a
                row the run.
        """
        ...


class Ledger(Protocol):
    """Finished rollouts and reflections of one run, kept over a crash.

    A run that is started again with the ledger of a killed one walks the same path, and pays only for
    what the ledger does not have. Calls are short: they run on the event loop.
    """

    def find_rollout(self, key: RolloutKey) -> RolloutOutcome | None: ...

    def add_rollout(self, key: RolloutKey, outcome: RolloutOutcome) -> None: ...

    def add_lost_rollout(self) -> None:
        """Count a rollout that was paid for and gave nothing; see `lost_rollouts`."""
        ...

    @property
    def lost_rollouts(self) -> int:
        """How many rollouts earlier starts of this run lost; they count against the budget."""
        ...

    def find_reflection(self, key: ReflectionKey) -> ReflectionAnswer | None: ...

    def add_reflection(self, key: ReflectionKey, answer: ReflectionAnswer) -> None: ...


class MemoryLedger:
    """A ledger that ends with the process."""

    def __init__(self) -> None:
        self.rollouts: dict[RolloutKey, RolloutOutcome] = {}
        self.reflections: dict[ReflectionKey, ReflectionAnswer] = {}
        self.lost_rollouts = 0

    def find_rollout(self, key: RolloutKey) -> RolloutOutcome | None:
        return self.rollouts.get(key)

    def add_rollout(self, key: RolloutKey, outcome: RolloutOutcome) -> None:
        self.rollouts[key] = outcome

    def add_lost_rollout(self) -> None:
        self.lost_rollouts += 1

    def find_reflection(self, key: ReflectionKey) -> ReflectionAnswer | None:
        return self.reflections.get(key)

    def add_reflection(self, key: ReflectionKey, answer: ReflectionAnswer) -> None:
        self.reflections[key] = answer


@dataclass(frozen=True)
class Host:
    """The four ports of one run.

    Attributes:
        emit: Gets all events of wire section 8 that the search makes. All but `job.progress` come in an
            order that depends on the config and the rewards alone.
    """

    rollouts: Rollouts
    reflector: Reflector
    emit: Emit
    ledger: Ledger = field(default_factory=MemoryLedger)
