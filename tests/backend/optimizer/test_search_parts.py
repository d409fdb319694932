"""The parts of a search: components, drawing, budget, slots, spending, failures."""

from __future__ import annotations

import asyncio
from collections import Counter
from random import Random
from typing import Any

import pytest
from fakes.optimizer_host import make_config
from fakes.rule_world import World
from fakes.search_clock import SearchLoop

from pytest_synth.backend.optimizer.batches import Batches
from pytest_synth.backend.optimizer.budget import Budget
from pytest_synth.backend.optimizer.candidates import Candidate, has_lesson, improves
from pytest_synth.backend.optimizer.components import Components
from pytest_synth.backend.optimizer.drawing import (
    Minibatches,
    draw_components,
    draw_lessons,
    draw_pareto_set,
)
from pytest_synth.backend.optimizer.pool import Slots, UsageMeter
from pytest_synth.backend.optimizer.ports import RolloutKey, RolloutOutcome
from pytest_synth.backend.optimizer.spending import Spending
from pytest_synth.backend.optimizer.stopping import FailureStreak, StopSignal
from pytest_synth.prompts import Message, Prompt

LOST = RolloutOutcome(None, error="down", error_kind="infrastructure")


def outcomes(*seeds: int, lost: tuple[int, ...] = ()) -> dict[RolloutKey, RolloutOutcome]:
    return {RolloutKey("p", None, seed, 0): LOST if seed in lost else RolloutOutcome(1.0) for seed in seeds}


# Components


def test_a_prompt_s_messages_are_its_components() -> None:
    prompt = Prompt((Message("system", "A {x}"), Message("user", "B {y}")))
    components = Components(prompt)

    assert components.split(prompt) == {"0:system": "A {x}", "1:user": "B {y}"}
    assert components.join({"1:user": "C", "0:system": "A {x}"}) == Prompt(
        (Message("system", "A {x}"), Message("user", "C"))
    )
    assert components.wildcards("1:user") == {"y"}
    assert components.rewritable == ("0:system", "1:user")
    assert Components(prompt, (1,)).rewritable == ("1:user",)


# Drawing


def test_the_pareto_set_is_drawn_from_the_train_seeds_and_the_rest_gives_feedback() -> None:
    config = make_config(World(), train_seeds=tuple(range(20)), pareto_set_size=5)

    pareto, feedback = draw_pareto_set(config)

    assert len(pareto) == 5
    assert sorted(pareto + feedback) == list(range(20))
    assert draw_pareto_set(config) == (pareto, feedback)
    assert draw_pareto_set(make_config(World(), rng_seed=1, train_seeds=tuple(range(20)))) != (
        pareto,
        feedback,
    )


@pytest.mark.parametrize(("count", "size"), [(10, 3), (7, 7), (40, 8), (5, 1)])
def test_minibatches_use_all_seeds_equally_often(count: int, size: int) -> None:
    batches = Minibatches(range(count), size, Random(0))

    drawn = [batches.draw() for _ in range(count * 3)]

    assert all(len(set(batch)) == size for batch in drawn)
    assert set(Counter(seed for batch in drawn for seed in batch).values()) == {3 * size}


def test_minibatches_that_are_not_wanted_are_passed_over_but_not_for_ever() -> None:
    batches = Minibatches(range(6), 2, Random(0))

    found = batches.draw_where(lambda batch: 3 in batch)

    assert found is not None
    assert 3 in found
    assert batches.draw_where(lambda batch: False) is None


def test_at_least_one_message_is_rewritten() -> None:
    names = ("0:system", "1:user")
    draws = Counter(draw_components(names, 0.5, Random(number)) for number in range(300))

    assert set(draws) == {("0:system",), ("1:user",), names}
    assert {draw_components(names, 0.0, Random(number)) for number in range(50)} == {
        ("0:system",),
        ("1:user",),
    }
    assert draw_components(names, 1.0, Random(0)) == names


def test_lessons_are_drawn_from_failures_first() -> None:
    scores = [(1, 1.0), (2, 0.5), (3, 1.0), (4, 0.0)]

    drawn = {frozenset(draw_lessons(scores, 2, Random(number))) for number in range(20)}

    assert drawn == {frozenset({2, 4})}
    assert {2, 4} < set(draw_lessons(scores, 3, Random(0)))


