"""`pytest-synth view`: the report of the last run in the browser."""

from __future__ import annotations

import argparse
import webbrowser
from typing import Any

from pytest_synth.errors import ConfigError


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "view",
        help="show the report of the last run in the browser",
        description=(
            "Show the report of the last pytest run that had evals, from pytest's cache of the working "
            "directory's project. It is one HTML file that needs no network."
        ),
    )
    parser.add_argument(
        "--no-browser", action="store_true", help="only print where the report is, for a browser elsewhere"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write the last run's report as HTML, print its path, and open it."""
    from pytest_synth.cli.configuration import cache_folder
    from pytest_synth.evals.reports import write_report
    from pytest_synth.evals.runs import RememberedRuns

    folder = cache_folder()
    report = RememberedRuns(folder).last()
    if report is None:
        raise ConfigError(
            f"no run is remembered in {str(folder)!r}; run pytest with an eval in it, and not with "
            "-p no:cacheprovider"
        )
    file = folder / "last.html"
    write_report(report, file)
    print(file)
    if not args.no_browser and not webbrowser.open(file.resolve().as_uri()):
        print("no browser was found; open the file in one")
    return 0
