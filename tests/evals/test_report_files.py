"""Report files and the step summary: the format by suffix, whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from fakes.entries import row
from fakes.reports import whole_run

from pytest_synth.errors import ConfigError, SynthError
from pytest_synth.evals.reports import append_step_summary, check_report_path, make_report, write_report
from pytest_synth.report import EvalEntry, RunReport
from pytest_synth.report.json import from_json


@pytest.mark.parametrize(
    ("suffix", "start"),
    [
        pytest.param(".html", "<!doctype html>", id="html"),
        pytest.param(".md", "### pytest-synth: 1 passed, 1 failed, 1 incomplete", id="markdown"),
        pytest.param(".json", "{\n", id="json"),
    ],
)
def test_the_suffix_says_the_format_and_folders_are_made(tmp_path: Path, suffix: str, start: str) -> None:
    file = tmp_path / "new" / f"report{suffix}"
    write_report(whole_run(), file)
    assert file.read_text(encoding="utf-8").startswith(start)
    assert list(file.parent.iterdir()) == [file]


def test_a_report_is_stamped_and_can_be_read_back(tmp_path: Path) -> None:
    report = make_report(whole_run().evals)
    write_report(report, tmp_path / "report.json")
    assert from_json((tmp_path / "report.json").read_text(encoding="utf-8")) == report
    assert report.package_version
    assert report.created_at
    assert report.created_at.endswith("+00:00")


@pytest.mark.parametrize("suffix", [".html", ".md", ".json"])
def test_an_answer_that_is_no_unicode_can_be_written(tmp_path: Path, suffix: str) -> None:
    rows = (
        row(1, 0.0, query="\ud800", answer="a\ud800b", details={"expected": "\ud800", "x": float("nan")}),
    )
    entry = EvalEntry(
        node_id="a", outcome="failed", gate_text="\ud800", seeds_asked=1, seeds_done=1, rows=rows
    )
    write_report(RunReport(evals=(entry,)), tmp_path / f"report{suffix}")
    assert (tmp_path / f"report{suffix}").stat().st_size > 100


@pytest.mark.parametrize("name", ["report.xml", "report", "report.HTML", ".md"])
def test_another_suffix_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=r"' is not allowed; the name ends in \.html, \.json, \.md$"):
        check_report_path(tmp_path / name)


def test_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.md").mkdir()
    with pytest.raises(ConfigError, match=r"a\.md' is a folder; give the name of a file"):
        check_report_path(tmp_path / "a.md")


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write anywhere")
def test_an_old_report_survives_when_the_new_one_cannot_be_written(tmp_path: Path) -> None:
    file = tmp_path / "report.md"
    file.write_text("old")
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(SynthError, match=r"cannot write the report '.*report\.md': Permission denied"):
            write_report(whole_run(), file)
    finally:
        tmp_path.chmod(0o700)
    assert file.read_text() == "old"


def test_a_report_below_a_file_cannot_be_written_and_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(
        SynthError, match=r"cannot write the report '.*file/report\.md': (Not a dir|File exists)"
    ):
        write_report(whole_run(), tmp_path / "file" / "report.md")


def test_the_step_summary_is_added_to_what_is_there(tmp_path: Path) -> None:
    file = tmp_path / "summary"
    file.write_text("before\n")
    assert append_step_summary(whole_run(), {"GITHUB_STEP_SUMMARY": str(file)}) == file
    assert file.read_text(encoding="utf-8").startswith("before\n### pytest-synth: 1 passed")


@pytest.mark.parametrize("environ", [{}, {"GITHUB_STEP_SUMMARY": ""}], ids=["unset", "empty"])
def test_without_the_variable_there_is_no_step_summary(environ: dict[str, str]) -> None:
    assert append_step_summary(whole_run(), environ) is None


def test_a_step_summary_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(SynthError, match=r"cannot write the step summary '.*/absent/summary': No such file"):
        append_step_summary(whole_run(), {"GITHUB_STEP_SUMMARY": str(tmp_path / "absent" / "summary")})
