"""`pytest-synth doctor`: what is set up, what works, and what to do about what does not."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pytest_synth.cli.check import Check


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "doctor",
        help="check key, backend, task app, tunnel and inference",
        description=(
            "Check backend, key, task app, its /task_info, tunnel, one rollout, its model calls and its job, "
            "one line each. Exit code 1 if any check fails. What is not named here is read from pytest's "
            "configuration in the working directory (synth_app, synth_backend, ...). One rollout is run: "
            "with the configured model if one is named, else offline."
        ),
    )
    parser.add_argument(
        "app", nargs="?", metavar="URL|MODULE:ATTR", help="task app (default: the configured one)"
    )
    parser.add_argument("--backend", metavar="local|hosted|URL", help="default: the configured one")
    parser.add_argument("--tunnel", metavar="KIND", help="default: the configured one")
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N", help="row for the rollout (default: %(default)s)"
    )
    parser.add_argument("--split", metavar="NAME", help="split of that row (default: the task app's own)")
    parser.add_argument("--job", metavar="ID", help="check as well that this job can be read")
    parser.add_argument(
        "--timeout", type=_seconds, default=60.0, metavar="S", help="seconds for the rollout (default: 60)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of lines")
    parser.set_defaults(run=run)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not (seconds > 0 and math.isfinite(seconds)):
        raise argparse.ArgumentTypeError(f"{text!r} is no time; use a number of seconds above 0")
    return seconds


def run(args: argparse.Namespace) -> int:
    """Run all checks; 0 if none fails, else 1."""
    from pytest_synth.cli.configuration import read_settings
    from pytest_synth.cli.diagnosis import Diagnosis, Plan

    plan = Plan(
        settings=read_settings(app=args.app, backend=args.backend, tunnel=args.tunnel),
        seed=args.seed,
        split=args.split,
        job_id=args.job,
        timeout_s=args.timeout,
    )
    checks = Diagnosis(plan, _be_silent if args.json else _show).run()
    has_failed = any(check.status == "failed" for check in checks)
    if args.json:
        json.dump({"ok": not has_failed, "checks": [asdict(check) for check in checks]}, sys.stdout, indent=2)
        print()
    else:
        print(summary(checks))
    return 1 if has_failed else 0


def _show(check: Check) -> None:
    print(line_of(check), flush=True)


def _be_silent(check: Check) -> None:
    """With --json all checks are printed at the end, as one object."""


def line_of(check: Check) -> str:
    """One line of text: status, name, what was checked and the result, and what to do."""
    status = check.status.upper() if check.status == "failed" else check.status
    remedy = f" -> {check.remedy}" if check.remedy else ""
    text = f"{status:<8} {check.name:<10} {check.checked}: {check.result}{remedy}"
    return " ".join(text.splitlines())


def summary(checks: Sequence[Check]) -> str:
    counts = [
        f"{number} {word}"
        for word in ("ok", "failed", "warning", "skipped")
        if (number := sum(check.status == word for check in checks))
    ]
    return f"{len(checks)} checks: {', '.join(counts)}"
