"""A killed run that is started again with its ledger ends as if it had never been killed."""

from __future__ import annotations

from typing import Any

import pytest
from fakes.optimizer_host import (
    Killed,
    SimulatedHost,
    heavy_tail,
    identity_of,
    make_config,
    run_search,
    steady,
)
from fakes.rule_world import World

from pytest_synth.backend.optimizer.config import PipelineConfig
from pytest_synth.backend.optimizer.events import PROGRESS
from pytest_synth.backend.optimizer.ports import MemoryLedger, RolloutOutcome

SHAPES: dict[str, dict[str, Any]] = {
    "generations": {"initial_size": 3},
    "window": {"pipeline": PipelineConfig("window", 5)},
    "nothing-reused": {"reuse_known": False},
}


@pytest.mark.parametrize("kill_after", [0, 7, 25, 60, 119, 186])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_killed_run_goes_on_and_pays_nothing_twice_but_what_was_in_flight(
    shape: str, kill_after: int
) -> None:
    world = World(kill_after)
    config = make_config(world, **SHAPES[shape])
    whole = SimulatedHost(world, latency=heavy_tail(0.1), reflection_s=0.4)
    expected = run_search(config, whole)
    ledger = MemoryLedger()
    killed = SimulatedHost(world, latency=heavy_tail(0.1), reflection_s=0.4, ledger=ledger)
    killed.kill_after = kill_after
    with pytest.raises(Killed):
        run_search(config, killed)

    resumed = SimulatedHost(world, latency=steady(0.3), reflection_s=0.0, ledger=ledger)
    outcome = run_search(config, resumed, already_emitted=len(milestones(killed)))

    assert identity_of(outcome) == identity_of(expected)
    again = {r.key for r in killed.sent} & {r.key for r in resumed.sent}
    assert len(again) <= config.max_concurrent
    assert len(killed.sent) + len(resumed.sent) == len(whole.sent) + len(again)
    assert outcome.usage.replayed == len(killed.sent) - len(again)
    assert outcome.usage.sent == len(resumed.sent)
    assert milestones(killed) + milestones(resumed) == milestones(whole)


def milestones(host: SimulatedHost) -> list[tuple[str, dict[str, Any]]]:
    """All events but progress, without what depends on the clock."""
    kept = [(kind, data) for kind, data in host.events if kind != PROGRESS]
    return [(kind, {name: v for name, v in data.items() if name != "usage"}) for kind, data in kept]


def test_a_finished_run_is_replayed_for_free() -> None:
    world, ledger = World(1), MemoryLedger()
    first = SimulatedHost(world, ledger=ledger)
    expected = run_search(make_config(world), first)

    again = SimulatedHost(world, ledger=ledger)
    outcome = run_search(make_config(world), again)

    assert identity_of(outcome) == identity_of(expected)
    assert again.sent == []
    assert again.asked == []
    assert outcome.usage.wall_s == 0.0


def test_lost_rollouts_are_not_kept_and_count_against_the_budget_of_the_next_start() -> None:
    world, ledger = World(2), MemoryLedger()
    config = make_config(world, budget=60)
    unlucky = SimulatedHost(
        world,
        ledger=ledger,
        kill_after=30,
        fails=lambda request: (
            RolloutOutcome(None, error="down", error_kind="infrastructure")
            if request.key.seed % 7 == 0
            else None
        ),
    )
    with pytest.raises(Killed):
        run_search(config, unlucky)
    lost = ledger.lost_rollouts
    assert lost > 0
    assert not any(key.seed % 7 == 0 for key in ledger.rollouts)

    resumed = SimulatedHost(world, ledger=ledger)
    outcome = run_search(config, resumed)

    in_flight = len(unlucky.sent) - lost - outcome.usage.replayed
    assert in_flight <= config.max_concurrent
    assert len(unlucky.sent) - in_flight + len(resumed.sent) <= 60
    assert outcome.finish_reason == "budget"


def test_a_start_whose_budget_was_lost_before_fails_with_that_reason() -> None:
    ledger = MemoryLedger()
    ledger.lost_rollouts = 35
    outcome = run_search(make_config(World(3), budget=60), SimulatedHost(World(3), ledger=ledger))

    assert outcome.finish_reason == "failing"
    assert outcome.detail == (
        "earlier starts lost 35 of 60 rollouts; the rest does not pay for the baseline and the final check"
    )
