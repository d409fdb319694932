"""Report files of a pytest run, the step summary, and the runs that are remembered."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from pytest_synth.evals.runs import RememberedRuns
from pytest_synth.report import RunReport
from pytest_synth.report.json import from_json

TESTS = """
import pytest
from pytest_synth import GateFailed

@pytest.mark.synth_eval(seeds=range(20), split="test", min_reward=0.8)
def test_good(): ...

@pytest.mark.synth_eval(seeds=range(10), split="test", min_reward=0.9)
def test_bad(): ...

@pytest.mark.xfail(raises=GateFailed, strict=True)
@pytest.mark.synth_eval(seeds=[0], split="test", min_reward=0.9)
def test_expected(): ...

@pytest.mark.synth_eval(seeds=range(5), split="test")
def test_looks_itself(synth_result, synth_eval):
    synth_eval(seeds=[1, 2])

def test_plain(): ...
"""

OUTCOMES = [
    ("test_it.py::test_good", "passed"),
    ("test_it.py::test_bad", "failed"),
    ("test_it.py::test_expected", "failed (expected)"),
    ("test_it.py::test_looks_itself", "measured"),
    ("test_it.py::test_looks_itself[call 1]", "measured"),
]


@pytest.fixture
def reported(project: pytest.Pytester) -> pytest.Pytester:
    project.makepyfile(test_it=TESTS)
    return project


def run(project: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    return project.runpytest("-p", "no:randomly", *arguments)


def read(file: Path) -> RunReport:
    return from_json(file.read_text(encoding="utf-8"))


def outcomes(report: RunReport) -> list[tuple[str, str]]:
    return [(entry.node_id, entry.told_outcome) for entry in report.evals]


def test_reports_of_all_formats_are_written_once_at_the_end(reported: pytest.Pytester) -> None:
    names = ["report.json", "new/report.html", "report.md"]
    result = run(reported, *[part for name in names for part in ("--synth-report", name)])
    result.assert_outcomes(passed=3, failed=1, xfailed=1)
    report = read(reported.path / "report.json")
    assert outcomes(report) == OUTCOMES
    assert [len(entry.rows) for entry in report.evals] == [20, 10, 1, 5, 2]
    assert report.evals[0].rule is not None
    assert report.evals[0].rule.min_reward == 0.8
    assert (reported.path / "new" / "report.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    markdown = (reported.path / "report.md").read_text(encoding="utf-8")
    assert markdown.startswith("### pytest-synth: 1 passed, 2 measured, 1 failed, 1 failed (expected)")
    result.stdout.fnmatch_lines([f"synth: wrote {name}" for name in names])
    left = {path.name for path in reported.path.iterdir() if path.name.startswith((".report", "report"))}
    assert left == {"report.json", "report.md"}


def test_summary_tells_expected_failures_and_measurements_apart(reported: pytest.Pytester) -> None:
    result = run(reported)
    result.stdout.fnmatch_lines(
        [
            "*test_good * passed",
            "*test_bad * failed",
            "*test_expected * failed (expected)",
            "*test_looks_itself * measured",
            "*call 1] * measured",
            "5 evals: 1 passed, 2 measured, 1 failed, 1 failed (expected);*",
        ]
    )


def test_flag_wins_over_environment_over_ini_file(
    reported: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    ini = (reported.path / "pytest.ini").read_text()
    (reported.path / "pytest.ini").write_text(
        f"{ini.rstrip()}\nsynth_report =\n    ini/a.md\n    ini/b.json\n"
    )
    inner = reported.mkdir("inner")
    arguments = ("-k", "test_good", "--rootdir", str(reported.path))

    def written() -> list[str]:
        found = sorted(p for p in reported.path.rglob("*.*") if p.suffix in (".md", ".json", ".html"))
        names = [str(p.relative_to(reported.path)) for p in found if ".pytest_cache" not in p.parts]
        for name in names:
            (reported.path / name).unlink()
        return names

    monkeypatch.chdir(inner)
    run(reported, *arguments, "../test_it.py").assert_outcomes(passed=1, deselected=4)
    assert written() == ["ini/a.md", "ini/b.json"]
    monkeypatch.setenv("PYTEST_SYNTH_REPORT", "env/a.md:env/b.md")
    run(reported, *arguments, "../test_it.py").assert_outcomes(passed=1, deselected=4)
    assert written() == ["inner/env/a.md", "inner/env/b.md"]
    run(reported, *arguments, "../test_it.py", "--synth-report", "flag.md").assert_outcomes(
        passed=1, deselected=4
    )
    assert written() == ["inner/flag.md"]


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        pytest.param(
            ["--synth-report", "out.xml"],
            "ERROR: --synth-report: '*/out.xml' is not allowed; the name ends in .html, .json, .md",
            id="suffix",
        ),
        pytest.param(
            ["--synth-report", "folder.md"], "ERROR: --synth-report: '*/folder.md' is a folder;*", id="folder"
        ),
        pytest.param(
            ["--synth-report", "out.xml", "-n", "1"], "ERROR: --synth-report: '*out.xml' is not*", id="xdist"
        ),
        pytest.param(
            ["-o", "synth_report=out"], "ERROR: ini value synth_report: '*/out' is not allowed;*", id="ini"
        ),
    ],
)
def test_wrong_path_is_refused_before_anything_runs(
    reported: pytest.Pytester, arguments: list[str], line: str
) -> None:
    reported.mkdir("folder.md")
    reported.makeconftest("def pytest_collection(): print('collecting')")
    result = run(reported, "-s", *arguments)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([line])
    assert "collecting" not in result.stdout.str()
    assert "Traceback" not in result.stdout.str() + result.stderr.str()


def test_report_that_cannot_be_written_makes_a_green_run_red(reported: pytest.Pytester) -> None:
    (reported.path / "file").write_text("")
    arguments = ("--synth-report", "file/report.md", "--synth-report", "other.md")
    result = run(reported, "-k", "test_good", *arguments)
    result.assert_outcomes(passed=1, deselected=4)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["ERROR: cannot write the report '*/file/report.md': *"])
    assert (reported.path / "other.md").exists()


def test_run_without_an_eval_leaves_the_reports_alone(reported: pytest.Pytester) -> None:
    (reported.path / "report.md").write_text("of an earlier run")
    run(reported, "-k", "plain", "--synth-report", "report.md").assert_outcomes(passed=1, deselected=4)
    run(reported, "--collect-only", "--synth-report", "report.md")
    assert (reported.path / "report.md").read_text() == "of an earlier run"
    assert not (reported.path / ".pytest_cache" / "d").exists()


def test_after_x_the_report_holds_what_has_ended(reported: pytest.Pytester) -> None:
    result = run(reported, "-x", "--synth-report", "report.json")
    result.assert_outcomes(passed=1, failed=1)
    assert outcomes(read(reported.path / "report.json")) == OUTCOMES[:2]


def test_after_an_interrupt_the_report_holds_what_has_ended(reported: pytest.Pytester) -> None:
    reported.makeconftest(
        """
        def pytest_runtest_setup(item):
            if item.name == "test_bad":
                raise KeyboardInterrupt
        """
    )
    result = reported.runpytest_inprocess(
        "-p", "no:randomly", "--synth-report", "report.json", no_reraise_ctrlc=True
    )
    assert result.ret == pytest.ExitCode.INTERRUPTED
    assert outcomes(read(reported.path / "report.json")) == OUTCOMES[:1]


def test_test_that_fails_before_its_verdict_is_told_as_incomplete(reported: pytest.Pytester) -> None:
    reported.makeconftest(
        """
        import pytest

        @pytest.fixture(autouse=True)
        def broken(request):
            if request.node.name == "test_good":
                raise RuntimeError("no database")
        """
    )
    result = run(reported, "-k", "good or bad", "--synth-report", "report.json")
    result.assert_outcomes(errors=1, failed=1, deselected=3)
    entry = read(reported.path / "report.json").evals[0]
    assert (entry.node_id, entry.outcome, entry.seeds_asked) == (OUTCOMES[0][0], "incomplete", 20)
    assert entry.gate_text == "gate incomplete: the test failed before its eval was judged"


def test_step_summary_is_written_by_itself(
    reported: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = reported.path / "summary"
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(file))
    run(reported, "-k", "test_good").assert_outcomes(passed=1, deselected=4)
    assert file.read_text(encoding="utf-8").startswith("### pytest-synth: 1 passed\n")
    file.unlink()
    run(reported, "-k", "plain").assert_outcomes(passed=1, deselected=4)
    assert not file.exists()


def test_last_runs_are_remembered_in_pytests_cache_and_nowhere_else(reported: pytest.Pytester) -> None:
    def files() -> set[str]:
        return {path.name for path in reported.path.iterdir()}

    before = files()
    run(reported, "-p", "no:cacheprovider", "-k", "test_good").assert_outcomes(passed=1, deselected=4)
    assert files() - before <= {"__pycache__"}
    run(reported).assert_outcomes(passed=3, failed=1, xfailed=1)
    run(reported, "-k", "test_good").assert_outcomes(passed=1, deselected=4)
    assert files() - before <= {"__pycache__", ".pytest_cache"}
    runs = RememberedRuns(reported.path / ".pytest_cache" / "d" / "synth")
    last = runs.last()
    assert last is not None
    assert outcomes(last) == OUTCOMES[:1]
    assert [[(e.node_id, e.told_outcome) for e in past.evals] for past in runs.past()] == [
        OUTCOMES,
        OUTCOMES[:1],
    ]


def test_cache_that_cannot_be_written_changes_no_outcome(reported: pytest.Pytester) -> None:
    (reported.path / ".pytest_cache").write_text("a file")
    result = run(reported, "-k", "test_good", "-W", "ignore::pytest.PytestCacheWarning")
    result.assert_outcomes(passed=1, deselected=4)
    assert result.ret == 0


def figures(report: RunReport) -> list[dict[str, Any]]:
    """A report without what differs from run to run: times, and the names of rollouts."""
    times = {"duration_s": True, "rows": {"__all__": {"latency_ms", "correlation_id"}}}
    return [entry.model_dump(exclude=times) for entry in report.evals]


def test_workers_give_the_same_report_summary_and_properties(reported: pytest.Pytester) -> None:
    def once(name: str, *arguments: str) -> tuple[list[dict[str, Any]], list[str], str]:
        result = run(reported, "--synth-report", f"{name}.json", "--junitxml", f"{name}.xml", *arguments)
        result.assert_outcomes(passed=3, failed=1, xfailed=1)
        # reward, threshold, seeds, outcome; between the last two are the rollouts per second
        cells = (re.search(r"([\d.]+) +([\d.-]+) +(\d+/\d+) .*  (.*)$", line) for line in result.outlines)
        table = ["|".join(found.groups()) for found in cells if found]
        properties = json.dumps(
            sorted(
                line.strip()
                for line in (reported.path / f"{name}.xml").read_text().replace("><", ">\n<").splitlines()
                if "<property name" in line
            )
        )
        return figures(read(reported.path / f"{name}.json")), table, properties

    alone = once("alone")
    assert [entry["node_id"] for entry in alone[0]] == [node_id for node_id, _ in OUTCOMES]
    assert alone[1][:3] == [
        "0.80|0.80|20/20|passed", "0.80|0.90|10/10|failed", "0.00|0.90|1/1|failed (expected)",
    ]  # fmt: skip
    assert once("two", "-n", "2") == alone
    past = RememberedRuns(reported.path / ".pytest_cache" / "d" / "synth").past()
    assert len(past) == 2


ASKING = """
from pytest_synth import task_app

