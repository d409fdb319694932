"""How well a search uses its slots, beside `gepa.optimize` with an adapter that runs each batch at once.

Our searches are jobs of `pytest-synth serve`, over HTTP: the backend sends rollouts to a task app, which
sends its model call through the gateway to a model (`gepa_stage.py`; both are stubs that sleep, in one
process of their own). gepa.optimize is spared all that: its rollouts and reflections are the same stubs in
its own process. 50 train seeds, 10 of them the Pareto set, minibatches of 8, rollouts of 100 ms (heavy tail:
lognormal, median 100 ms). Use is the latency of the rollouts over slots times wall time. Our runs hold the
final check on 10 held-out seeds inside the budget; gepa has none.

    python benchmarks/gepa_utilisation.py [--runs 5] [--in-process | --virtual] [--no-gepa]
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

import httpx
from fakes.optimizer_host import SimulatedHost, heavy_tail, make_config, steady
from fakes.rule_world import World
from fakes.search_clock import SearchLoop
from gepa_plain import PlainRun, run_plain
from gepa_stage import Serving, open_stage, section, serving

from pytest_synth.backend.optimizer import GepaConfig, GepaEngine, OptimizationOutcome, PipelineConfig

ROLLOUT_S = 0.1


@dataclass(frozen=True)
class Case:
    """One line of the table.

    Attributes:
        target: Least utilisation, or most wall seconds (`is_time`).
        compares: How many times faster than gepa.optimize it must be; 0: at least not measured.
    """

    name: str
    target: float
    budget: int
    slots: int
    children: int = 3
    window: int | None = None
    reflection_s: float = 0.0
    has_heavy_tail: bool = False
    is_time: bool = False
    compares: float = 0.0

    def host(self, world: int) -> SimulatedHost:
        latency = heavy_tail(ROLLOUT_S) if self.has_heavy_tail else steady(ROLLOUT_S)
        return SimulatedHost(World(world), latency=latency, reflection_s=self.reflection_s)

    def section(self, stage: str, world: int) -> dict[str, Any]:
        """The same search as a job."""
        mode = {"mode": "generations"} if self.window is None else {"mode": "window", "window": self.window}
        return section(
            stage,
            World(world),
            rollout={"budget": self.budget, "max_concurrent": self.slots, "minibatch_size": 8},
            population={"children_per_generation": self.children},
            pipeline=mode,
        )

    def config(self, world: int) -> GepaConfig:
        pipeline = PipelineConfig() if self.window is None else PipelineConfig("window", self.window)
        return make_config(
            World(world),
            budget=self.budget,
            max_concurrent=self.slots,
            minibatch_size=8,
            children_per_generation=self.children,
            pipeline=pipeline,
            rng_seed=world,
        )


_SLOW = {"reflection_s": 0.5}
CASES = (
    Case("400 rollouts, 8 slots, 3 children", 0.85, 400, 8),
    Case("same, reflection 0.5 s", 0.50, 400, 8, compares=1.7, **_SLOW),
    Case("same, 8 children", 0.75, 400, 8, children=8, compares=2.4, **_SLOW),
    Case("same, heavy tail", 0.60, 400, 8, children=8, has_heavy_tail=True, compares=1.0, **_SLOW),
    Case("2000, 8 slots, 8 children, reflection 0.5 s", 0.85, 2000, 8, children=8, compares=1.0, **_SLOW),
    Case("2000, 64 slots, window of 16", 0.75, 2000, 64, children=16, window=16),
    Case("400, 64 slots, window of 16", 0.50, 400, 64, children=16, window=16),
    Case("80, 8 slots, 3 children, reflection 0.5 s", 2.0, 80, 8, is_time=True, compares=1.0, **_SLOW),
)


@dataclass(frozen=True)
class Measured:
    """One of our runs: share of the slots, seconds, seconds that waited for a reflection, children."""

    used: float
    wall_s: float
    waited_s: float
    children: int


Run = Callable[[Case, int], Measured]


def in_process(case: Case, world: int, *, is_virtual: bool = False) -> Measured:
    """The engine alone."""
    host, config = case.host(world), case.config(world)
    if is_virtual:
        loop = SearchLoop()
        outcome = loop.run(_search(GepaEngine(loop.worker), config, host))
    else:
        outcome = asyncio.run(_search(GepaEngine(), config, host))
    assert len(host.sent) <= case.budget
    usage = outcome.usage
    return Measured(usage.utilisation, usage.wall_s, usage.reflection_wait_s, len(outcome.attempts))


async def _search(engine: GepaEngine, config: GepaConfig, host: SimulatedHost) -> OptimizationOutcome:
    return await engine.run(config, host.ports, cancel=asyncio.Event())


def over_http(stage: str, served: Serving, case: Case, world: int) -> Measured:
    """A job of a backend; only the rollouts' own latency counts as use."""
    scene = {"world": world, "rollout_s": ROLLOUT_S, "reflection_s": case.reflection_s}
    httpx.post(f"{stage}/scene", json={**scene, "has_heavy_tail": case.has_heavy_tail}).raise_for_status()
    job_id = served.submit(case.section(stage, world))
    status = served.wait(job_id, poll_s=0.25)
    assert status is not None, f"{case.name} does not end"
    counted, usage = httpx.get(f"{stage}/scene").json(), status["usage"]
    assert counted["rollouts"] == status["total_rollouts"] <= case.budget, (counted, status["summary"])
    wall = usage["wall_seconds"]
    children = sum(event["type"].endswith(".candidate.started") for event in served.events(job_id))
    return Measured(
        counted["worked_s"] / (case.slots * wall), wall, usage["reflection_wait_seconds"], children
    )


