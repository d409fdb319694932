"""How good the prompts are that a search finds, beside `gepa.optimize`, at equal budget.

A synthetic task (`tests/fakes/rule_world.py`) in many worlds and four kinds: rewards in parts, the same with
a weak reflection model, rewards of 0 or 1, the same with 15 % of them wrong. The score is the winner's true
mean reward on 400 seeds that no search has seen. `gepa` is `gepa.optimize` with its defaults, held to the
budget; `knows` means that it does not pay again for a pair of prompt and seed. Our searches get the budget
and what the final check takes on top, since gepa has none.

    python benchmarks/gepa_quality.py [--worlds 30] [--budgets 80 400 2000] [--minibatch 3 8] [--jobs 2]
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import multiprocessing
import statistics
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from fakes.optimizer_host import SimulatedHost, make_config, run_search
from fakes.rule_world import RuleReflection, World
from fakes.search_clock import SearchLoop
from gepa_plain import run_plain

KINDS: dict[str, tuple[dict[str, Any], float]] = {
    "parts": ({}, 0.55),
    "weak": ({}, 0.2),
    "binary": ({"mode": "binary"}, 0.55),
    "noisy": ({"mode": "binary", "noise": 0.15}, 0.55),
}
GEPA: dict[str, dict[str, Any]] = {
    "gepa": {},
    "gepa, knows": {"knows": True},
    "gepa, 3 at once": {"at_once": 3},
}
OURS: dict[str, dict[str, Any]] = {
    "1 child": {"children_per_generation": 1},
    "3 children": {},
    "3 children, all paid": {"reuse_known": False},
    "8 children": {"children_per_generation": 8},
}
SEARCHES = {**GEPA, **OURS}
HELD_OUT = 10

Task = tuple[str, str, int, int, int]


def score(task: Task) -> tuple[Task, float]:
    """Run one search and find out how good its winner really is."""
    name, kind, budget, minibatch, number = task
    settings, skill = KINDS[kind]
    world = World(number, **settings)
    host = SimulatedHost(world, reflection=RuleReflection(skill=skill, run=number), reflection_s=1.0)
    if name in GEPA:
        loop = SearchLoop()
        asyncio.set_event_loop(loop)
        best = run_plain(
            loop,
            host,
            train=range(50),
            pareto=range(50, 60),
            budget=budget,
            slots=8,
            minibatch=minibatch,
            keeps_budget=True,
            seed=number,
            **GEPA[name],
        ).best
        loop.close()
        assert len(host.sent) <= budget
        return task, world.true_reward(best)
    config = make_config(
        world,
        train_seeds=tuple(range(60)),
        validation_seeds=tuple(range(60, 60 + HELD_OUT)),
        budget=budget + 2 * HELD_OUT,
        minibatch_size=minibatch,
        rng_seed=number,
        **OURS[name],
    )
    outcome = run_search(config, host)
    assert len(host.sent) <= budget + 2 * HELD_OUT
    assert outcome.best is not None
    return task, world.true_reward(outcome.best.prompt.system or "")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--worlds", type=int, default=30)
    parser.add_argument("--budgets", type=int, nargs="+", default=[80, 400, 2000])
    parser.add_argument("--minibatch", type=int, nargs="+", default=[3, 8])
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    parser.add_argument("--only", default="", help="part of the names of the searches")
    arguments = parser.parse_args()
    names = [name for name in SEARCHES if arguments.only in name]
    worlds = range(arguments.worlds)
    tasks: list[Task] = list(itertools.product(names, KINDS, arguments.budgets, arguments.minibatch, worlds))
    with multiprocessing.Pool(arguments.jobs) as pool:
        scores = dict(pool.imap_unordered(score, tasks, chunksize=2))
    for budget, minibatch in itertools.product(arguments.budgets, arguments.minibatch):
        print(f"\nbudget {budget}, minibatches of {minibatch}: median true reward over {len(worlds)} worlds")
        print(f"{'':24s}" + "".join(f"{kind:>8s}" for kind in KINDS) + f"{'mean':>8s}{'all':>8s}")
        baselines = [
            [World(number, **settings).true_reward(World(number, **settings).baseline) for number in worlds]
            for settings, _ in KINDS.values()
        ]
        rows = {"baseline": baselines} | {
            name: [[scores[name, kind, budget, minibatch, number] for number in worlds] for kind in KINDS]
            for name in names
        }
        for name, kinds in rows.items():
            medians = [statistics.median(values) for values in kinds]
            every = statistics.fmean(itertools.chain.from_iterable(kinds))
            print(
                f"{name:24s}"
                + "".join(f"{value:8.3f}" for value in medians)
                + f"{statistics.fmean(medians):8.3f}{every:8.3f}"
            )


if __name__ == "__main__":
    main()