async def run(row, llm):
    system = {"role": "system", "content": "Labels:\\n- red: fire\\n- blue: water"}
    return (await llm.chat([system, {"role": "user", "content": row}])).text

app = task_app(rows={"test": ["fire", "water"]}, run=run, score=lambda row, answer: answer == "blue")
"""

ASKED = """
import pytest

@pytest.mark.synth_eval(seeds=[0, 1], split="test", min_reward=1)
def test_own(): ...

@pytest.mark.synth_eval(seeds=[0, 1], split="test", min_reward=0.5, prompt="Labels:\\n- red\\n- blue: water")
def test_markers(): ...
"""


@pytest.mark.parametrize("workers", [(), ("-n", "2")], ids=["alone", "two workers"])
def test_failing_seeds_are_told_with_their_model_calls_and_every_known_prompt(
    project: pytest.Pytester, workers: tuple[str, ...]
) -> None:
    project.makepyfile(my_app=ASKING, test_it=ASKED)
    run(project, *workers, "--synth-report", "r.json", "--synth-report", "r.html").assert_outcomes(
        passed=1, failed=1
    )
    own, markers = read(project.path / "r.json").evals
    (failing,) = own.calls
    (call,) = failing.calls
    assert (failing.seed, call.answer, call.model) == (0, "red", "offline/lexical")
    assert [message.role for message in call.messages] == ["system", "user"]
    assert call.messages[1].pattern == "fire"
    assert own.prompt is not None
    assert own.prompt[0].pattern == "Labels:\n- red: fire\n- blue: water"
    assert markers.prompt is not None
    assert markers.prompt[0].pattern == "Labels:\n- red\n- blue: water"
    assert markers.calls == ()  # it has passed
    assert "model call 1 of 1, offline/lexical" in (project.path / "r.html").read_text(encoding="utf-8")


def test_terminal_that_has_no_bars_gets_no_sparkline(
    reported: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = run(reported, "-k", "good").stdout
    shown.fnmatch_lines(["eval * rewards  gate", "test_it.py::test_good * █  passed"])
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    result = reported.runpytest_subprocess("-p", "no:randomly", "-k", "good")
    result.stdout.fnmatch_lines(["eval * per s  gate", "test_it.py::test_good * 20/20 * passed"])
    result.stdout.no_fnmatch_line("*\\u25*")


@pytest.mark.parametrize("workers", [(), ("-n", "2")], ids=["alone", "two workers"])
def test_skipped_evals_are_told_as_unchecked(project: pytest.Pytester, workers: tuple[str, ...]) -> None:
    project.makepyfile(
        test_it="""
        import pytest

        @pytest.mark.skipif(True, reason="no key today")
        @pytest.mark.synth_eval(seeds=[1], split="test", min_reward=1)
        def test_skipped(): ...

        @pytest.mark.xfail(run=False)
        @pytest.mark.synth_eval(seeds=[1], split="test", min_reward=1)
        def test_not_tried(): ...

        @pytest.mark.skip
        def test_plain(): ...
        """
    )
    reports = [part for name in ("r.json", "r.md", "r.html") for part in ("--synth-report", name)]
    result = run(project, *workers, *reports)
    result.assert_outcomes(skipped=2, xfailed=1)
    result.stdout.fnmatch_lines(["*= synth evals =*", "2 evals skipped: their gates were not checked"])
    report = read(project.path / "r.json")
    assert (report.evals, report.skipped) == ((), ("test_it.py::test_skipped", "test_it.py::test_not_tried"))
    markdown = (project.path / "r.md").read_text(encoding="utf-8")
    assert markdown.startswith(
        "### pytest-synth: 2 skipped\n\n2 evals skipped: their gates were not checked ("
    )
    assert "test\\_not\\_tried" in markdown
    page = (project.path / "r.html").read_text(encoding="utf-8")
    assert "<h1>2 evals: 2 skipped</h1>" in page
    assert "<li>test_it.py::test_skipped</li>" in page
