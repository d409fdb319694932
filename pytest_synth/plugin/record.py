"""What is known of a run in the process that reports it, and what is made of it at the end.

That process is the only one of the run, or the controller of pytest-xdist. Heavy modules are imported once
there is an eval to tell of.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import pytest

from pytest_synth.errors import SynthError
from pytest_synth.plugin.homeward import entries_of, optimizations_of
from pytest_synth.plugin.outputs import Outputs, read_outputs

if TYPE_CHECKING:
    from pathlib import Path

    from _pytest.terminal import TerminalReporter

    from pytest_synth.evals.parts import Planned, State
    from pytest_synth.report import EvalEntry, OptimizationEntry, RunReport


class RunRecord:
    """The evals of a run: what was planned, and what has come of it."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._outputs: Outputs = read_outputs(config)
        self._plan: tuple[Planned, ...] = ()
        self._names: dict[str, str] = {}
        self._tests: dict[str, str] = {}  # by the node ids of their entries
        self._found: list[tuple[int, EvalEntry]] = []
        self._optimizations: list[tuple[int, OptimizationEntry]] = []
        self._failed: set[str] = set()
        self._skipped: set[str] = set()
        self._ended: set[str] = set()
        self._told: list[str] = []
        self._problems: list[str] = []

    def expect(self, plan: Sequence[Planned]) -> None:
        """Note which tests have to do with evals."""
        self._plan = tuple(plan)
        self._names = {one.sent_as: one.node_id for one in plan if one.sent_as is not None}

    def take(self, report: pytest.TestReport) -> None:
        """Note what became of a test, and the entries that its report carries."""
        test = self._names.get(report.nodeid, report.nodeid)
        for position, entry in entries_of(report):
            name = test + entry.node_id.removeprefix(report.nodeid)
            self._tests[name] = test
            self._found.append((position, entry.model_copy(update={"node_id": name})))
        self._optimizations += optimizations_of(report)
        if report.failed:
            self._failed.add(test)
        elif report.skipped:
            self._skipped.add(test)
        elif report.when == "call":
            self._ended.add(test)

    def entries(self) -> list[EvalEntry]:
        """All entries in the order of the run, whichever worker sent them when.

        An eval whose test has failed before there was a verdict (a fixture, a time-out, a worker that died)
        has an entry that says so.
        """
        from pytest_synth.evals.parts import unjudged

        found = list(self._found)
        judged = {entry.node_id for _, entry in found}
        why = "the test failed before its eval was judged"
        found += [
            (one.position, unjudged(one.node_id, why, one.seeds_asked))
            for one in self._plan
            if one.seeds_asked and one.node_id in self._failed and one.node_id not in judged
        ]
        return [entry for _, entry in sorted(found, key=lambda pair: pair[0])]

    def optimizations(self) -> list[OptimizationEntry]:
        """The searches of the run, likewise."""
        return [entry for _, entry in sorted(self._optimizations, key=lambda pair: pair[0])]

    def skipped(self) -> list[str]:
        """Tests that were skipped with their evals: a green run has not checked their gates."""
        found = {*self._tests.values(), *self._failed}
        return [
            one.node_id
            for one in self._plan
            if one.seeds_asked and one.node_id in self._skipped and one.node_id not in found
        ]

    def finish(self, session: pytest.Session) -> None:
        """Write all files of the run; one that cannot be written makes a green run red."""
        if self._config.option.collectonly or self._config.getoption("synth_dry_run"):
            return
        if self._plan:
            from pytest_synth.evals.reports import make_report

            self._write_reports(make_report(self.entries(), self.optimizations(), self.skipped()))
        if self._outputs.shard_out is not None:
            self._try(self._write_part, self._outputs.shard_out)
        if self._problems and session.exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def summarise(self, reporter: TerminalReporter) -> None:
        """Print the table of evals, and which files were written."""
        if (self._plan or self._found) and not self._config.getoption("no_summary"):
            from pytest_synth.plugin.summary import write_summary

            write_summary(reporter, self.entries(), self.optimizations(), len(self.skipped()))
        if reporter.verbosity >= 0:
            for line in self._told:
                reporter.write_line(f"synth: {line}")
        for problem in self._problems:
            reporter.write_line(f"ERROR: {problem}", red=True)

    def _write_reports(self, report: RunReport) -> None:
        from pytest_synth.evals.reports import append_step_summary, write_report

        for path in self._outputs.reports:
            self._try(lambda file: write_report(report, file), path)
        if self._outputs.shard is None:  # one table for each shard would only repeat what merge says
            try:
                append_step_summary(report)
            except SynthError as error:
                self._problems.append(str(error))
        if report.evals:
            self._remember(report)

    def _remember(self, report: RunReport) -> None:
        cache = getattr(self._config, "cache", None)
        if cache is None:
            return  # -p no:cacheprovider
        from pytest_synth.evals.runs import FOLDER, RememberedRuns

        try:
            RememberedRuns(cache.mkdir(FOLDER)).remember(report)
        except (SynthError, OSError) as error:
            self._told.append(str(error))  # as with pytest's own cache, this changes no outcome

    def _try(self, write: Callable[[Path], None], path: Path) -> None:
        try:
            write(path)
        except SynthError as error:
            self._problems.append(str(error))
        else:
            self._told.append(f"wrote {_shown(path)}")

    def _write_part(self, path: Path) -> None:
        from importlib.metadata import version

        from pytest_synth.evals.parts import Part, PartEval, write_part

        entries: dict[str, list[EvalEntry]] = {one.node_id: [] for one in self._plan}
        for entry in self.entries():
            entries[self._tests.get(entry.node_id, entry.node_id)].append(entry)
        shard = self._outputs.shard
        part = Part(
            package_version=version("pytest-synth"),
            shard=None if shard is None else (shard.index, shard.count),
            evals=tuple(
                PartEval(
                    **dict(one),
                    state=self._state(one, bool(entries[one.node_id])),
                    entries=tuple(entries[one.node_id]),
                )
                for one in self._plan
            ),
            optimizations=tuple(self.optimizations()),
        )
        write_part(part, path)

    def _state(self, planned: Planned, has_entries: bool) -> State:
        if planned.is_elsewhere:
            return "elsewhere"
        if has_entries or planned.node_id in self._ended:
            return "run"
        return "skipped" if planned.node_id in self._skipped else "not_run"


def _shown(path: Path) -> str:
    """A path as short as it can be."""
    relative = os.path.relpath(path)
    return relative if not relative.startswith("..") else str(path)
