"""Report files of a run, and the step summary of GitHub Actions."""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_synth.errors import ConfigError, SynthError
from pytest_synth.evals.files import write_whole

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pytest_synth.report import EvalEntry, OptimizationEntry, RunReport

SUFFIXES = (".html", ".json", ".md")
STEP_SUMMARY = "GITHUB_STEP_SUMMARY"


def check_report_path(path: Path) -> None:
    """Refuse a path that no report can be written to, before anything runs.

    Raises:
        ConfigError: If the suffix tells no format, or the path is a folder.
    """
    if path.suffix not in SUFFIXES:
        raise ConfigError(f"{str(path)!r} is not allowed; the name ends in {', '.join(SUFFIXES)}")
    if path.is_dir():
        raise ConfigError(f"{str(path)!r} is a folder; give the name of a file")


def make_report(
    evals: Iterable[EvalEntry],
    optimizations: Iterable[OptimizationEntry] = (),
    skipped: Iterable[str] = (),
) -> RunReport:
    """The report of a run that ends now."""
    from pytest_synth.report import RunReport

    return RunReport(
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        package_version=version("pytest-synth"),
        evals=tuple(evals),
        optimizations=tuple(optimizations),
        skipped=tuple(skipped),
    )


def write_report(report: RunReport, path: Path) -> None:
    """Write one report file, whole or not at all; its suffix says in which format.

    Raises:
        SynthError: If it cannot be written; an old file is still there.
    """
    try:
        write_whole(path, _render(report, path.suffix))
    except OSError as error:
        raise SynthError(f"cannot write the report {str(path)!r}: {error.strerror or error}") from error


def append_step_summary(report: RunReport, environ: Mapping[str, str] = os.environ) -> Path | None:
    """Add the report to the step summary of GitHub Actions, where its variable names a file.

    Returns:
        That file; None if there is none.

    Raises:
        SynthError: If it cannot be written.
    """
    name = environ.get(STEP_SUMMARY)
    if not name:
        return None
    file = Path(name)
    try:
        with file.open("a", encoding="utf-8", newline="\n") as summary:
            summary.write(_render(report, ".md") + "\n")
    except OSError as error:
        raise SynthError(f"cannot write the step summary {name!r}: {error.strerror or error}") from error
    return file


def _render(report: RunReport, suffix: str) -> str:
    if suffix == ".html":
        from pytest_synth.report.html import to_html

        return to_html(report)
    if suffix == ".md":
        from pytest_synth.report.markdown import to_markdown

        return to_markdown(report)
    from pytest_synth.report.json import to_json

    return to_json(report)
