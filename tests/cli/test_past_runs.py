"""The command `pytest-synth`: view and history of past runs, and merge of parts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import webbrowser
from collections.abc import Iterator
from pathlib import Path

import pytest
from fakes.entries import replace, row
from fakes.reports import optimization, whole_run

from pytest_synth.cli import main
from pytest_synth.cli.merge import check_files
from pytest_synth.errors import ConfigError
from pytest_synth.evals.parts import Part, PartEval, write_part
from pytest_synth.evals.runs import RememberedRuns
from pytest_synth.report import EvalEntry, RunReport

ENTRY = EvalEntry(
    node_id="test_a.py::test_b",
    outcome="passed",
    gate_text="gate passed: mean reward 0.87 over 20 seeds, min_reward 0.80",
    mean_reward=0.87,
    interval=(0.66, 0.97),
    threshold=0.8,
    seeds_asked=20,
    seeds_done=20,
    rollouts=20,
    model="offline/lexical",
    prompt_fingerprint="3f9c2a81d0aa",
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A project with pytest's cache in a place of its own; the clock stands in UTC."""
    (tmp_path / "pytest.ini").write_text("[pytest]\ncache_dir = ${PLACE}/kept\n")
    monkeypatch.setenv("PLACE", str(tmp_path))
    monkeypatch.setenv("TZ", "UTC")
    monkeypatch.setenv("PYTEST_ADDOPTS", "-p no:randomly")
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    monkeypatch.chdir(tmp_path)
    if hasattr(time, "tzset"):
        time.tzset()
    yield tmp_path
    monkeypatch.undo()
    if hasattr(time, "tzset"):
        time.tzset()


def remembered(folder: Path) -> RememberedRuns:
    return RememberedRuns(folder / "kept" / "d" / "synth")


def test_view_writes_the_last_report_and_opens_it(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    monkeypatch.setattr(webbrowser, "open", lambda url: opened.append(url) or True)
    remembered(folder).remember(whole_run())
    assert main(["view"]) == 0
    file = folder / "kept" / "d" / "synth" / "last.html"
    assert capsys.readouterr().out == f"{file}\n"
    assert opened == [file.as_uri()]
    assert "3 evals: 1 passed, 1 failed, 1 incomplete" in file.read_text(encoding="utf-8")


def test_view_without_a_browser_says_where_the_report_is(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    remembered(folder).remember(whole_run())
    monkeypatch.setattr(webbrowser, "open", lambda url: pytest.fail("a browser was opened"))
    assert main(["view", "--no-browser"]) == 0
    assert capsys.readouterr().out.endswith("last.html\n")
    monkeypatch.setattr(webbrowser, "open", lambda url: False)
    assert main(["view"]) == 0
    assert capsys.readouterr().out.endswith("no browser was found; open the file in one\n")


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        pytest.param(["view"], "no run is remembered in '{}'; run pytest with an eval in it", id="view"),
        pytest.param(["history"], "no run is remembered in '{}'", id="history"),
        pytest.param(
            ["history", "x"], "no run of a test with 'x' in its node id is remembered in '{}'", id="test"
        ),
    ],
)
def test_where_nothing_is_remembered_the_place_is_named(
    folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], text: str
) -> None:
    assert main(arguments) == 1
    place = folder / "kept" / "d" / "synth"
    assert capsys.readouterr().err.startswith("pytest-synth: " + text.format(place))
    assert not place.exists()


def test_a_project_without_cache_is_told_so(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "pytest.ini").write_text("[pytest]\naddopts = -p no:cacheprovider\n")
    assert main(["view"]) == 1
    assert "pytest has no cache here: -p no:cacheprovider is configured" in capsys.readouterr().err


