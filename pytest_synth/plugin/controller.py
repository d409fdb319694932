"""The controller of pytest-xdist: gathers what the workers report and says it once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from pytest_synth.evals.resources import Resources
from pytest_synth.plugin.left_over import LEFT_OVER, write_left_over
from pytest_synth.plugin.options import read_settings
from pytest_synth.plugin.record import RunRecord
from pytest_synth.plugin.rendezvous import WORKER_INPUT, Rendezvous
from pytest_synth.plugin.snapshots import UNUSED_PROMPTS, write_unused

if TYPE_CHECKING:
    from _pytest.terminal import TerminalReporter


class ControllerRun:
    """Entries and mistakes of all workers. Registered only when workers are about to start."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._record = RunRecord(config)
        self._mistakes: tuple[str, ...] = ()
        self._unused: tuple[str, ...] = ()
        self._left_over: list[str] = []
        self._rendezvous: Rendezvous | None = None

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        if not node.gateway.spec.popen:
            return  # a worker on another machine cannot reach our loopback; it says so when it needs us
        if self._rendezvous is None:
            self._rendezvous = Rendezvous(lambda: Resources(read_settings(self._config)), self._record.expect)
        node.workerinput[WORKER_INPUT] = self._rendezvous.address

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._record.take(report)
        session = self._config.pluginmanager.get_plugin("session")
        if self._rendezvous is not None and session is not None and session.shouldfail:
            # -x: xdist waits for the tests that its workers are at.
            self._rendezvous.cancel_evals()

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        # All workers collect the same tests, so all send the same.
        output = getattr(node, "workeroutput", {})
        self._mistakes = tuple(output.get("synth_usage_error", self._mistakes))
        self._unused = tuple(output.get(UNUSED_PROMPTS, self._unused))
        self._left_over += output.get(LEFT_OVER, [])

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        # Last, as syrupy joins the exit codes of others bit by bit.
        if self._mistakes:
            session.exitstatus = pytest.ExitCode.USAGE_ERROR
        else:
            self._record.finish(session)

    def pytest_unconfigure(self) -> None:
        if self._rendezvous is not None:
            self._rendezvous.close()
            self._rendezvous = None

    def summarise(self, reporter: TerminalReporter) -> None:
        for line in self._mistakes:
            reporter.write_line(f"ERROR: {line}", red=True)
        self._record.summarise(reporter)
        write_unused(reporter, self._unused)
        write_left_over(reporter, self._left_over)
