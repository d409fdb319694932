"""How well a search uses its slots, beside `gepa.optimize` with an adapter that runs each batch at once.

Rollouts and reflections are stubs that sleep; all else is the real engine in real time (`--virtual`: on a
virtual clock, in seconds). 50 train seeds, 10 of them the Pareto set, minibatches of 8, rollouts of 100 ms
(heavy tail: lognormal, median 100 ms). Utilisation is rollout seconds over slots times wall time. Our runs
hold the final check on 10 held-out seeds inside the budget; gepa has none.

    python benchmarks/gepa_utilisation.py [--runs 3] [--virtual] [--no-gepa]
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from fakes.optimizer_host import SimulatedHost, heavy_tail, make_config, steady
from fakes.rule_world import World
from fakes.search_clock import SearchLoop
from gepa_plain import PlainRun, run_plain

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


def run_ours(case: Case, world: int, *, is_virtual: bool) -> OptimizationOutcome:
    host, config = case.host(world), case.config(world)
    if is_virtual:
        loop = SearchLoop()
        engine = GepaEngine(loop.worker)
        outcome = loop.run(_search(engine, config, host))
    else:
        outcome = asyncio.run(_search(GepaEngine(), config, host))
    assert len(host.sent) <= case.budget
    return outcome


async def _search(engine: GepaEngine, config: GepaConfig, host: SimulatedHost) -> OptimizationOutcome:
    return await engine.run(config, host.ports, cancel=asyncio.Event())


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


def ours(case: Case, runs: int, *, is_virtual: bool) -> tuple[str, float]:
    """Run a case; the line of the table, and the median wall time."""
    outcomes = [run_ours(case, world, is_virtual=is_virtual) for world in range(runs)]
    used = median([outcome.usage.utilisation for outcome in outcomes])
    wall = median([outcome.usage.wall_s for outcome in outcomes])
    waited = median([outcome.usage.reflection_wait_s for outcome in outcomes])
    children = median([float(len(outcome.attempts)) for outcome in outcomes])
    text = f"{case.name:45s} {children:8.0f} {used:6.0%} {wall:7.2f} s {waited:6.2f} s"
    is_met = wall <= case.target if case.is_time else used >= case.target
    target = f"<= {case.target:.1f} s" if case.is_time else f">= {case.target:.0%}"
    text += f"  {target:>8s} {'ok' if is_met else 'MISSED':6s}"
    return text, wall


def compared(case: Case, runs: int, wall: float, *, is_virtual: bool) -> str:
    """Run gepa.optimize on the same; the rest of the line."""
    plain = [run_gepa(case, world, is_virtual=is_virtual) for world in range(runs)]
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
    outcome = run_ours(case, 0, is_virtual=True)
    return (time.process_time() - start) / outcome.usage.rollouts * 1000


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=3, help="runs of each case; medians are shown")
    parser.add_argument("--virtual", action="store_true", help="on a virtual clock")
    parser.add_argument("--no-gepa", action="store_true", help="leave out gepa.optimize")
    arguments = parser.parse_args()
    head = f"{'':45s} {'children':>8s} {'used':>6s} {'wall':>9s} {'waited':>8s}"
    print(f"{head}  target          gepa.optimize: used, wall, rollouts over budget")
    for case in CASES:
        text, wall = ours(case, arguments.runs, is_virtual=arguments.virtual)
        if case.compares and not arguments.no_gepa:
            text += compared(case, arguments.runs, wall, is_virtual=arguments.virtual)
        print(text, flush=True)
    print(f"\nCPU for a rollout: {cpu_per_rollout():.2f} ms (target <= 0.5); rollouts over our budgets: 0")


if __name__ == "__main__":
    main()