# Minibatches of children


def batches_of(paid: dict[int, float], **changes: Any) -> tuple[Batches, Candidate]:
    """Batches over feedback seeds 20 to 29, and a parent with rewards on Pareto seeds 0 to 3."""
    config = make_config(World(), **{"minibatch_size": 4, "pareto_set_size": 4, **changes})
    parent = Candidate(
        0,
        0,
        config.prompt,
        None,
        0,
        0,
        {0: RolloutOutcome(1.0), 1: RolloutOutcome(0.5), 2: RolloutOutcome(0.0), 3: LOST},
    )
    known = {seed: RolloutOutcome(reward) for seed, reward in paid.items()}
    known |= {seed: outcome for seed, outcome in parent.outcomes.items() if not outcome.is_lost}
    return Batches(config, range(20, 30), lambda key: known.get(key.seed)), parent


@pytest.mark.parametrize(("fraction", "fresh"), [(0.0, 0), (0.25, 1), (0.5, 2), (0.6, 3), (1.0, 4)], ids=str)
def test_a_minibatch_is_lessons_and_fresh_seeds(fraction: float, fresh: int) -> None:
    batches, parent = batches_of({}, feedback_fraction=fraction)

    keys = batches.mixed(parent, 1)

    assert keys is not None
    seeds = [key.seed for key in keys]
    assert sum(1 for seed in seeds if seed >= 20) == fresh
    lessons = {seed for seed in seeds if seed < 20}
    assert len(lessons) == min(4 - fresh, 3)
    assert 3 not in lessons
    if len(lessons) >= 2:
        assert {1, 2} <= lessons


def test_fresh_seeds_stay_until_a_child_has_got_them() -> None:
    batches, parent = batches_of({}, feedback_fraction=1.0)

    first = batches.mixed(parent, 1)
    assert batches.mixed(parent, 1) == first
    batches.take()
    second = batches.mixed(parent, 2)
    assert first is not None
    assert second is not None
    assert not {key.seed for key in first} & {key.seed for key in second}


def test_seeds_on_which_the_parent_is_known_to_be_perfect_are_passed_over() -> None:
    known = dict.fromkeys(range(20, 29), 1.0)
    batches, parent = batches_of(known, feedback_fraction=1.0)
    keys = batches.mixed(parent, 1)
    assert keys is not None
    assert 29 in {key.seed for key in keys}

    batches, parent = batches_of({**known, 29: 1.0}, feedback_fraction=1.0)
    assert batches.mixed(parent, 1) is None
    assert {key.seed for key in batches.lessons(parent)} == {0, 1, 2}


def test_samples_keep_uses_apart_only_when_nothing_is_reused() -> None:
    batches, parent = batches_of({}, feedback_fraction=0.5)
    assert {key.sample for key in batches.mixed(parent, 7) or ()} == {0}

    batches, parent = batches_of({}, feedback_fraction=0.5, reuse_known=False)
    samples = {(key.seed >= 20, key.sample) for key in batches.mixed(parent, 7) or ()}
    assert samples == {(False, parent.sample), (True, 14)}


# Candidates


def test_a_child_must_be_strictly_better_where_both_have_run() -> None:
    good, poor = RolloutOutcome(1.0), RolloutOutcome(0.5)

    assert improves([poor, good], [good, good])
    assert not improves([poor, good], [poor, good])
    assert not improves([LOST, good], [good, good])
    assert not improves([poor, poor], [LOST, poor])
    assert improves([LOST, poor], [poor, good])


def test_lost_and_perfect_rollouts_teach_nothing() -> None:
    assert not has_lesson([LOST, RolloutOutcome(1.0)])
    assert has_lesson([RolloutOutcome(1.0), RolloutOutcome(0.9)])
    assert has_lesson([RolloutOutcome(None, error="500", error_kind="rollout")])


# Budget


def test_a_known_rollout_is_paid_once_and_a_lost_one_each_time() -> None:
    budget = Budget(100, 20)

    budget.pay("baseline", outcomes(1, 2, 3, lost=(3,)))
    budget.reserve(1, 10)
    paid = budget.settle(1, "children", outcomes(2, 3, 4, lost=(3,)))

    assert len(paid) == 2
    assert budget.used == {"baseline": 3, "children": 2}
    assert not budget.is_paid(RolloutKey("p", None, 3, 0))
    assert budget.left == 100 - 20 - 5