def test_history_lists_the_runs_of_a_test_oldest_first(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    worse = replace(
        ENTRY,
        outcome="failed",
        mean_reward=0.5,
        interval=(0.27, 0.73),
        prompt_fingerprint="77aa",
        seeds_done=19,
    )
    lost = replace(
        ENTRY, node_id="test_a.py::test_c", outcome="incomplete", mean_reward=None, interval=None,
        prompt_fingerprint=None, model=None, threshold=None, seeds_done=0,
    )  # fmt: skip
    remembered(folder).remember(RunReport(created_at="2026-01-02T03:04:05+00:00", evals=(ENTRY, lost)))
    remembered(folder).remember(RunReport(created_at="2026-01-03T10:00:00+00:00", evals=(worse,)))
    assert main(["history"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "test_a.py::test_b",
        "  when              gate    reward  interval      min   seeds  prompt        model",
        "  2026-01-02 03:04  passed  0.87    0.66 to 0.97  0.80  20/20  3f9c2a81d0aa  offline/lexical",
        "  2026-01-03 10:00  failed  0.50    0.27 to 0.73  0.80  19/20  77aa          offline/lexical",
        "",
        "test_a.py::test_c",
        "  when              gate        reward  interval  min  seeds  prompt  model",
        "  2026-01-02 03:04  incomplete  -       -         -    0/20   -       -",
    ]
    assert main(["history", "test_c"]) == 0
    assert "test_b" not in capsys.readouterr().out


def part_file(file: Path, *entries: EvalEntry) -> str:
    evals = tuple(
        PartEval(node_id=e.node_id, position=n, seeds_asked=20, state="run", entries=(e,))
        for n, e in enumerate(entries)
    )
    write_part(Part(package_version="0.1.0", evals=evals, optimizations=(optimization(),)), file)
    return str(file)


def test_merge_prints_one_table_writes_the_reports_and_is_0_when_all_gates_pass(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(folder / "summary"))
    expected = replace(ENTRY, node_id="test_b.py::test_x", outcome="failed", expected_failure=True)
    files = [part_file(folder / "1.json", ENTRY), part_file(folder / "2.json", expected)]
    arguments = ["--parts", "2", "--report", "out/all.html", "--report", "all.json"]
    assert main(["merge", *files, *arguments]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split()[0] == "test_a.py::test_b"
    assert lines[3].startswith("2 evals: 1 passed, 1 failed (expected); 40 rollouts;")
    assert lines[4:] == ["wrote out/all.html", "wrote all.json"]
    document = json.loads((folder / "all.json").read_text())
    assert (len(document["evals"]), len(document["optimizations"])) == (2, 2)
    assert (folder / "out" / "all.html").read_text().startswith("<!doctype html>")
    assert (folder / "summary").read_text(encoding="utf-8").startswith("### pytest-synth: 1 passed")


def test_a_terminal_of_ascii_gets_no_sparkline_and_escapes(folder: Path) -> None:
    long = replace(ENTRY, node_id="test_a.py::test_" + "b" * 200)
    part_file(folder / "part.json", replace(ENTRY, rows=[row(1, 1.0)]), long)
    command = [sys.executable, "-m", "pytest_synth.cli", "merge", "part.json"]
    environment = os.environ | {"PYTHONIOENCODING": "ascii", "COLUMNS": "100"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    (_, plain, cut, *_) = done.stdout.decode("ascii").splitlines()
    assert plain.endswith("0.87  0.80  20/20      -  passed")
    assert "\\u2026bbbb" in cut


def test_a_reader_that_has_read_enough_gets_no_traceback(folder: Path) -> None:
    remembered(folder).remember(RunReport(evals=(ENTRY,) * 3000))
    command = [sys.executable, "-m", "pytest_synth.cli", "history"]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == b"test_a.py::test_b\n"
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == 1


def test_merge_is_1_when_a_gate_is_red_and_says_why(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad = replace(
        ENTRY, node_id="test_b.py::test_x", outcome="failed", gate_text="gate failed: too low",
        rows=[row(7, 0.0, query="Where is it?")],
    )  # fmt: skip
    files = [part_file(folder / "1.json", ENTRY), part_file(folder / "2.json", bad)]
    assert main(["merge", *files]) == 1
    out = capsys.readouterr().out
    assert out.startswith("test_b.py::test_x\ngate failed: too low\nlowest rewards:\n  seed 7: reward 0.00\n")
    assert "2 evals: 1 passed, 1 failed;" in out


def test_merge_of_parts_without_an_eval_is_red(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["merge", part_file(folder / "1.json"), part_file(folder / "2.json")]) == 1
    assert capsys.readouterr().err == "pytest-synth: no eval was run in any of the 2 parts\n"


def test_merge_refuses_a_wrong_report_before_it_reads_anything(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["merge", "absent.json", "--report", "out.xml"]) == 1
    assert "'out.xml' is not allowed; the name ends in .html, .json, .md" in capsys.readouterr().err


def test_merge_refuses_a_file_twice_and_another_number_of_parts(tmp_path: Path) -> None:
    one, two = tmp_path / "1.json", tmp_path / "2.json"
    with pytest.raises(ConfigError, match=r"the part '.*/1\.json' is given twice"):
        check_files([one, two, Path(os.fspath(tmp_path)) / "x" / ".." / "1.json"], None)
    text = "there are 2 parts and must be 4; a job has written none, or it was lost"
    with pytest.raises(ConfigError, match=text):
        check_files([one, two], 4)
    check_files([one, two], 2)
