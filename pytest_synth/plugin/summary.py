"""What a run with evals prints beside the tests' own outcomes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING

import pytest

from pytest_synth.report import EvalEntry, OptimizationEntry, terminal_lines
from pytest_synth.report.optimizations import optimization_text
from pytest_synth.report.terminal import can_show_bars
from pytest_synth.report.text import skipped_text

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


def announcer(config: pytest.Config) -> Callable[[str], None]:
    """What shows a line at once: nothing does so under `-q`, or in a worker of pytest-xdist."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None or config.get_verbosity() < 0 or hasattr(config, "workerinput"):
        return lambda _: None
    capture = config.pluginmanager.get_plugin("capturemanager")

    def announce(line: str) -> None:
        with nullcontext() if capture is None else capture.global_and_fixture_disabled():
            reporter.write_line(f"synth: {line}")
            reporter.flush()

    return announce


def write_summary(
    reporter: TerminalReporter,
    entries: Sequence[EvalEntry],
    optimizations: Sequence[OptimizationEntry] = (),
    skipped: int = 0,
) -> None:
    """Write what the searches have found, one line for each eval, and how many were skipped.

    Nothing under `-qq`.
    """
    if reporter.verbosity < -1:
        return
    if optimizations:
        reporter.write_sep("=", "synth optimisations")
        for found in optimizations:
            reporter.write_line(found.node_id, bold=True)
            for line in optimization_text(found).splitlines():
                reporter.write_line(f"  {line}")
    if not entries and not skipped:
        return
    reporter.write_sep("=", "synth evals")  # as pytest's own: it ends the line of dots
    writer = reporter._tw
    unicode = can_show_bars(getattr(writer._file, "encoding", None))
    for line in terminal_lines(entries, width=writer.fullwidth, unicode=unicode):
        outcome = line.rsplit("  ", 1)[-1]
        color = _MARKUP.get(outcome)
        reporter.write_line(line, **({color: True} if color else {}))
    if skipped:
        reporter.write_line(skipped_text(skipped), yellow=True)
