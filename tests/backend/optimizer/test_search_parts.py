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
from pytest_synth.backend.optimizer.candidates import Batch, Candidate, Keys, has_lesson, improves
from pytest_synth.backend.optimizer.components import Components
from pytest_synth.backend.optimizer.drawing import (
    Deck,
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
def test_a_deck_uses_all_seeds_equally_often(count: int, size: int) -> None:
    deck, drawn = Deck(range(count), Random(0)), []

    for _ in range(count * 3):
        batch = deck.find(size, lambda batch: True)
        assert batch is not None
        drawn.append(batch)
        deck.discard(size)

    assert all(len(set(batch)) == size for batch in drawn)
    assert set(Counter(seed for batch in drawn for seed in batch).values()) == {3 * size}


def test_a_deck_shows_the_same_seeds_until_they_are_discarded() -> None:
    deck = Deck(range(9), Random(0))

    first = deck.find(4, lambda batch: True)
    assert first is not None
    assert deck.find(4, lambda batch: True) == first
    assert deck.find(2, lambda batch: True) == first[:2]
    deck.discard(2)
    then = deck.find(2, lambda batch: True)
    assert then == first[2:]


def test_seeds_that_are_not_wanted_are_passed_over_but_not_for_ever() -> None:
    deck = Deck(range(6), Random(0))

    found = deck.find(2, lambda batch: 3 in batch)

    assert found is not None
    assert 3 in found
    assert deck.find(2, lambda batch: False) is None


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


# Batches of children


class Known:
    """Rollouts that have been paid for, and the batches that are drawn on them.

    Feedback seeds are 20 to 29; the parent has rewards on Pareto seeds 0 to 3, the last one lost.
    """

    def __init__(self, feedback: dict[int, float], **changes: Any) -> None:
        self.config = make_config(World(), **{"minibatch_size": 6, "pareto_set_size": 4, **changes})
        rewards = {0: 1.0, 1: 0.5, 2: 0.0}
        pareto = {seed: RolloutOutcome(reward) for seed, reward in rewards.items()} | {3: LOST}
        self.parent = Candidate(0, 0, self.config.prompt, None, 0, 0, pareto)
        self.batches = Batches(self.config, range(20, 30), lambda key: self.paid.get(key))
        seen = {seed: RolloutOutcome(reward) for seed, reward in feedback.items()}
        self.paid = {self.key(seed): outcome for seed, outcome in (pareto | seen).items()}
        self.batches.remember(self.paid)

    def key(self, seed: int) -> RolloutKey:
        return self.batches.key(self.config.prompt, seed, 0)

    def choices(self, child: int = 1) -> list[Batch]:
        return list(self.batches.for_child(self.parent, child))


def seeds_of(keys: Keys) -> set[int]:
    return {key.seed for key in keys}


def test_a_usual_child_learns_from_fresh_seeds_and_must_beat_its_parent_there() -> None:
    usual, *frugal = Known({}).choices()

    assert usual.lessons == usual.gate
    assert len(seeds_of(usual.gate)) == 6
    assert seeds_of(usual.gate) <= set(range(20, 30))
    assert [len(batch.lessons) for batch in frugal] == [3, 2, 1]  # for as many as can be paid
    assert all(seeds_of(batch.lessons) < seeds_of(usual.gate) for batch in frugal)


def test_up_to_half_of_a_minibatch_are_known_failures() -> None:
    usual, frugal, *few = Known({20: 0.0, 21: 0.5, 22: 0.0, 23: 0.0, 24: 1.0}).choices()

    failures = {20, 21, 22, 23}
    assert usual.lessons == usual.gate
    assert usual.fresh == 3
    assert len(seeds_of(usual.gate) & failures) >= 3
    assert 3 < len(usual.gate) <= 6
    assert seeds_of(frugal.lessons) == failures
    assert (frugal.fresh, [batch.fresh for batch in few]) == (0, [3, 2, 1])


def test_a_frugal_child_is_judged_on_pareto_seeds_that_can_be_mended() -> None:
    for number in range(20):
        for batch in Known({20: 0.0}, minibatch_size=1, rng_seed=number).choices()[1:]:
            assert batch.seeds in {(1,), (2,), (3,)}
            assert seeds_of(batch.lessons) <= set(range(20, 30))


def test_no_child_learns_from_the_seeds_that_score_it_while_there_is_anything_else() -> None:
    known = dict.fromkeys(range(20, 29), 1.0)
    for batch in Known(known).choices():
        assert 29 in seeds_of(batch.lessons)
        assert not seeds_of(batch.lessons) & set(range(4))

    (last,) = Known({**known, 29: 1.0}).choices()
    assert seeds_of(last.lessons) == seeds_of(last.gate) == {0, 1, 2}


def test_a_founder_learns_from_few_fresh_seeds_and_is_scored_on_the_pareto_set() -> None:
    known = Known({})

    batch = known.batches.for_founder(known.parent, 1)

    assert batch is not None
    assert len(batch.lessons) == batch.fresh == 3
    assert seeds_of(batch.lessons) <= set(range(20, 30))
    assert seeds_of(batch.gate) == {0, 1, 2, 3}


def test_seeds_that_a_child_has_got_do_not_come_again_at_once() -> None:
    known = Known({})

    first = known.choices()[0]
    assert known.choices()[0] == first
    known.batches.take(first)
    assert len(seeds_of(known.choices()[0].gate) & seeds_of(first.gate)) == 2  # 10 seeds, 6 at a time


def test_samples_keep_uses_apart_only_when_nothing_is_reused() -> None:
    assert {key.sample for batch in Known({}).choices(7) for key in batch.keys} == {0}

    known = Known({}, reuse_known=False)
    samples = {(key.seed >= 20, key.sample) for batch in known.choices(7) for key in batch.keys}
    assert samples == {(False, known.parent.sample), (True, 14)}


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


def test_a_loss_that_two_children_saw_is_charged_to_both() -> None:
    budget, seen = Budget(100, 20), outcomes(1, 2, lost=(2,))
    budget.reserve(1, 5)
    budget.reserve(2, 5)

    assert len(budget.settle(1, "children", seen)) == 2
    assert budget.settle(2, "children", seen) == [LOST]


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
