"""A host for the optimiser that runs a `World` instead of task apps and models, and keeps count."""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from fakes.rule_world import RuleReflection, World, chance
from fakes.search_clock import SearchLoop

from pytest_synth.backend.optimizer.config import GepaConfig, TaskConfig
from pytest_synth.backend.optimizer.engine import GepaEngine
from pytest_synth.backend.optimizer.outcome import OptimizationOutcome
from pytest_synth.backend.optimizer.ports import (
    Host,
    Ledger,
    MemoryLedger,
    ReflectionAnswer,
    ReflectionRequest,
    RolloutOutcome,
    RolloutRequest,
)
from pytest_synth.prompts import Message, Prompt

Latency = Callable[[RolloutRequest], float]


def steady(seconds: float) -> Latency:
    return lambda request: seconds


def heavy_tail(median_s: float, sigma: float = 0.8) -> Latency:
    """Lognormal; the same rollout always takes the same time."""
    normal = statistics.NormalDist()

    def latency(request: RolloutRequest) -> float:
        place = chance("latency", request.key)
        return float(min(median_s * 2.718281828 ** (sigma * normal.inv_cdf(max(place, 1e-9))), 50 * median_s))

    return latency


class Killed(Exception):
    """The process of the host is gone."""


@dataclass
class SimulatedHost:
    """Rollouts and reflections of a world, with latencies, failures and a ledger.

    Attributes:
        sent, asked: What the engine asked for, in order.
        events: (type, data), in order.
        most_in_flight: Rollouts at once, at most.
        fails: Gives the outcome of rollouts that fail, instead of the world.
        kill_after: The host dies at this rollout.
    """

    world: World
    reflection: RuleReflection = field(default_factory=RuleReflection)
    latency: Latency = field(default_factory=lambda: steady(0.1))
    reflection_s: float = 0.0
    ledger: Ledger = field(default_factory=MemoryLedger)
    fails: Callable[[RolloutRequest], RolloutOutcome | None] = lambda request: None
    answers: Callable[[ReflectionRequest], str] | None = None
    cost_usd: float | None = 0.0
    kill_after: int | None = None
    sent: list[RolloutRequest] = field(default_factory=list)
    asked: list[ReflectionRequest] = field(default_factory=list)
    events: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    in_flight: int = 0
    most_in_flight: int = 0

    async def rollout(self, request: RolloutRequest) -> RolloutOutcome:
        if self.kill_after is not None and len(self.sent) >= self.kill_after:
            raise Killed
        self.sent.append(request)
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            await asyncio.sleep(self.latency(request))
        finally:
            self.in_flight -= 1
        failure = self.fails(request)
        if failure is not None:
            return failure
        text = "\n".join(message.pattern for message in request.prompt.messages)
        reward, remark = self.world.judge(text, request.key.seed, request.key.sample)
        return RolloutOutcome(
            reward,
            inputs={"query": f"query {request.key.seed}"},
            output=f"answer {request.key.seed}",
            details={"feedback": remark},
            cost_usd=self.cost_usd,
            tokens=10,
        )

    async def reflect(self, request: ReflectionRequest) -> ReflectionAnswer:
        self.asked.append(request)
        await asyncio.sleep(self.reflection_s)
        if self.answers is not None:
            return ReflectionAnswer(self.answers(request), self.cost_usd)
        key = (request.key.child, request.component, request.is_repair)
        return ReflectionAnswer(self.reflection.answer(request.text, key), self.cost_usd)

    def emit(self, kind: str, data: dict[str, Any]) -> None:
        self.events.append((kind, data))

    @property
    def ports(self) -> Host:
        return Host(rollouts=self, reflector=self, emit=self.emit, ledger=self.ledger)

    def of_type(self, name: str) -> list[dict[str, Any]]:
        return [data for kind, data in self.events if kind.endswith(f".{name}")]


def make_config(world: World, **changes: Any) -> GepaConfig:
    """A search in a world: 50 train seeds, 10 of them the Pareto set, 10 validation seeds."""
    settings: dict[str, Any] = {
        "task": TaskConfig("http://127.0.0.1:1", {}, {"model": "lexical", "provider": "offline"}),
        "prompt": Prompt((Message("system", world.baseline),)),
        "train_seeds": tuple(range(50)),
        "validation_seeds": tuple(range(50, 60)),
        "budget": 200,
        "max_concurrent": 8,
        "minibatch_size": 3,
        "pareto_set_size": 10,
    }
    return GepaConfig(**{**settings, **changes})


def identity_of(outcome: OptimizationOutcome) -> Sequence[object]:
    """All of an outcome that must not depend on timing."""
    return (
        outcome.candidates,
        outcome.attempts,
        outcome.held_out,
        outcome.finish_reason,
        outcome.best,
        outcome.usage.rollouts,
        outcome.usage.by_purpose,
        outcome.usage.reflections,
    )


def run_search(
    config: GepaConfig,
    host: SimulatedHost,
    *,
    cancel_at: float | None = None,
    already_emitted: int = 0,
) -> OptimizationOutcome:
    """Run a search on the virtual clock.

    Args:
        cancel_at: Seconds after which the host cancels it.
    """
    loop = SearchLoop()

    async def main() -> OptimizationOutcome:
        cancel = asyncio.Event()
        if cancel_at is not None:
            asyncio.get_running_loop().call_later(cancel_at, cancel.set)
        engine = GepaEngine(loop.worker)
        return await engine.run(config, host.ports, cancel=cancel, already_emitted=already_emitted)

    return loop.run(main())
