"""The controller of pytest-xdist: gathers what the workers report and says it once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from pytest_synth.evals.entries import entry_from_report
from pytest_synth.plugin.summary import write_summary

if TYPE_CHECKING:
    from _pytest.terminal import TerminalReporter

    from pytest_synth.report import EvalEntry


class ControllerRun:
    """Entries and mistakes of all workers. Registered only when workers are about to start."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._entries: dict[str, list[EvalEntry]] = {}
        self._mistakes: tuple[str, ...] = ()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        entries = entry_from_report(report)
        if entries:
            self._entries.setdefault(report.nodeid, []).extend(entries)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        # All workers collect the same tests, so all send the same mistakes.
        mistakes = getattr(node, "workeroutput", {}).get("synth_usage_error")
        if mistakes:
            self._mistakes = tuple(mistakes)

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self._mistakes:
            session.exitstatus = pytest.ExitCode.USAGE_ERROR

    def summarise(self, reporter: TerminalReporter) -> None:
        for line in self._mistakes:
            reporter.write_line(f"ERROR: {line}", red=True)
        entries = sorted(self._entries.items(), key=lambda pair: pair[0])
        write_summary(reporter, [entry for _, found in entries for entry in found])
