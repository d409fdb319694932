"""The words of a verdict: numbers, seeds and reasons as short, bounded text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pytest_synth.gates.observations import SeedOutcome
from pytest_synth.gates.rules import TOLERANCE

SEEDS_SHOWN = 8  # runs of seeds named for one reason
REASONS_SHOWN = 4
REASON_CHARS = 100  # of one reason among several
SOLE_REASON_CHARS = 400  # of the only one: it says what to do

Key = tuple[str | None, int]
"""Split and number of a seed."""


def number(value: float, *, beside: float | None = None) -> str:
    """Two digits after the point; more where they would place the value on the wrong side of `beside`."""
    for digits in range(2, 10):
        text = f"{value:.{digits}f}"
        if beside is None or _side(float(text), beside) == _side(value, beside):
            return text
    return repr(value)


def limit_number(limit: float) -> str:
    """A limit as its author wrote it, with two digits after the point at least."""
    whole, _, digits = f"{limit:.6f}".rstrip("0").partition(".")
    return f"{whole}.{digits:0<2}"


def percent(share: float) -> str:
    return f"{100 * share:g}%"


def _side(value: float, limit: float) -> int:
    return (value > limit + TOLERANCE) - (value < limit - TOLERANCE)


def count(n: int, noun: str) -> str:
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"


def have(n: int) -> str:
    return "has" if n == 1 else "have"


def seed_name(key: Key, *, with_split: bool) -> str:
    return f"{key[0]}/{key[1]}" if with_split else str(key[1])


def needs_split(keys: Iterable[Key]) -> bool:
    """Whether a seed's number alone is not enough to name it."""
    return len({split for split, _ in keys}) > 1


def seed_list(keys: Sequence[Key], *, with_split: bool = False, shown: int = SEEDS_SHOWN) -> str:
    """Name seeds, runs of three and more as `3-7`, and say how many are left out."""
    runs: list[list[Key]] = []
    for key in keys:
        if runs and runs[-1][-1] == (key[0], key[1] - 1):
            runs[-1].append(key)
        else:
            runs.append([key])
    parts: list[tuple[str, int]] = []
    for run in runs:
        if len(run) > 2:
            parts.append((f"{seed_name(run[0], with_split=with_split)}-{run[-1][1]}", len(run)))
        else:
            parts += [(seed_name(key, with_split=with_split), 1) for key in run]
    text = ", ".join(name for name, _ in parts[:shown])
    left = sum(n for _, n in parts[shown:])
    return f"{text} and {left} more" if left else text


def shorten(text: str, chars: int = REASON_CHARS) -> str:
    """One line of at most `chars` characters; control characters as escapes."""
    line = " ".join(text.split())
    line = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)
    return line if len(line) <= chars else line[: chars - 1].rstrip() + "…"


def reasons(missing: Sequence[SeedOutcome], *, with_split: bool) -> list[str]:
    """One text for each reason, most frequent first: `3, 11: task app answered 500`."""
    groups: dict[str, list[SeedOutcome]] = {}
    for outcome in missing:
        groups.setdefault(outcome.reason or "", []).append(outcome)
    ordered = sorted(groups.items(), key=lambda item: -len(item[1]))
    chars = REASON_CHARS if len(groups) > 1 else SOLE_REASON_CHARS
    return [
        f"{seed_list([o.key for o in outcomes], with_split=with_split)}: {shorten(reason, chars)}"
        for reason, outcomes in ordered
    ]


def reason_line(missing: Sequence[SeedOutcome], *, with_split: bool) -> str:
    """The reasons as one line, at most `REASONS_SHOWN` of them."""
    texts = reasons(missing, with_split=with_split)
    shown = "; ".join(texts[:REASONS_SHOWN])
    left = len(texts) - REASONS_SHOWN
    return f"{shown}; and {count(left, 'other reason')}" if left > 0 else shown


def lowest(outcomes: Sequence[SeedOutcome], *, with_split: bool, shown: int = 5) -> str:
    """The seeds with the lowest rewards, if below 1: `seed 7 0.00, seed 12 0.10`."""
    ranked = sorted(
        ((o.reward, o) for o in outcomes if o.reward is not None and o.reward < 1),
        key=lambda pair: (pair[0], pair[1].seed),
    )
    return ", ".join(
        f"seed {seed_name(outcome.key, with_split=with_split)} {number(reward)}"
        for reward, outcome in ranked[:shown]
    )
