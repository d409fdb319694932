"""What a call costs, in US dollars: the user's own prices, else the price data of `genai-prices`.

What is not known is None, never 0.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pytest_synth.backend.gateway.dialect import Usage
from pytest_synth.backend.gateway.providers import Provider
from pytest_synth.errors import ConfigError

MILLION = 1_000_000


@dataclass(frozen=True)
class Price:
    """US dollars for a million tokens; `cached_input` is for input that the provider's cache served."""

    input: float
    output: float
    cached_input: float | None = None

    def cost(self, usage: Usage) -> float:
        cached = usage.cache_read_tokens if self.cached_input is not None else 0
        return (
            (usage.prompt_tokens - cached) * self.input
            + cached * (self.cached_input or 0.0)
            + usage.completion_tokens * self.output
        ) / MILLION


class Prices:
    """Prices by provider and model.

    Args:
        own: The user's prices, by `provider/model`: mappings with `input`, `output` and optionally
            `cached_input`, in US dollars for a million tokens. They go before the price data.

    Raises:
        ConfigError: If an entry is not of this form; it names the entry.
    """

    def __init__(self, own: Mapping[str, Mapping[str, Any]] | None = None) -> None:
        self._own = {name: _price(name, entry) for name, entry in (own or {}).items()}
        self._unknown: set[tuple[str, str]] = set()

    def cost(self, provider: Provider, model: str, usage: Usage) -> float | None:
        """US dollars for a call; None if the price is not known. A local provider costs nothing."""
        own = self._own.get(f"{provider.name}/{model}")
        if own is not None:
            return own.cost(usage)
        if provider.local:
            return 0.0
        if provider.prices is None or (provider.name, model) in self._unknown:
            return None
        cost = _looked_up(provider.prices, model, usage)
        if cost is None:  # perhaps only the cache's tokens have no price
            cost = _looked_up(provider.prices, model, Usage(usage.prompt_tokens, usage.completion_tokens))
        if cost is None:
            self._unknown.add((provider.name, model))  # a look-up that fails is slow
        return cost

    def worst(self, provider: Provider, model: str, prompt_tokens: int, output_tokens: int) -> float | None:
        """Most US dollars that a call can cost; None if the price is not known."""
        plain = Usage(prompt_tokens, output_tokens)
        written = Usage(prompt_tokens, output_tokens, cache_write_tokens=prompt_tokens)
        costs = [self.cost(provider, model, usage) for usage in (plain, written)]
        known = [cost for cost in costs if cost is not None]
        return max(known) if known else None

    def is_known(self, provider: Provider, model: str) -> bool:
        return self.cost(provider, model, Usage(1, 1)) is not None


def _looked_up(provider: str, model: str, usage: Usage) -> float | None:
    import genai_prices  # 50 ms, and only where a priced provider is used

    tokens = {"input_tokens": usage.prompt_tokens, "output_tokens": usage.completion_tokens}
    if usage.cache_read_tokens:
        tokens["cache_read_tokens"] = usage.cache_read_tokens
    if usage.cache_write_tokens:
        tokens["cache_write_tokens"] = usage.cache_write_tokens
    try:
        price = genai_prices.calc_price(genai_prices.Usage(**tokens), model_ref=model, provider_id=provider)
    except (LookupError, ValueError):  # unknown model; tokens of a kind that it has no price for
        return None
    return float(price.total_price)


def _price(name: str, entry: Mapping[str, Any]) -> Price:
    provider, _, model = name.partition("/")
    if not provider or not model:
        raise ConfigError(f"price of {name!r}: write 'provider/model'")
    for key, value in entry.items():
        if key not in ("input", "output", "cached_input"):
            raise ConfigError(f"price of {name!r}: {key} is unknown; allowed: input, output, cached_input")
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
            raise ConfigError(f"price of {name!r}: {key} is {value!r}, not US dollars for a million tokens")
    missing = {"input", "output"} - entry.keys()
    if missing:
        raise ConfigError(f"price of {name!r}: {' and '.join(sorted(missing))} missing")
    return Price(**entry)
