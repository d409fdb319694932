"""The words of a verdict: numbers, seeds and reasons as short, bounded text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pytest_synth.gates.observations import SeedOutcome
from pytest_synth.gates.rules import TOLERANCE

SEEDS_SHOWN = 8  # runs of seeds named for one reason
REASONS_SHOWN = 4
REASON_CHARS = 100


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


def _side(value: float, limit: float) -> int:
    return (value > limit + TOLERANCE) - (value < limit - TOLERANCE)


def count(n: int, noun: str) -> str:
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"


def have(n: int) -> str:
    return "has" if n == 1 else "have"


def seed_name(outcome: SeedOutcome, *, with_split: bool) -> str:
    return f"{outcome.split}/{outcome.seed}" if with_split else str(outcome.seed)


def needs_split(outcomes: Iterable[SeedOutcome]) -> bool:
    return len({outcome.split for outcome in outcomes}) > 1


def seed_list(outcomes: Sequence[SeedOutcome], *, with_split: bool = False, shown: int = SEEDS_SHOWN) -> str:
    """Name seeds in order, runs of three and more as `3-7`, and say how many are left out."""
    runs: list[list[SeedOutcome]] = []
    for outcome in outcomes:
        last = runs[-1][-1] if runs else None
        if last is not None and last.split == outcome.split and last.seed + 1 == outcome.seed:
            runs[-1].append(outcome)
        else:
            runs.append([outcome])
    texts: list[tuple[str, int]] = []
    for run in runs:
        if len(run) > 2:
            texts.append((f"{seed_name(run[0], with_split=with_split)}-{run[-1].seed}", len(run)))
        else:
            texts += [(seed_name(one, with_split=with_split), 1) for one in run]
    text = ", ".join(name for name, _ in texts[:shown])
    left = sum(n for _, n in texts[shown:])
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
        groups.setdefault(shorten(outcome.reason or ""), []).append(outcome)
    ordered = sorted(groups.items(), key=lambda item: -len(item[1]))
    return [f"{seed_list(outcomes, with_split=with_split)}: {reason}" for reason, outcomes in ordered]


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
        f"seed {seed_name(outcome, with_split=with_split)} {number(reward)}"
        for reward, outcome in ranked[:shown]
    )
