"""What an optimisation has found, as text for the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from pytest_synth.contracts.evals import PromptMessage
from pytest_synth.report.diff import prompt_diff, shorten
from pytest_synth.report.entries import Candidate, OptimizationEntry
from pytest_synth.report.text import count, printable

_MARKS = {"same": ("", ""), "added": ("{+", "+}"), "removed": ("[-", "-]")}


def held_out_text(entry: OptimizationEntry) -> str:
    """The result in one line: baseline against best on seeds that the search has not seen."""
    before, after = entry.held_out_baseline, entry.held_out_best
    if before is None or after is None:
        return f"no held-out result: {entry.finish_reason}"
    text = f"held-out reward {before:.2f} -> {after:.2f} on {count(entry.held_out_seeds, 'seed')}"
    if entry.held_out_interval is not None:
        low, high = entry.held_out_interval
        text += f", difference {after - before:+.2f} (interval {low:+.2f} to {high:+.2f})"
    return text


def reward_text(candidate: Candidate) -> str:
    return "not scored" if candidate.reward is None else f"{candidate.reward:.2f}"


def optimization_text(entry: OptimizationEntry) -> str:
    """The result, the candidates that led to it, and what changed in the prompt, as `wdiff` writes it."""
    line = entry.lineage()
    lines = [held_out_text(entry)]
    if entry.decision is not None:
        lines.append(entry.decision)
    if entry.plan is not None:
        lines.append(f"plan: {entry.plan}")
    lines += [
        entry.summary or f"{entry.rollouts:,} of {entry.budget:,} rollouts; {entry.finish_reason}",
        *(f"not applied: {setting}" for setting in entry.not_applied),
        "lineage, with rewards on the search's own seeds: "
        + " -> ".join(f"{c.id} {reward_text(c)}" for c in line),
    ]
    if len(line) > 1 and line[0].prompt is not None and line[-1].prompt is not None:
        lines += diff_lines(line[0].prompt, line[-1].prompt)
    return "\n".join(printable(text) for text in lines)


def diff_lines(old: Sequence[PromptMessage], new: Sequence[PromptMessage]) -> list[str]:
    """What differs between two prompts, as `wdiff` writes it, under the role of each message."""
    lines: list[str] = []
    for role, pieces in prompt_diff(old, new):
        if any(piece.kind != "same" for piece in pieces):
            told = "".join(f"{_MARKS[p.kind][0]}{p.text}{_MARKS[p.kind][1]}" for p in shorten(pieces))
            lines += [f"{role}:", *(f"  {part}" for part in told.splitlines())]
    return lines
