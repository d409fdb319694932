"""The terminal summary of a run, and the text of a failing eval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pytest_synth.report.entries import EvalEntry, outcome_counts, total_cost
from pytest_synth.report.seeds import SeedRows, answer_of, missing_seeds, seeds_of, worst_seeds
from pytest_synth.report.text import count, dollars, one_line, printable, rate, seed_list, shorten_middle

WORST_SHOWN = 5
REASONS_SHOWN = 8
REASON_CHARS = 600  # of why seeds have no reward: a cut one would not say what to do
VALUE_CHARS = 200  # of a query, an answer or a feedback; the reports hold them whole

_HEAD = ("eval", "reward", "min", "seeds", "per s", "rewards", "gate")
_BARS = " ▁▂▃▄▅▆▇█"
_BINS = 8
_ROOM_FOR_BARS = 80  # columns; narrower terminals get no sparkline
SOURCES: Mapping[str | None, str] = {
    "app": "the task app's own",
    "marker": "the marker's",
    "snapshot": "the stored snapshot's",
    "call": "the one given in the call",
    "optimized": "the best one that was found",
}


def terminal_lines(entries: Sequence[EvalEntry], *, width: int, unicode: bool = True) -> list[str]:
    """One aligned line for each eval, between a head and a total; no line is longer than `width`.

    A line ends in the outcome of its gate, after two spaces.

    Args:
        width: Columns of the terminal; below 60 it counts as 60.
        unicode: Whether the terminal can show the sparkline of rewards (how many seeds earned 0 to 1/8, and
            so on up to 1). It is left out where names would have to be cut for it.
    """
    if not entries:
        return []
    width = max(width, 60)
    table = [_HEAD, *(_cells(entry) for entry in entries)]
    widths = _widths(table)
    if not unicode or width < _ROOM_FOR_BARS or _length(widths) > width:
        table = [(*row[:-2], row[-1]) for row in table]
        widths = _widths(table)
    widths[0] -= max(_length(widths) - width, 0)
    return [*(_line(row, widths) for row in table), *_total(entries, width)]


def _widths(table: Sequence[Sequence[str]]) -> list[int]:
    return [max(map(len, column)) for column in zip(*table, strict=True)]


def _length(widths: Sequence[int]) -> int:
    return sum(widths) + 2 * (len(widths) - 1)


def can_show_bars(encoding: str | None) -> bool:
    """Whether a terminal with this encoding can show sparklines; None: it takes any character."""
    try:
        _BARS.encode(encoding or "utf-8")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def sparkline(rewards: Sequence[float]) -> str:
    """How often rewards fall into each eighth of [0, 1]; the last one holds 1."""
    bins = [0] * _BINS
    for reward in rewards:
        bins[min(int(reward * _BINS), _BINS - 1)] += 1
    most = max(bins) or 1
    return "".join(_BARS[-(-n * (len(_BARS) - 1) // most)] for n in bins)


def failure_text(entry: EvalEntry) -> str:
    """Why an eval failed: the gate's words, the worst seeds, the missing ones, and which prompt ran."""
    lines = [printable(entry.gate_text), *(f"  {printable(line)}" for line in entry.gate_details)]
    worst = worst_seeds(entry, WORST_SHOWN)
    if worst:
        lines.append("lowest rewards:")
        for seed in worst:
            lines += _seed_lines(seed)
    lines += _missing_lines(entry)
    lines.append(prompt_line(entry))
    return "\n".join(lines)


def prompt_line(entry: EvalEntry) -> str:
    """Which prompt ran, on which model."""
    source = SOURCES.get(entry.prompt_source, "unknown")
    fingerprint = entry.prompt_fingerprint or "unknown (no model call was seen)"
    return f"prompt: {source}, fingerprint {fingerprint}; model: {printable(entry.model or 'unknown')}"


def _cells(entry: EvalEntry) -> tuple[str, ...]:
    return (
        printable(entry.node_id),
        _reward(entry),
        "-" if entry.threshold is None else f"{entry.threshold:.2f}",
        f"{entry.seeds_done}/{entry.seeds_asked}",
        rate(entry.rollouts_per_s),
        sparkline([s.reward for s in seeds_of(entry.rows) if s.reward is not None]),
        entry.told_outcome,
    )


def _reward(entry: EvalEntry) -> str:
    if entry.mean_reward is not None:
        return f"{entry.mean_reward:.2f}"
    return "-" if entry.at_most is None else f"<={entry.at_most:.2f}"


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    name = shorten_middle(cells[0], widths[0]).ljust(widths[0])
    numbers = [cell.rjust(size) for cell, size in zip(cells[1:-1], widths[1:-1], strict=True)]
    return "  ".join([name, *numbers, cells[-1]])


def _total(entries: Sequence[EvalEntry], width: int) -> list[str]:
    parts = [
        f"{count(len(entries), 'eval')}: {outcome_counts(entries)}",
        count(sum(entry.rollouts for entry in entries), "rollout"),
        f"{sum(entry.tokens for entry in entries):,} tokens",
        f"cost {dollars(total_cost(entries))}",
    ]
    replayed = sum(entry.replayed for entry in entries)
    if replayed:
        parts.append(f"replayed {count(replayed, 'call')}")
    return _wrap(parts, width)


def _wrap(parts: Sequence[str], width: int) -> list[str]:
    """Join with semicolons; a part that is too long for a line is broken at its commas."""
    lines: list[str] = []
    for part in parts:
        if lines and len(lines[-1]) + 2 + len(part) <= width:
            lines[-1] += f"; {part}"
            continue
        first, *others = part.split(", ") if len(part) > width else [part]
        lines.append(first)
        for piece in others:
            if len(lines[-1]) + 3 + len(piece) <= width:  # a comma may follow
                lines[-1] += f", {piece}"
            else:
                lines[-1] += ","
                lines.append(piece)
    return lines


def _seed_lines(seed: SeedRows) -> list[str]:
    row = seed.lowest
    head = f"  seed {printable(seed.name)}: reward {seed.reward:.2f}"
    if len(seed.rows) > 1:
        head += f" over {len(seed.rows)} samples; the lowest one:"
    shown = {
        "query": row.query,
        "answer": answer_of(row),
        "expected": row.details.get("expected"),
        "feedback": row.details.get("feedback"),
    }
    return [
        head,
        *(
            f"    {name:<9} {one_line(value, VALUE_CHARS)}"
            for name, value in shown.items()
            if value not in (None, "")
        ),
    ]


def _missing_lines(entry: EvalEntry) -> list[str]:
    groups = list(missing_seeds(entry.rows).items())
    if not groups:
        return []
    lines = ["no reward:"]
    for reason, seeds in groups[:REASONS_SHOWN]:
        noun = "seed" if len(seeds) == 1 else f"{len(seeds)} seeds"
        lines.append(f"  {noun} {seed_list(s.seed for s in seeds)}: {one_line(reason, REASON_CHARS)}")
    if len(groups) > REASONS_SHOWN:
        lines.append(f"  and {count(len(groups) - REASONS_SHOWN, 'other reason')}")
    return lines
