"""Prices: the user's own, the price data, and what is not known."""

from __future__ import annotations

from typing import Any

import pytest

from pytest_synth.backend.gateway.dialect import Usage
from pytest_synth.backend.gateway.prices import Prices
from pytest_synth.backend.gateway.providers import PROVIDERS
from pytest_synth.errors import ConfigError

OPENAI, ANTHROPIC = PROVIDERS["openai"], PROVIDERS["anthropic"]


def test_the_price_data_knows_the_usual_models() -> None:
    cost = Prices().cost(OPENAI, "gpt-4.1-nano", Usage(1_000_000, 1_000_000))
    assert cost is not None
    assert 0.1 < cost < 5  # prices change; their order of magnitude does not


def test_input_that_the_cache_served_is_cheaper() -> None:
    prices = Prices()
    plain = prices.cost(OPENAI, "gpt-4.1-nano", Usage(1_000_000, 0))
    cached = prices.cost(OPENAI, "gpt-4.1-nano", Usage(1_000_000, 0, cache_read_tokens=1_000_000))
    assert plain is not None
    assert cached is not None
    assert 0 < cached < plain


def test_an_unknown_model_is_unknown_and_not_free() -> None:
    prices = Prices()
    assert prices.cost(OPENAI, "no-such-model", Usage(10, 10)) is None
    assert prices.worst(OPENAI, "no-such-model", 10, 10) is None
    assert not prices.is_known(OPENAI, "no-such-model")


@pytest.mark.parametrize("name", ["offline", "ollama", "vllm"])
def test_a_local_model_costs_nothing(name: str) -> None:
    assert Prices().cost(PROVIDERS[name], "any", Usage(10, 10)) == 0.0


def test_the_users_price_goes_before_all_others() -> None:
    own = {
        "openai/gpt-4.1-nano": {"input": 1.0, "output": 10, "cached_input": 0.5},
        "ollama/m": {"input": 2, "output": 2},
    }
    prices = Prices(own)
    assert prices.cost(OPENAI, "gpt-4.1-nano", Usage(3_000_000, 100_000)) == pytest.approx(4.0)
    assert prices.cost(
        OPENAI, "gpt-4.1-nano", Usage(3_000_000, 0, cache_read_tokens=2_000_000)
    ) == pytest.approx(2.0)
    assert prices.cost(PROVIDERS["ollama"], "m", Usage(1_000_000, 0)) == pytest.approx(2.0)


def test_the_worst_case_counts_writing_the_cache() -> None:
    prices = Prices()
    plain = prices.cost(ANTHROPIC, "claude-sonnet-4-5", Usage(1000, 100))
    worst = prices.worst(ANTHROPIC, "claude-sonnet-4-5", 1000, 100)
    assert plain is not None
    assert worst is not None
    assert worst > plain


@pytest.mark.parametrize(
    ("own", "message"),
    [
        ({"m": {"input": 1, "output": 1}}, "price of 'm': write 'provider/model'"),
        ({"a/m": {"input": 1}}, "price of 'a/m': output missing"),
        ({"a/m": {}}, "price of 'a/m': input and output missing"),
        (
            {"a/m": {"input": -1, "output": 1}},
            "price of 'a/m': input is -1, not US dollars for a million tokens",
        ),
        (
            {"a/m": {"input": "1", "output": 1}},
            "price of 'a/m': input is '1', not US dollars for a million tokens",
        ),
        ({"a/m": {"in": 1}}, "price of 'a/m': in is unknown; allowed: input, output, cached_input"),
    ],
)
def test_a_price_that_is_none_is_refused(own: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        Prices(own)
    assert str(refused.value) == message


def test_an_unknown_price_is_looked_up_once(monkeypatch: pytest.MonkeyPatch) -> None:
    looked_up: list[str] = []
    monkeypatch.setattr(
        "pytest_synth.backend.gateway.prices._looked_up",
        lambda provider, model, usage: looked_up.append(model),
    )
    prices = Prices()
    for _ in range(5):
        assert prices.cost(OPENAI, "m", Usage(1, 1)) is None
    assert len(looked_up) == 2  # with the cache's tokens and without
