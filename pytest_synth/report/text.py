"""Text that is safe to print: foreign text on one line without control characters, numbers, seeds."""

from __future__ import annotations

from collections.abc import Iterable


def one_line(text: object, chars: int) -> str:
    """Foreign text (an answer, an exception) as one line of at most `chars` characters.

    White space is collapsed, and what a terminal would not show as a character is written as an escape,
    so that an answer can neither move the cursor nor hide text.
    """
    line = printable(" ".join(str(text).split()))
    return line if len(line) <= chars else line[: max(chars - 1, 0)].rstrip() + "…"


def printable(text: str) -> str:
    """Replace control characters, direction marks and the like by their escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def shorten_middle(text: str, chars: int) -> str:
    """Keep the end and, where there is room, the start: of a node id the end tells."""
    if len(text) <= chars:
        return text
    head = chars // 4 if chars >= 40 else 0
    return text[:head] + "…" + text[len(text) - (chars - 1 - head) :]


def seed_list(seeds: Iterable[int], shown: int = 8) -> str:
    """Seeds in order, runs of three and more as `3-7`, at most `shown` parts."""
    runs: list[list[int]] = []
    for seed in sorted(seeds):
        if runs and runs[-1][-1] + 1 == seed:
            runs[-1].append(seed)
        else:
            runs.append([seed])
    parts: list[tuple[str, int]] = []
    for run in runs:
        if len(run) > 2:
            parts.append((f"{run[0]}-{run[-1]}", len(run)))
        else:
            parts += [(str(seed), 1) for seed in run]
    text = ", ".join(part for part, _ in parts[:shown])
    left = sum(n for _, n in parts[shown:])
    return f"{text} and {left} more" if left else text


def count(n: int, noun: str) -> str:
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"


def skipped_text(n: int) -> str:
    """Says that a skipped eval is none that has passed."""
    return f"{count(n, 'eval')} skipped: {'its gate was' if n == 1 else 'their gates were'} not checked"


def dollars(cost_usd: float | None) -> str:
    """A price; `unknown` where it is, never 0.00 for one that is not."""
    if cost_usd is None:
        return "unknown"
    return f"${cost_usd:.2f}" if cost_usd == 0 or cost_usd >= 1 else f"${cost_usd:.4f}"


def rate(per_s: float | None) -> str:
    if per_s is None:
        return "-"
    return f"{per_s:,.0f}" if per_s >= 10 else f"{per_s:.1f}"
