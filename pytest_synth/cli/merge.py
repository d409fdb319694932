"""`pytest-synth merge`: gates over all parts of a run that was split over CI jobs."""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pytest_synth.errors import ConfigError


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "merge",
        help="judge the parts of a run that was split over CI jobs",
        description=(
            "Judge the evals of all parts as one run, and write its reports. Exit code 1 if a gate fails or "
            "is incomplete, if a part is missing or there twice, or if the parts do not belong together."
        ),
    )
    parser.add_argument(
        "parts", nargs="+", type=Path, metavar="PART", help="file that pytest --synth-shard-out has written"
    )
    parser.add_argument(
        "--parts",
        dest="count",
        type=int,
        metavar="N",
        help="how many parts there must be (parts of --synth-shard know it themselves)",
    )
    parser.add_argument(
        "--report",
        action="append",
        type=Path,
        default=[],
        metavar="PATH",
        help="report file; its suffix is .html, .json or .md (may be given several times)",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Merge, print, write; 0 when no gate is red."""
    from pytest_synth.evals.merging import merge_parts, skipped_tests
    from pytest_synth.evals.parts import read_part
    from pytest_synth.evals.reports import append_step_summary, check_report_path, make_report, write_report
    from pytest_synth.report import failure_text, terminal_lines
    from pytest_synth.report.terminal import can_show_bars
    from pytest_synth.report.text import skipped_text

    for path in args.report:
        check_report_path(path)
    check_files(args.parts, args.count)
    parts = {str(path): read_part(path) for path in args.parts}
    entries = merge_parts(parts)
    if not entries:
        raise ConfigError(f"no eval was run in any of the {len(args.parts)} parts")
    red = [entry for entry in entries if entry.is_red]
    for entry in red:
        print(f"{entry.node_id}\n{failure_text(entry)}\n")
    width = shutil.get_terminal_size((100, 24)).columns
    print("\n".join(terminal_lines(entries, width=width, unicode=can_show_bars(sys.stdout.encoding))))
    skipped = skipped_tests(parts.values(), entries)
    if skipped:
        print(skipped_text(len(skipped)))
    searches = (found for part in parts.values() for found in part.optimizations)
    report = make_report(entries, searches, skipped)
    for path in args.report:
        write_report(report, path)
        print(f"wrote {path}")
    append_step_summary(report)
    return 1 if red else 0


def check_files(paths: Sequence[Path], count: int | None) -> None:
    """Refuse a file that is given twice, and another number of files than there must be.

    Raises:
        ConfigError: Naming the file, or both numbers.
    """
    seen: set[Path] = set()
    for path in paths:
        if path.resolve() in seen:
            raise ConfigError(f"the part {str(path)!r} is given twice")
        seen.add(path.resolve())
    if count is not None and len(seen) != count:
        raise ConfigError(
            f"there are {len(seen)} parts and must be {count}; a job has written none, or it was lost"
        )
