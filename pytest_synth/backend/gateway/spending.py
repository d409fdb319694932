"""What a call may cost, set aside before it is made."""

from __future__ import annotations

import re
from typing import Final

from pytest_synth.backend.gateway.budget import Budget, BudgetExhausted
from pytest_synth.backend.gateway.dialect import Usage
from pytest_synth.backend.gateway.plans import Plan
from pytest_synth.backend.gateway.prices import Prices
from pytest_synth.backend.gateway.refusals import CallRefused

# No tokeniser makes more tokens than there are bytes; these stand for what a provider puts around them.
_AROUND_CALL, _AROUND_MESSAGE = 200, 16
_IMAGE_TOKENS: Final = 50_000  # the dearest image of the dearest model, roughly; its bytes say nothing
_IMAGE = re.compile(rb'"(?:type)":\s?"(?:image_url|input_image|image)"')
_DATA = re.compile(rb"[A-Za-z0-9+/=]{512,}")


def most_prompt_tokens(payload: bytes) -> int:
    """An upper bound of a body's prompt tokens."""
    images = len(_IMAGE.findall(payload))
    text = _DATA.sub(b"", payload) if images else payload
    return len(text) + _AROUND_CALL + _AROUND_MESSAGE * text.count(b'"role"') + images * _IMAGE_TOKENS


class Spending:
    """Guards the attempts of one call by a budget. Without one it lets all pass.

    Raises:
        CallRefused: If the worst case of the call is not known.
    """

    def __init__(self, budget: Budget | None, plan: Plan, payload: bytes, prices: Prices) -> None:
        self._budget = budget
        self._worst = 0.0 if budget is None else _worst(plan, payload, prices, budget)
        self._is_reserved = False

    async def before(self) -> None:
        if self._budget is None or self._worst == 0:
            return
        try:
            await self._budget.reserve(self._worst)
        except BudgetExhausted as exhausted:
            raise CallRefused(402, str(exhausted), kind="budget") from exhausted
        self._is_reserved = True

    def failed(self, *, perhaps_paid: bool) -> None:
        self._settle(self._worst if perhaps_paid else 0.0)

    def answered(self, cost_usd: float | None) -> None:
        """Book an answer; one of unknown cost counts as the worst case."""
        self._settle(self._worst if cost_usd is None else cost_usd)

    def _settle(self, cost_usd: float) -> None:
        if self._is_reserved and self._budget is not None:
            self._is_reserved = False
            self._budget.settle(self._worst, cost_usd)


def _worst(plan: Plan, payload: bytes, prices: Prices, budget: Budget) -> float:
    if prices.cost(plan.provider, plan.model, Usage(1, 1)) == 0:
        return 0.0
    limit = plan.dialect.output_limit(plan.body)
    if limit is None:
        raise CallRefused(
            402,
            f"budget: {budget.name} is set, and nothing says how many tokens this call may answer with; set "
            f"max_completion_tokens in the policy, or {plan.dialect.LIMIT_FIELD} in the call",
            kind="budget",
        )
    worst = prices.worst(plan.provider, plan.model, most_prompt_tokens(payload), limit)
    if worst is None:
        raise CallRefused(402, unknown_price(plan.provider.name, plan.model, budget.name), kind="budget")
    return worst


def unknown_price(provider: str, model: str, ceiling: str) -> str:
    """What to do about a model without a price where a ceiling is set."""
    return (
        f"budget: {ceiling} is set, and the price of '{provider}/{model}' is not known; give it in "
        "synth_prices, or take the ceiling away"
    )