def test_reservations_and_the_final_check_are_out_of_reach() -> None:
    budget = Budget(50, 20)

    budget.reserve(1, 26)
    assert budget.left == 4
    with pytest.raises(AssertionError, match="child 2 costs up to 5, 4 are left"):
        budget.reserve(2, 5)
    budget.pay_final_check(outcomes(*range(20)))
    assert budget.left == 4


# Slots


def test_slots_serve_the_most_urgent_first_and_never_more_than_their_number() -> None:
    order: list[str] = []

    async def work(slots: Slots, name: str, urgency: int) -> None:
        async with slots.slot(urgency):
            order.append(name)
            await asyncio.sleep(1)

    async def main() -> float:
        meter = UsageMeter()
        slots = Slots(2, meter)
        jobs = [("a", 5), ("b", 5), ("check", 9), ("gate", 1), ("parent", 0)]
        await asyncio.gather(*(work(slots, name, urgency) for name, urgency in jobs))
        return meter.busy_s

    assert SearchLoop().run(main()) == 5.0
    assert order == ["a", "b", "parent", "gate", "check"]


def test_a_slot_whose_taker_gave_up_goes_to_the_next() -> None:
    async def main() -> bool:
        slots = Slots(1, UsageMeter())
        reached = asyncio.Event()

        async def hold(seconds: float) -> None:
            async with slots.slot(0):
                await asyncio.sleep(seconds)

        async def last() -> None:
            async with slots.slot(2):
                reached.set()

        first = asyncio.create_task(hold(1))
        second = asyncio.create_task(hold(100))
        third = asyncio.create_task(last())
        await asyncio.sleep(0)
        await asyncio.sleep(1)  # the first has ended in this very step, and the second is to have its slot
        second.cancel()
        await asyncio.gather(first, second, third, return_exceptions=True)
        return reached.is_set()

    assert SearchLoop().run(main())


def test_waiting_for_reflection_is_time_without_a_rollout_in_flight() -> None:
    async def main() -> tuple[float, float]:
        meter = UsageMeter()

        async def reflect() -> None:
            with meter.reflection():
                await asyncio.sleep(5)

        async def rollout() -> None:
            with meter.rollout():
                await asyncio.sleep(2)

        await asyncio.gather(reflect(), rollout(), rollout())
        return meter.busy_s, meter.reflection_wait_s

    assert SearchLoop().run(main()) == (4.0, 3.0)


# Spending and failures


def test_a_child_is_refused_when_its_usual_cost_would_pass_the_cap() -> None:
    spending = Spending(1.0, StopSignal())
    spending.settle([0.05] * 10, [0.1])

    assert spending.can_afford(rollouts=5, reflections=1)
    assert not spending.can_afford(rollouts=8, reflections=1)
    assert Spending(None, StopSignal()).can_afford(10**9, 10**9)


def test_a_cap_with_an_unknown_price_ends_the_run_with_the_remedy() -> None:
    stop = StopSignal()
    spending = Spending(2.0, stop)

    spending.add(0.1)
    spending.add(None)

    assert spending.total_usd is None
    assert stop.reason == "failing"
    assert stop.detail == (
        "token.max_spend_usd 2 cannot be kept: the price of the model is not known; leave the cap out, or"
        " name a model with a known price"
    )


def test_only_failures_in_a_row_end_the_run() -> None:
    stop = StopSignal()
    streak = FailureStreak("rollouts", 3, stop)

    for failure in ("a", "b", None, "c", "d"):
        streak.success() if failure is None else streak.failure(failure)
    assert stop.reason is None

    streak.failure("no route to host")
    assert stop.reason == "failing"
    assert stop.detail == "3 rollouts failed in a row; the last: no route to host"


def test_the_first_reason_counts_but_an_end_of_the_run_goes_before_an_end_of_the_search() -> None:
    stop = StopSignal()

    stop.request("time", whole_run=False)
    assert (stop.ends_search, stop.ends_run) == (True, False)
    stop.request("cancelled", whole_run=True)
    stop.request("failing", whole_run=True)

    assert stop.reason == "cancelled"
    assert stop.ends_run
