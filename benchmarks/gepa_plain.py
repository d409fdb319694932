"""gepa.optimize as its documentation has it, to compare with: one adapter that runs each batch at once.

Not a benchmark by itself; `gepa_utilisation.py` and `gepa_quality.py` use it.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

from fakes.optimizer_host import SimulatedHost

from pytest_synth.backend.optimizer.ports import ReflectionKey, ReflectionRequest, RolloutKey, RolloutRequest
from pytest_synth.prompts import Message, Prompt


@dataclass
class PlainRun:
    """What a run of gepa.optimize gave."""

    best: str
    wall_s: float
    rollouts: int
    utilisation: float


@dataclass
class PlainAdapter:
    """Evaluates the rollouts of a batch concurrently, at most `slots` at once.

    Args:
        knows: Whether a pair of prompt and seed that has run is not run again.
    """

    loop: asyncio.AbstractEventLoop
    host: SimulatedHost
    slots: int
    knows: bool = False
    propose_new_texts: Any = None
    busy_s: float = 0.0
    known: dict[tuple[str, int], Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.free = asyncio.Semaphore(self.slots)
        self.sample = 0
        self.questions = 0

    async def one(self, prompt: Prompt, seed: int) -> Any:
        pair = (prompt.fingerprint, seed)
        if self.knows and pair in self.known:
            return self.known[pair]
        self.sample += 1
        key = RolloutKey(prompt.fingerprint, None, seed, self.sample)
        async with self.free:
            start = self.loop.time()
            outcome = await self.host.rollout(RolloutRequest(key, prompt, "children"))
            self.busy_s += self.loop.time() - start
        self.known[pair] = outcome
        return outcome

    def batch_evaluate(self, items: list[Any], *, capture_traces: bool = True) -> list[Any]:
        from gepa.core.adapter import EvaluationBatch

        async def run() -> list[list[Any]]:
            jobs = [
                asyncio.gather(*(self.one(Prompt((Message("system", c["system"]),)), s) for s in seeds))
                for c, seeds in items
            ]
            return list(await asyncio.gather(*jobs))

        batches = []
        for outcomes in self.loop.run_until_complete(run()):
            scores = [outcome.score for outcome in outcomes]
            batches.append(EvaluationBatch(outputs=outcomes, scores=scores, trajectories=outcomes))
        return batches

    def evaluate(self, batch: list[int], candidate: dict[str, str], capture_traces: bool = False) -> Any:
        return self.batch_evaluate([(candidate, batch)])[0]

    def make_reflective_dataset(self, candidate: Any, eval_batch: Any, components: list[str]) -> Any:
        records = [{"Feedback": outcome.details["feedback"]} for outcome in eval_batch.trajectories]
        return dict.fromkeys(components, records)

    def __call__(self, question: str) -> str:
        return self.batch_complete([[{"role": "user", "content": question}]])[0]

    def batch_complete(self, questions: list[Any]) -> list[str]:
        """The reflection model; gepa asks all questions of an iteration at once."""

        async def run() -> list[Any]:
            jobs = []
            for messages in questions:
                self.questions += 1
                key = ReflectionKey(self.questions, "")
                jobs.append(self.host.reflect(ReflectionRequest(key, messages[0]["content"], "0:system")))
            return list(await asyncio.gather(*jobs))

        return [answer.text for answer in self.loop.run_until_complete(run())]


class Within:
    """Ends gepa before an iteration that would break the budget: the fair comparison at equal budget."""

    def __init__(self, host: SimulatedHost, budget: int, dearest: int) -> None:
        self.host, self.budget, self.dearest = host, budget, dearest

    def __call__(self, gepa_state: Any) -> bool:
        return len(self.host.sent) + self.dearest > self.budget


def run_plain(
    loop: asyncio.AbstractEventLoop,
    host: SimulatedHost,
    *,
    train: range,
    pareto: range,
    budget: int,
    slots: int,
    minibatch: int,
    at_once: int = 1,
    keeps_budget: bool = False,
    knows: bool = False,
    seed: int = 0,
) -> PlainRun:
    """Run gepa.optimize; `at_once` proposals per iteration (its `IndependentSampling` above 1)."""
    from gepa.api import optimize
    from gepa.strategies.proposal_sampling import IndependentSampling

    adapter = PlainAdapter(loop, host, slots, knows)
    stops = [lambda state: state.i > 100_000]
    if keeps_budget:
        stops.append(Within(host, budget, at_once * (2 * minibatch + len(pareto))))
    started = loop.time()
    result = optimize(
        seed_candidate={"system": host.world.baseline},
        trainset=list(train),
        valset=list(pareto),
        adapter=adapter,
        reflection_lm=adapter,
        reflection_minibatch_size=minibatch,
        max_metric_calls=None if keeps_budget else budget,
        stop_callbacks=stops,
        sampling_strategy=IndependentSampling(at_once) if at_once > 1 else None,
        logger=Quiet(),
        seed=seed,
    )
    wall = loop.time() - started
    used = adapter.busy_s / (slots * wall) if wall else 0.0
    return PlainRun(result.best_candidate["system"], wall, len(host.sent), used)


class Quiet:
    def log(self, message: str) -> None:
        pass
