"""Ceilings: what is set aside, what waits, what is refused."""

from __future__ import annotations

import asyncio

import pytest
from fakes.virtual_time import run_virtual

from pytest_synth.backend.gateway.budget import Budget, BudgetExhausted


def test_calls_that_fit_are_let_through_and_the_next_is_refused_with_the_figures() -> None:
    async def scene() -> str:
        budget = Budget(0.25)
        for _ in range(25):
            await budget.reserve(0.01)
            budget.settle(0.01, 0.01)
        with pytest.raises(BudgetExhausted) as exhausted:
            await budget.reserve(0.01)
        assert budget.spent_usd == pytest.approx(0.25)
        return str(exhausted.value)

    assert run_virtual(scene())[0] == (
        "budget: max_cost is $0.2500, $0.2500 spent, and this call could cost up to $0.0100"
    )


def test_no_order_of_ends_crosses_the_ceiling() -> None:
    """40 calls of 3 cents at worst and 1 in fact: at most 25 cents, and at most 2 cents left over."""

    async def scene() -> tuple[float, int]:
        budget, done, spent = Budget(0.25), 0, 0.0

        async def call(number: int) -> None:
            nonlocal done, spent
            try:
                await budget.reserve(0.03)
            except BudgetExhausted:
                return
            await asyncio.sleep(1 + number % 3)
            budget.settle(0.03, 0.01)
            done += 1
            spent += 0.01
            assert spent <= 0.25 + 1e-9

        await asyncio.gather(*(call(number) for number in range(40)))
        return spent, done

    (spent, done), _ = run_virtual(scene())
    assert spent == pytest.approx(0.23)  # a call could still have cost 3 cents
    assert done == 23


def test_a_call_waits_while_those_in_flight_may_leave_room() -> None:
    async def scene() -> float:
        budget = Budget(0.05)
        await budget.reserve(0.03)
        asyncio.get_running_loop().call_later(4, budget.settle, 0.03, 0.01)
        await budget.reserve(0.03)
        return asyncio.get_running_loop().time()

    assert run_virtual(scene())[0] == pytest.approx(4)


def test_a_wider_ceiling_holds_for_all_below_it() -> None:
    async def scene() -> str:
        run = Budget(0.03, name="--synth-max-cost")
        one, other = Budget(0.02, parent=run), Budget(0.02, parent=run)
        for budget in (one, one, other):
            await budget.reserve(0.01)
            budget.settle(0.01, 0.01)
        with pytest.raises(BudgetExhausted) as exhausted:
            await other.reserve(0.01)
        return str(exhausted.value)

    assert run_virtual(scene())[0].startswith("budget: --synth-max-cost is $0.0300, $0.0300 spent")


def test_what_was_spent_before_counts() -> None:
    async def scene() -> None:
        with pytest.raises(BudgetExhausted):
            await Budget(0.05, spent_usd=0.045).reserve(0.01)

    run_virtual(scene())
