"""The report as Markdown for a step summary or a comment: one table, then what failed.

Foreign text stands in `<code>` and every punctuation mark of it is escaped, so that it can make no table
cell, element, image, mention or link (but for an e-mail address, which GitHub makes a link of everywhere).
GitHub cuts a step summary at 1 MiB; this stays far below.
"""

from __future__ import annotations

import html
import re
from collections.abc import Sequence

from pytest_synth.report.entries import EvalEntry, RunReport, total_cost
from pytest_synth.report.optimizations import held_out_text
from pytest_synth.report.seeds import SeedRows, answer_of, missing_seeds, worst_seeds
from pytest_synth.report.terminal import prompt_line
from pytest_synth.report.text import count, dollars, one_line, seed_list, skipped_text

_MARKS = {"passed": "✅", "measured": "📏", "failed": "❌", "incomplete": "⚠️"}
_EXPECTED = "☑️"
_IN_TABLE = 500  # evals
_IN_FULL = 50  # evals that have not passed
_SKIPPED_SHOWN = 20
_WORST_SHOWN = 5
_REASONS_SHOWN = 8
_CHARS = 160  # of a query, an answer, an expectation, a feedback
_PUNCTUATION = re.compile(r"([!-/:-@\[-`{-~])")


def to_markdown(report: RunReport) -> str:
    """Write the report of a run."""
    lines = [f"### pytest-synth: {report.told_outcomes}", ""]
    if report.evals:
        lines += _table(report.evals)
    if report.skipped:
        lines += [_skipped(report.skipped), ""]
    red = [entry for entry in report.evals if entry.is_red]
    for entry in red[:_IN_FULL]:
        lines += _failure(entry)
    if len(red) > _IN_FULL:
        lines += [f"{count(len(red) - _IN_FULL, 'more eval')} did not pass.", ""]
    for optimization in report.optimizations:
        lines += [f"**Optimisation of {code(optimization.node_id, 300)}**: {held_out_text(optimization)}", ""]
    return "\n".join(lines)


def _skipped(names: Sequence[str]) -> str:
    told = ", ".join(code(name, 300) for name in names[:_SKIPPED_SHOWN])
    left = f" and {len(names) - _SKIPPED_SHOWN} more" if len(names) > _SKIPPED_SHOWN else ""
    return f"{skipped_text(len(names))} ({told}{left})"


def code(text: object, chars: int) -> str:
    """Foreign text as inline code of one line; empty text stays empty."""
    line = one_line(text, chars)
    return f"<code>{_escape(line)}</code>" if line else ""


def _escape(line: str) -> str:
    """Backslashes for what Markdown may read, entities for what HTML may read."""
    entities = {"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "|": "&#124;"}
    return _PUNCTUATION.sub(lambda m: entities.get(m[1], f"\\{m[1]}"), line)


def _table(evals: Sequence[EvalEntry]) -> list[str]:
    lines = [
        "| eval | gate | reward | min | seeds | cost |",
        "| :--- | :--- | ---: | ---: | ---: | ---: |",
        *(_row(entry) for entry in evals[:_IN_TABLE]),
        "",
    ]
    if len(evals) > _IN_TABLE:
        lines += [f"{count(len(evals) - _IN_TABLE, 'more eval')} not shown.", ""]
    parts = [
        count(sum(entry.rollouts for entry in evals), "rollout"),
        f"{sum(entry.tokens for entry in evals):,} tokens",
        f"cost {dollars(total_cost(evals))}",
    ]
    replayed = sum(entry.replayed for entry in evals)
    if replayed:
        parts.append(f"replayed {count(replayed, 'call')}")
    return [*lines, "; ".join(parts), ""]


def _mark(entry: EvalEntry) -> str:
    return _EXPECTED if entry.expected_failure else _MARKS[entry.outcome]


def _row(entry: EvalEntry) -> str:
    reward = "" if entry.mean_reward is None else f"{entry.mean_reward:.2f}"
    if entry.interval is not None:
        reward += f" ({entry.interval[0]:.2f} to {entry.interval[1]:.2f})"
    if entry.at_most is not None:
        reward = f"at most {entry.at_most:.2f}"
    threshold = "" if entry.threshold is None else f"{entry.threshold:.2f}"
    return (
        f"| {code(entry.node_id, 300)} | {_mark(entry)} {entry.told_outcome} | {reward} | {threshold} "
        f"| {entry.seeds_done}/{entry.seeds_asked} | {dollars(entry.cost_usd)} |"
    )


def _failure(entry: EvalEntry) -> list[str]:
    # A line that opens a block is HTML to its end: entities there, and no backslashes.
    name = html.escape(one_line(entry.node_id, 300))
    blocks = [
        [f"<details><summary>{_mark(entry)} <code>{name}</code></summary>"],
        [code(entry.gate_text, 1000)],
        [f"- {code(line, 300)}" for line in entry.gate_details],
        _worst(entry),
        [
            f"- no reward, seed {seed_list(s.seed for s in seeds)}: {code(reason, 300)}"
            for reason, seeds in list(missing_seeds(entry.rows).items())[:_REASONS_SHOWN]
        ],
        [code(prompt_line(entry), 300)],
        ["</details>"],
    ]
    return [line for block in blocks if block for line in (*block, "")]


def _worst(entry: EvalEntry) -> list[str]:
    worst = worst_seeds(entry, _WORST_SHOWN)
    if not worst:
        return []
    return [
        "| seed | reward | query | answer | expected | feedback |",
        "| :--- | ---: | :--- | :--- | :--- | :--- |",
        *(_seed(seed) for seed in worst),
    ]


def _seed(seed: SeedRows) -> str:
    row = seed.lowest
    values = (row.query, answer_of(row), row.details.get("expected"), row.details.get("feedback"))
    cells = " | ".join("" if value is None else code(value, _CHARS) for value in values)
    return f"| {_escape(one_line(seed.name, 60))} | {seed.reward:.2f} | {cells} |"