def run_gepa(case: Case, world: int, *, is_virtual: bool) -> PlainRun:
    loop = SearchLoop() if is_virtual else asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    try:
        return run_plain(
            loop,
            case.host(world),
            train=range(50),
            pareto=range(50, 60),
            budget=case.budget,
            slots=case.slots,
            minibatch=8,
            seed=world,
        )
    finally:
        asyncio.set_event_loop(None)
        loop.close()


def median(values: list[float]) -> float:
    return statistics.median(values)


def ours(case: Case, runs: int, run: Run) -> tuple[str, float]:
    """Run a case; the line of the table, and the median wall time."""
    measured = [run(case, world) for world in range(runs)]
    used, wall = median([one.used for one in measured]), median([one.wall_s for one in measured])
    waited, children = median([one.waited_s for one in measured]), median([one.children for one in measured])
    text = f"{case.name:45s} {children:8.0f} {used:6.0%} {wall:7.2f} s {waited:6.2f} s"
    is_met = wall <= case.target if case.is_time else used >= case.target
    target = f"<= {case.target:.1f} s" if case.is_time else f">= {case.target:.0%}"
    text += f"  {target:>8s} {'ok' if is_met else 'MISSED':6s}"
    return text, wall


def compared(case: Case, runs: int, wall: float, *, is_virtual: bool) -> str:
    """Run gepa.optimize on the same; the rest of the line. Its runs do little but wait: all go at once."""
    with ProcessPoolExecutor(runs) as pool:
        plain = list(pool.map(partial(run_gepa, case, is_virtual=is_virtual), range(runs)))
    plain_wall = median([run.wall_s for run in plain])
    over = median([float(run.rollouts - case.budget) for run in plain])
    faster = plain_wall / wall
    verdict = "ok" if faster >= case.compares else "MISSED"
    used = median([run.utilisation for run in plain])
    return f" {used:5.0%} {plain_wall:7.2f} s {over:+5.0f} {faster:6.1f}x  >= {case.compares:.1f}x {verdict}"


def cpu_per_rollout(budget: int = 2000) -> float:
    """Milliseconds of CPU for a rollout that takes no time, the stub's own work included."""
    case = Case("", 0, budget, 64, children=8)
    start = time.process_time()
    in_process(case, 0, is_virtual=True)
    return (time.process_time() - start) / budget * 1000


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=5, help="runs of each case; medians are shown")
    parser.add_argument("--in-process", action="store_true", help="our engine without backend and HTTP")
    parser.add_argument("--virtual", action="store_true", help="in process, on a virtual clock, in seconds")
    parser.add_argument("--no-gepa", action="store_true", help="leave out gepa.optimize")
    parser.add_argument("--only", default="", help="part of the names of the cases")
    arguments = parser.parse_args()
    head = f"{'':45s} {'children':>8s} {'used':>6s} {'wall':>9s} {'waited':>8s}"
    print(f"{head}  target          gepa.optimize: used, wall, rollouts over budget", flush=True)
    with ExitStack() as stack:
        run: Run = partial(in_process, is_virtual=arguments.virtual)
        if not (arguments.virtual or arguments.in_process):
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            stage = stack.enter_context(open_stage())
            served = stack.enter_context(serving(Path(folder, "jobs.sqlite"), stage))
            run = partial(over_http, stage, served)
        for case in CASES:
            if arguments.only not in case.name:
                continue
            text, wall = ours(case, arguments.runs, run)
            if case.compares and not arguments.no_gepa:
                text += compared(case, arguments.runs, wall, is_virtual=arguments.virtual)
            print(text, flush=True)
    print(f"\nCPU for a rollout, engine alone: {cpu_per_rollout():.2f} ms (target <= 0.5)")


if __name__ == "__main__":
    main()
