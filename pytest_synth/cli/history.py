"""`pytest-synth history`: past runs of a test with rewards and prompt fingerprints."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from pytest_synth.errors import ConfigError

if TYPE_CHECKING:
    from pytest_synth.evals.runs import PastEval, PastRun

HEAD = ("when", "gate", "reward", "interval", "min", "seeds", "prompt", "model")


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "history",
        help="list past runs of a test",
        description=(
            "List the last runs of each test, oldest first, from pytest's cache of the working directory's "
            "project: verdict, mean reward with its interval, threshold, seeds with a reward, fingerprint of "
            "the prompt that ran, and model."
        ),
    )
    parser.add_argument(
        "test", nargs="?", metavar="TEST", help="node id, or a part of it (default: all tests)"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the runs; 1 if there is none."""
    from pytest_synth.cli.configuration import cache_folder
    from pytest_synth.evals.runs import RememberedRuns

    folder = cache_folder()
    found = runs_by_test(RememberedRuns(folder).past(), args.test or "")
    if not found:
        what = "no run" if args.test is None else f"no run of a test with {args.test!r} in its node id"
        raise ConfigError(f"{what} is remembered in {str(folder)!r}")
    print("\n\n".join("\n".join([node_id, *table(rows)]) for node_id, rows in found.items()))
    return 0


def runs_by_test(runs: Iterable[PastRun], part: str) -> dict[str, list[tuple[str, ...]]]:
    """The cells of each test's runs, oldest first, for tests whose node id has `part` in it."""
    found: dict[str, list[tuple[str, ...]]] = {}
    for past in runs:
        for entry in past.evals:
            if part in entry.node_id:
                found.setdefault(entry.node_id, []).append(_cells(past.created_at, entry))
    return found


def table(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Aligned lines under a head."""
    widths = [max(map(len, column)) for column in zip(HEAD, *rows, strict=True)]
    return [
        "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in (HEAD, *rows)
    ]


def _cells(created_at: str | None, entry: PastEval) -> tuple[str, ...]:
    when = datetime.fromisoformat(created_at).astimezone() if created_at else None
    return (
        "" if when is None else f"{when:%Y-%m-%d %H:%M}",
        entry.told_outcome,
        "-" if entry.mean_reward is None else f"{entry.mean_reward:.2f}",
        "-" if entry.interval is None else f"{entry.interval[0]:.2f} to {entry.interval[1]:.2f}",
        "-" if entry.threshold is None else f"{entry.threshold:.2f}",
        f"{entry.seeds_done}/{entry.seeds_asked}",
        entry.prompt_fingerprint or "-",
        entry.model or "-",
    )
