"""Why searches end, and what is left of them then."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from fakes.optimizer_host import SimulatedHost, identity_of, make_config, run_search, steady
from fakes.rule_world import RuleReflection, World, write_prompt
from fakes.search_clock import SearchLoop

from pytest_synth.backend.optimizer.engine import GepaEngine
from pytest_synth.backend.optimizer.ports import (
    ReflectionFailed,
    ReflectionRequest,
    RolloutOutcome,
    RolloutRequest,
)

DOWN = RolloutOutcome(None, error="connection refused", error_kind="infrastructure")


def terminal_events(host: SimulatedHost) -> list[str]:
    ends = [kind for kind, _ in host.events if kind.endswith((".job.completed", ".job.failed"))]
    return [kind.removeprefix("learning.policy.gepa.") for kind in ends]


@pytest.mark.parametrize(
    ("changes", "reason", "detail"),
    [
        ({"budget": 100}, "budget", None),
        ({"budget": 500, "num_generations": 2}, "generations", None),
        ({"budget": None, "num_generations": 1}, "generations", None),
        ({"budget": 500, "max_time_s": 2.0}, "time", "2 s have passed"),
    ],
    ids=["budget", "generations", "no-budget", "time"],
)
def test_a_search_ends_for_a_reason_and_is_checked_then(
    changes: dict[str, Any], reason: str, detail: str | None
) -> None:
    host = SimulatedHost(World(1), reflection_s=0.3)
    outcome = run_search(make_config(World(1), **changes), host)

    assert (outcome.finish_reason, outcome.detail) == (reason, detail)
    assert [entry.rank for entry in outcome.held_out] == [None, 1]
    assert terminal_events(host) == ["job.completed"]
    assert len(host.sent) == outcome.usage.rollouts


@pytest.mark.parametrize("slots", [2, 8])
def test_a_search_that_is_out_of_time_gives_up_what_is_in_flight_and_counts_it(slots: int) -> None:
    host = SimulatedHost(World(1), latency=steady(1.0))
    time_s = 5.5 + 10 / slots
    config = make_config(
        World(1), budget=500, max_time_s=time_s, max_concurrent=slots, children_per_generation=9
    )
    outcome = run_search(config, host)

    assert outcome.finish_reason == "time"
    assert outcome.usage.unfinished > 0
    assert sum(outcome.usage.by_purpose.values()) + outcome.usage.unfinished == len(host.sent)
    assert outcome.usage.wall_s <= time_s + 20 / slots
    assert [entry.rank for entry in outcome.held_out][:1] == [None]


def test_patience_ends_a_search_that_finds_nothing_better() -> None:
    worse = write_prompt([1001, 1002])
    config = make_config(World(2), budget=2000, patience=2)
    outcome = run_search(config, SimulatedHost(World(2), answers=lambda request: f"```\n{worse}\n```"))

    assert outcome.finish_reason == "patience"
    assert outcome.detail == "2 generations in a row brought nothing better"
    assert len(outcome.attempts) == 6


def test_an_unbounded_search_that_finds_nothing_to_try_ends() -> None:
    config = make_config(World(2), budget=100_000)
    outcome = run_search(config, SimulatedHost(World(2), answers=lambda request: "no idea"))

    assert outcome.finish_reason == "patience"
    assert outcome.detail == (
        "20 children in a row found nothing new to try; the last: 0:system: it has no code block (```)"
    )
    assert {attempt.fate for attempt in outcome.attempts} == {"no_proposal"}


def test_a_perfect_prompt_ends_the_search() -> None:
    world = World(3, conflicts=0)
    config = make_config(world, budget=2000)
    outcome = run_search(config, SimulatedHost(world, answers=lambda r: f"```\n{world.best_prompt}\n```"))

    assert outcome.finish_reason == "perfect"
    assert outcome.best is not None
    assert outcome.best.reward == 1.0
    assert len(outcome.attempts) == 3


def test_a_perfect_baseline_is_only_checked() -> None:
    world = World(3, conflicts=0, known_at_start=40)
    host = SimulatedHost(world)
    outcome = run_search(make_config(world), host)

    assert outcome.finish_reason == "perfect"
    assert outcome.usage.by_purpose == {"baseline": 10, "final_check": 10}
    assert host.asked == []
    assert outcome.best is not None
    assert outcome.best.id == "baseline"


def test_a_spending_cap_ends_the_search_early_enough_for_the_final_check() -> None:
    host = SimulatedHost(World(4), cost_usd=0.01)
    outcome = run_search(make_config(World(4), budget=1000, max_spend_usd=2.0), host)

    assert outcome.finish_reason == "cost"
    assert outcome.usage.cost_usd is not None
    assert 1.5 < outcome.usage.cost_usd <= 2.0
    assert [entry.rank for entry in outcome.held_out] == [None, 1]


def test_a_spending_cap_gives_the_same_candidates_at_any_latency() -> None:
    def run(latency: float, slots: int) -> object:
        host = SimulatedHost(World(4), cost_usd=0.01, latency=steady(latency), reflection_s=latency * 3)
        config = make_config(World(4), budget=1000, max_spend_usd=1.5, max_concurrent=slots)
        return identity_of(run_search(config, host))

    assert run(0.1, 8) == run(5.0, 64)


def test_the_cap_holds_although_costs_rise() -> None:
    host = SimulatedHost(World(4))

    def dearer(request: RolloutRequest) -> RolloutOutcome | None:
        host.cost_usd = 0.0001 if len(host.sent) < 150 else 0.5
        return None

    host.fails = dearer
    outcome = run_search(make_config(World(4), budget=1000, max_spend_usd=2.0), host)

    assert outcome.finish_reason == "cost"
    assert outcome.detail is not None
    assert outcome.detail.endswith("of 2 USD are spent")
    assert outcome.usage.cost_usd is not None
    assert outcome.usage.cost_usd <= 2.0 + 0.5 * 8


def test_a_cap_without_a_known_price_fails_at_once() -> None:
    host = SimulatedHost(World(4), cost_usd=None)
    outcome = run_search(make_config(World(4), max_spend_usd=2.0), host)

    assert outcome.has_failed
    assert "the price of the model is not known" in (outcome.detail or "")
    assert len(host.sent) <= 8


def test_a_dead_task_app_fails_the_run_within_a_few_rollouts() -> None:
    host = SimulatedHost(World(5), fails=lambda request: DOWN)
    outcome = run_search(make_config(World(5), max_failures=6), host)

    assert outcome.finish_reason == "failing"
    assert outcome.detail == "6 rollouts failed in a row; the last: connection refused"
    assert outcome.best is None
    assert len(host.sent) == 8
    assert host.events[-1] == (
        "learning.policy.gepa.job.failed",
        host.events[-1][1] | {"error": outcome.detail, "finish_reason": "failing"},
    )
    assert terminal_events(host) == ["job.failed"]


def test_a_task_app_that_dies_later_fails_the_run_with_what_was_found() -> None:
    host = SimulatedHost(World(5))
    host.fails = lambda request: DOWN if len(host.sent) > 100 else None
    outcome = run_search(make_config(World(5), budget=400), host)

    assert outcome.finish_reason == "failing"
    assert outcome.best is not None
    assert outcome.held_out == ()
    assert len(host.sent) < 130


def test_a_baseline_without_any_reward_fails_with_its_error() -> None:
    error = RolloutOutcome(None, error="reward_info.outcome_reward is missing", error_kind="rollout")
    host = SimulatedHost(World(5), fails=lambda request: error)
    outcome = run_search(make_config(World(5)), host)

    assert outcome.detail == (
        "no rollout of the baseline has a reward: reward_info.outcome_reward is missing"
    )


def test_lost_rollouts_are_not_shown_and_not_held_against_a_candidate_on_the_gate() -> None:
    host = SimulatedHost(
        World(6), fails=lambda r: DOWN if r.key.seed % 5 == 0 and r.purpose == "children" else None
    )
    outcome = run_search(make_config(World(6), budget=200, max_failures=50), host)

    assert outcome.finish_reason == "budget"
    assert all("connection refused" not in question.text for question in host.asked)
    assert any("query" in question.text for question in host.asked)


def test_a_lost_rollout_is_tried_again_when_it_is_needed_again() -> None:
    host = SimulatedHost(World(6))
    seen: set[object] = set()

    def at_first(request: RolloutRequest) -> RolloutOutcome | None:
        is_new = request.key not in seen and request.purpose == "children"
        seen.add(request.key)
        return DOWN if is_new and request.key.seed % 4 == 0 else None

    host.fails = at_first
    outcome = run_search(make_config(World(6), budget=300, max_failures=99, minibatch_size=30), host)

    keys = [request.key for request in host.sent]
    assert len(keys) > len(set(keys))
    assert len(keys) == outcome.usage.rollouts <= 300


def test_rollouts_that_the_task_app_failed_are_shown_with_their_reason() -> None:
    error = RolloutOutcome(None, error="answered 500: no label", error_kind="rollout")
    host = SimulatedHost(World(6), fails=lambda request: error if request.key.seed % 3 == 0 else None)
    run_search(make_config(World(6)), host)

    assert any("rollout failed: answered 500: no label" in question.text for question in host.asked)


def test_a_failing_final_check_names_the_seeds_and_gives_no_mean() -> None:
    host = SimulatedHost(World(6), fails=lambda r: DOWN if r.key.seed == 53 else None)
    outcome = run_search(make_config(World(6)), host)

    best = outcome.held_out[1]
    assert best.reward is None
    assert best.missing == {53: "connection refused"}
    assert len(best.rewards) == 9
    failed = host.of_type("validation.failed")
    assert [event["missing"] for event in failed] == [["53: connection refused"]] * 2
    assert outcome.best is not None


def test_a_dead_reflection_model_fails_the_run_with_its_reason() -> None:
    class Dead(SimulatedHost):
        async def reflect(self, request: ReflectionRequest) -> Any:
            self.asked.append(request)
            raise ReflectionFailed("openai answered 401: no such key")

    host = Dead(World(7))
    outcome = run_search(make_config(World(7), budget=1000), host)

    assert outcome.detail == "3 reflections failed in a row; the last: openai answered 401: no such key"
    assert len(host.asked) == 3
    assert len(host.sent) < 60


def test_a_reflection_that_fails_now_and_then_costs_only_its_child() -> None:
    class Shaky(SimulatedHost):
        async def reflect(self, request: ReflectionRequest) -> Any:
            if request.key.child % 3 == 0:
                raise ReflectionFailed("timed out")
            return await super().reflect(request)

    outcome = run_search(make_config(World(7)), Shaky(World(7)))

    assert outcome.finish_reason == "budget"
    reasons = [a.reason for a in outcome.attempts if int(a.id.split("_")[1]) % 3 == 0 and not a.prompt]
    assert "0:system: the reflection model failed: timed out" in reasons


@pytest.mark.parametrize("at", [0.0, 0.05, 0.35, 1.0, 2.55])
def test_cancelling_stops_at_once_whatever_is_going_on(at: float) -> None:
    host = SimulatedHost(World(8), reflection_s=0.5)
    outcome = run_search(make_config(World(8)), host, cancel_at=at)

    assert outcome.is_cancelled
    assert outcome.usage.wall_s == pytest.approx(at)
    assert outcome.held_out == ()
    assert terminal_events(host) == []
    assert host.in_flight == 0


def test_a_host_that_is_shut_down_leaves_no_thread_and_no_event() -> None:
    host = SimulatedHost(World(8), reflection_s=0.5)
    loop = SearchLoop()

    async def main() -> None:
        engine = GepaEngine(loop.worker)
        run = asyncio.create_task(engine.run(make_config(World(8)), host.ports, cancel=asyncio.Event()))
        await asyncio.sleep(1.0)
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run

    loop.run(main())
    assert terminal_events(host) == []
    assert host.in_flight == 0
    assert not [thread for thread in threading.enumerate() if thread.name == "synth-gepa"]


def test_an_error_of_the_host_ends_the_run_as_it_is() -> None:
    def broken(request: RolloutRequest) -> RolloutOutcome | None:
        if len(host.sent) > 40:
            raise ZeroDivisionError("a bug of the host")
        return None

    host = SimulatedHost(World(9), fails=broken, reflection=RuleReflection())

    with pytest.raises(ZeroDivisionError, match="a bug of the host"):
        run_search(make_config(World(9)), host)
    assert terminal_events(host) == []


def test_an_error_while_settling_is_not_swallowed_by_gepa() -> None:
    class Deaf(SimulatedHost):
        def emit(self, kind: str, data: dict[str, Any]) -> None:
            if kind.endswith("frontier.updated"):
                raise RuntimeError("the store is closed")
            super().emit(kind, data)

    with pytest.raises(RuntimeError, match="the store is closed"):
        run_search(make_config(World(9)), Deaf(World(9)))
