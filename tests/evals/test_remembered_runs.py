"""Runs that are remembered between runs: bounded, small, and never in the way."""

from __future__ import annotations

from pathlib import Path

import pytest
from fakes.entries import replace
from fakes.reports import whole_run

from pytest_synth.errors import ConfigError, SynthError
from pytest_synth.evals.runs import KEPT, RememberedRuns
from pytest_synth.report import EvalEntry, RunReport

ENTRY = EvalEntry(
    node_id="test_a.py::test_b",
    outcome="failed",
    expected_failure=True,
    gate_text="gate failed",
    mean_reward=0.5,
    interval=(0.25, 0.75),
    threshold=0.8,
    seeds_asked=20,
    seeds_done=19,
    model="offline/lexical",
    prompt_fingerprint="3f9c2a81d0aa",
)


def report(n: int) -> RunReport:
    return RunReport(
        created_at=f"2026-01-02T03:04:{n:02d}+00:00", evals=(replace(ENTRY, mean_reward=n / 100),)
    )


def test_the_last_run_is_kept_whole_and_the_others_as_figures(tmp_path: Path) -> None:
    runs = RememberedRuns(tmp_path)
    for n in (1, 2):
        runs.remember(report(n))
    assert runs.last() == report(2)
    assert [run.created_at for run in runs.past()] == [report(1).created_at, report(2).created_at]
    (entry,) = runs.past()[0].evals
    assert (entry.mean_reward, entry.interval, entry.told_outcome) == (
        0.01, (0.25, 0.75), "failed (expected)",
    )  # fmt: skip
    assert (entry.seeds_done, entry.seeds_asked, entry.threshold) == (19, 20, 0.8)
    assert (entry.model, entry.prompt_fingerprint) == ("offline/lexical", "3f9c2a81d0aa")


def test_only_the_last_fifty_runs_are_kept(tmp_path: Path) -> None:
    runs = RememberedRuns(tmp_path)
    for n in range(KEPT + 3):
        runs.remember(report(n))
    kept = [run.created_at for run in runs.past()]
    assert kept == [report(n).created_at for n in range(3, KEPT + 3)]


def test_a_run_of_thirty_evals_takes_less_than_twenty_kilobytes(tmp_path: Path) -> None:
    RememberedRuns(tmp_path).remember(whole_run(evals=30, seeds=50))
    (file,) = (tmp_path / "runs").iterdir()
    assert file.stat().st_size < 20_000


def test_nothing_is_remembered_where_nothing_ran(tmp_path: Path) -> None:
    runs = RememberedRuns(tmp_path / "absent")
    assert runs.last() is None
    assert runs.past() == []
    assert not (tmp_path / "absent").exists()


def test_a_run_of_another_version_is_left_out_of_the_past_and_named_as_the_last(tmp_path: Path) -> None:
    runs = RememberedRuns(tmp_path)
    runs.remember(report(1))
    (tmp_path / "runs" / "0.json").write_text('{"created_at": null, "evals": [], "new": 1}')
    (tmp_path / "last.json").write_text('{"version": 99}')
    assert len(runs.past()) == 1
    with pytest.raises(ConfigError, match=r"last\.json has version 99; this pytest-synth reads version 1"):
        runs.last()


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SynthError, match=r"cannot keep this run in '.*/file/runs': "):
        RememberedRuns(tmp_path / "file").remember(report(1))
