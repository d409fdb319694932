"""Checks of markers' arguments, each into a plain value; every mistake is a line that names it."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Set
from typing import Any

from pytest_synth.errors import ConfigError

MAX_ROLLOUTS = 100_000
"""Of one eval; the embedded backend takes no more."""


class SpecError(ConfigError):
    """An argument of a marker is wrong; the text names the argument and what is allowed.

    Attributes:
        marker: Which one.
    """

    marker = "synth_eval"


def seeds_argument(name: str = "seeds", *, twice: str = "") -> Callable[[object], tuple[int, ...]]:
    """Check seeds: at least one, whole numbers from 0, none twice.

    Args:
        twice: What to do instead of giving a seed twice.
    """

    def check(value: object) -> tuple[int, ...]:
        if not isinstance(value, range | list | tuple | Set):
            raise SpecError(f"{name} is {value!r}; give a range or a list of whole numbers, as in range(50)")
        if isinstance(value, range) and value[MAX_ROLLOUTS:]:
            raise SpecError(f"{name} is {value!r}; an eval may have {MAX_ROLLOUTS:,} rollouts")
        seeds = tuple(value)
        if not seeds:
            raise SpecError(f"{name} is empty; at least one seed is needed")
        seen: set[int] = set()
        for seed in seeds:
            if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**53:  # JSON's limit
                raise SpecError(f"{name} holds {seed!r}; a seed is a whole number from 0")
            if seed in seen:
                raise SpecError(f"{name} holds {seed} twice{twice}")
            seen.add(seed)
        return tuple(sorted(seeds)) if isinstance(value, Set) else seeds

    return check


def number_argument(
    name: str, allowed: str, accept: Callable[[float], bool]
) -> Callable[[object], float | None]:
    def check(value: object) -> float | None:
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float) or not _is_finite(value):
            raise SpecError(f"{name} is {value!r}; allowed: {allowed}")
        if not accept(value):
            raise SpecError(f"{name} is {value!r}; allowed: {allowed}")
        return float(value)

    return check


def count_argument(name: str, least: int) -> Callable[[object], int | None]:
    def check(value: object) -> int | None:
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise SpecError(f"{name} is {value!r}; allowed: a whole number from {least}")
        return value

    return check


def text_argument(name: str) -> Callable[[object], str | None]:
    def check(value: object) -> str | None:
        if value is None:
            return None
        if not isinstance(value, str) or not value:
            raise SpecError(f"{name} is {value!r}; allowed: a text that is not empty")
        return value

    return check


def mapping_argument(name: str) -> Callable[[object], dict[str, Any] | None]:
    def check(value: object) -> dict[str, Any] | None:
        if value is None:
            return None
        if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
            raise SpecError(f"{name} is {value!r}; allowed: a mapping with names as keys")
        for key, entry in value.items():
            if not _has_json_form(entry):
                raise SpecError(
                    f"{name}[{key!r}] is {entry!r}; allowed: what JSON can hold (texts, finite numbers, "
                    "true and false, None, lists and mappings of these)"
                )
        return dict(value)

    return check


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer that no float can hold
        return False


def _has_json_form(value: object) -> bool:
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        return False
    return True
