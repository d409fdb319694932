"""Tables of the ini file that hold a line for each entry."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import pytest

_BOOLEANS = {"true": True, "false": False}


def price_table(lines: Iterable[str]) -> dict[str, dict[str, float]]:
    """Read `synth_prices`: `openai/my-model = 0.10 0.40`, US dollars for a million tokens.

    Raises:
        pytest.UsageError: If a line is not of this form; it shows the line.
    """
    table: dict[str, dict[str, float]] = {}
    for line in filter(None, map(str.strip, lines)):
        name, _, amounts = (part.strip() for part in line.partition("="))
        numbers = amounts.split()
        if "/" not in name or len(numbers) not in (2, 3) or not all(map(_is_price, numbers)):
            raise pytest.UsageError(
                f"ini value synth_prices: {line!r} is not allowed; use PROVIDER/MODEL = INPUT OUTPUT "
                "[CACHED_INPUT], in US dollars for a million tokens, as in openai/my-model = 0.10 0.40"
            )
        table[name] = dict(zip(("input", "output", "cached_input"), map(float, numbers), strict=False))
    return table


def provider_table(lines: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Read `synth_providers`: `mine: base_url=https://llm.example.org/v1 key_variable=MINE_KEY`.

    Raises:
        pytest.UsageError: If a line is not of this form; it shows the line.
    """
    table: dict[str, dict[str, Any]] = {}
    for line in filter(None, map(str.strip, lines)):
        name, colon, rest = (part.strip() for part in line.partition(":"))
        settings = [word.partition("=") for word in rest.split()]
        if not colon or not name or not settings or not all(key and value for key, _, value in settings):
            raise pytest.UsageError(
                f"ini value synth_providers: {line!r} is not allowed; use NAME: SETTING=VALUE ..., as in "
                "mine: base_url=https://llm.example.org/v1 key_variable=MINE_KEY"
            )
        table[name] = {key: _BOOLEANS.get(value, value) for key, _, value in settings}
    return table


def redact_patterns(lines: Iterable[str]) -> tuple[str, ...]:
    """Read `synth_redact`.

    Raises:
        pytest.UsageError: If a line is no regular expression; it shows the line and what is wrong.
    """
    patterns = tuple(filter(None, map(str.strip, lines)))
    for pattern in patterns:
        try:
            re.compile(pattern)
        except re.error as error:
            raise pytest.UsageError(
                f"ini value synth_redact: {pattern!r} is no regular expression: {error}"
            ) from None
    return patterns


def _is_price(text: str) -> bool:
    try:
        return 0 <= float(text) < float("inf")
    except ValueError:
        return False
