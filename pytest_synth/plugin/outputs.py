"""Where a run leaves its results: report files, and the part of a run that is split over CI jobs.

Read at every start of pytest, so it imports nothing heavy.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

if TYPE_CHECKING:
    from pytest_synth.evals.sharding import Shard

REPORT_VARIABLE = "PYTEST_SYNTH_REPORT"
_SHARD = r"([1-9]\d{0,3})/([1-9]\d{0,3})"


class Outputs(NamedTuple):
    """Files that a run writes at its end.

    Attributes:
        reports: Report files; the suffix says the format.
        shard: Which share of every eval's seeds this run takes; None: all of them.
        shard_out: File for `pytest-synth merge`.
    """

    reports: tuple[Path, ...] = ()
    shard: Shard | None = None
    shard_out: Path | None = None


def add_output_options(parser: pytest.Parser) -> None:
    group = parser.getgroup("synth")
    told = "report of the evals, written at the end; its suffix is .html, .json or .md"
    group.addoption(
        "--synth-report",
        action="append",
        dest="synth_report",
        metavar="PATH",
        help=f"{told} (may be given several times)",
    )
    parser.addini("synth_report", f"{told}; one path a line", type="linelist")
    group.addoption(
        "--synth-shard",
        dest="synth_shard",
        metavar="I/N",
        help="run only share I of N of every eval's seeds; needs --synth-shard-out",
    )
    group.addoption(
        "--synth-shard-out",
        dest="synth_shard_out",
        metavar="FILE",
        help="write what pytest-synth merge needs to judge several runs as one",
    )


def read_outputs(config: pytest.Config, environ: Mapping[str, str] = os.environ) -> Outputs:
    """Read and check the options; called before anything runs.

    Raises:
        pytest.UsageError: If a path or a share is not allowed; it names the option and the value.
    """
    origin, reports = _report_paths(config, environ)
    if reports:
        from pytest_synth.errors import ConfigError
        from pytest_synth.evals.reports import check_report_path

        try:
            for path in reports:
                check_report_path(path)
        except ConfigError as error:
            raise pytest.UsageError(f"{origin}: {error}") from None
    shard, out = _shard(config), config.getoption("synth_shard_out")
    if shard is not None and out is None:
        raise pytest.UsageError(
            f"--synth-shard {shard} needs --synth-shard-out FILE: no share of the seeds decides a gate, "
            "pytest-synth merge does"
        )
    if shard is not None and config.getoption("synth_update_baseline"):
        raise pytest.UsageError(
            "--synth-update-baseline needs the rewards of all seeds; leave --synth-shard out"
        )
    return Outputs(reports, shard, None if out is None else config.invocation_params.dir / out)


def _report_paths(config: pytest.Config, environ: Mapping[str, str]) -> tuple[str, tuple[Path, ...]]:
    """The paths, and where they were named: a flag wins over the environment, that over the ini file."""
    here = config.invocation_params.dir
    flag = config.getoption("synth_report")
    if flag:
        return "--synth-report", tuple(here / path for path in flag)
    if environ.get(REPORT_VARIABLE):
        return REPORT_VARIABLE, tuple(here / path for path in environ[REPORT_VARIABLE].split(os.pathsep))
    folder = config.rootpath if config.inipath is None else config.inipath.parent
    return "ini value synth_report", tuple(folder / path for path in config.getini("synth_report"))


def _shard(config: pytest.Config) -> Shard | None:
    text = config.getoption("synth_shard")
    if text is None:
        return None
    found = re.fullmatch(_SHARD, text)
    if found is None or int(found[1]) > int(found[2]):
        raise pytest.UsageError(
            f"--synth-shard: {text!r} is not allowed; use I/N with I from 1 to N, as in 1/4"
        )
    from pytest_synth.evals.sharding import Shard

    return Shard(int(found[1]), int(found[2]))
