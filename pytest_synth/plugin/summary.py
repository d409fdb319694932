"""What a run with evals prints beside the tests' own outcomes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pytest_synth.report import EvalEntry, terminal_lines

if TYPE_CHECKING:
    from _pytest.terminal import TerminalReporter

    from pytest_synth.evals.settings import Settings

_MARKUP = {
    "passed": "green",
    "failed": "red",
    "incomplete": "red",
    "failed (expected)": "yellow",
    "incomplete (expected)": "yellow",
}


def header_line(settings: Settings, evals: int) -> str:
    """Say how many evals are selected, and where and how they run."""
    noun = "eval" if evals == 1 else "evals"
    return (
        f"synth: {evals} {noun}; backend {settings.backend}, model {settings.provider}/{settings.model}, "
        f"at most {settings.concurrency} rollouts at once"
    )


def write_summary(reporter: TerminalReporter, entries: Sequence[EvalEntry]) -> None:
    """Write one line for each eval; nothing if there was none, or under `-qq`."""
    if not entries or reporter.verbosity < -1:
        return
    reporter.section("synth evals")
    for line in terminal_lines(entries, width=reporter._tw.fullwidth):
        outcome = line.rsplit("  ", 1)[-1]
        color = _MARKUP.get(outcome)
        reporter.write_line(line, **({color: True} if color else {}))
