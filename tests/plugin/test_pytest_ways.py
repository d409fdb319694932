"""Options, marks and plugins that users have beside evals: each does what it does without them."""

from __future__ import annotations

import re

import pytest

TESTS = """
import pytest

@pytest.mark.synth_eval(seeds=range(20), split="test", min_reward=0.8)
def test_good(): ...

@pytest.mark.synth_eval(seeds=range(20), split="test", min_reward=0.9)
def test_bad(): ...

@pytest.mark.synth_eval(seeds=range(10), split="test", min_reward=0.9)
def test_worse(): ...

def test_plain(): ...
"""


@pytest.fixture
def mixed(project: pytest.Pytester) -> pytest.Pytester:
    project.makepyfile(test_it=TESTS)
    return project


def run(project: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    return project.runpytest("-p", "no:randomly", *arguments)


def table(result: pytest.RunResult) -> list[str]:
    """Names of the tests in the summary of evals."""
    found = (re.search(r"::(\w+) .* \d+/\d+ .*(passed|failed)$", line) for line in result.outlines)
    return [one.group(1) for one in found if one]


def test_lf_and_ff_know_which_gates_have_failed(mixed: pytest.Pytester) -> None:
    run(mixed).assert_outcomes(passed=2, failed=2)
    result = run(mixed, "--lf")
    result.assert_outcomes(failed=2)
    assert table(result) == ["test_bad", "test_worse"]
    result = run(mixed, "--ff")
    result.assert_outcomes(passed=2, failed=2)
    assert table(result) == ["test_bad", "test_worse", "test_good"]
    result = run(mixed, "--sw")
    result.assert_outcomes(passed=1, failed=1)
    assert table(result) == ["test_good", "test_bad"]
    result = run(mixed, "--sw", "--sw-skip")
    result.assert_outcomes(failed=2, deselected=1)


@pytest.mark.parametrize(
    ("arguments", "outcomes", "names"),
    [
        pytest.param(["-k", "bad or plain"], {"passed": 1, "failed": 1, "deselected": 2},
                     ["test_bad"], id="-k"),
        pytest.param(["-m", "synth_eval"], {"passed": 1, "failed": 2, "deselected": 1},
                     ["test_good", "test_bad", "test_worse"], id="-m"),
        pytest.param(["-m", "not synth_eval"], {"passed": 1, "deselected": 3}, [], id="-m not"),
        pytest.param(["-x"], {"passed": 1, "failed": 1}, ["test_good", "test_bad"], id="-x"),
        pytest.param(["--maxfail", "2"], {"passed": 1, "failed": 2},
                     ["test_good", "test_bad", "test_worse"], id="--maxfail"),
        pytest.param(["test_it.py::test_worse"], {"failed": 1}, ["test_worse"], id="node id"),
        pytest.param(["--deselect", "test_it.py::test_bad"], {"passed": 2, "failed": 1, "deselected": 1},
                     ["test_good", "test_worse"], id="--deselect"),
    ],
)  # fmt: skip
def test_selection_and_stopping(
    mixed: pytest.Pytester, arguments: list[str], outcomes: dict[str, int], names: list[str]
) -> None:
    result = run(mixed, *arguments)
    result.assert_outcomes(**outcomes)
    assert table(result) == names
    assert ("synth evals" in result.stdout.str()) == bool(names)


def test_durations_count_the_waiting_at_the_test_that_waits(project: pytest.Pytester) -> None:
    project.makepyfile(
        my_app="""
        import asyncio
        from pytest_synth import task_app

        async def run(row, llm):
            await asyncio.sleep(0.3)

        app = task_app(rows={"test": [1]}, run=run, score=lambda row, answer: 1.0)
        """,
        test_it="""
        import pytest

        @pytest.mark.synth_eval(seeds=[0], min_reward=1)
        def test_slow(): ...
        """,
    )
    result = run(project, "--durations", "1")
    result.assert_outcomes(passed=1)
    (line,) = [line for line in result.outlines if line.endswith("test_it.py::test_slow")]
    assert re.match(r"\d+\.\d+s (call|setup)", line)


@pytest.mark.parametrize(
    ("verbosity", "shown"),
    [
        pytest.param(["-q"], {"table": True, "header": False}, id="-q"),
        pytest.param(["-qq"], {"table": False, "header": False}, id="-qq"),
        pytest.param([], {"table": True, "header": True}, id="plain"),
        pytest.param(["-v"], {"table": True, "header": True}, id="-v"),
        pytest.param(["--no-header"], {"table": True, "header": True}, id="--no-header"),
        pytest.param(["--no-summary"], {"table": False, "header": True}, id="--no-summary"),
    ],
)
def test_how_much_is_said(mixed: pytest.Pytester, verbosity: list[str], shown: dict[str, bool]) -> None:
    result = run(mixed, *verbosity)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    text = result.stdout.str()
    assert ("= synth evals =" in text) == shown["table"]
    assert ("synth: 3 evals;" in text) == shown["header"]


def test_verbose_lines_are_those_of_other_tests(mixed: pytest.Pytester) -> None:
    result = run(mixed, "-v")
    result.stdout.fnmatch_lines(
        [
            "test_it.py::test_good PASSED * [[] 25%]",
            "test_it.py::test_bad FAILED * [[] 50%]",
            "test_it.py::test_worse FAILED * [[] 75%]",
            "test_it.py::test_plain PASSED * [[]100%]",
        ]
    )


def test_without_a_terminal_reporter_the_exit_code_and_the_files_are_there(mixed: pytest.Pytester) -> None:
    arguments = ("-p", "no:terminal", "--synth-report", "out.md", "--junitxml", "out.xml")
    result = run(mixed, *arguments)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert result.outlines == []
    assert (
        (mixed.path / "out.md").read_text(encoding="utf-8").startswith("### pytest-synth: 1 passed, 2 failed")
    )
    assert 'name="synth_verdict"' in (mixed.path / "out.xml").read_text()


def test_skipif_and_skip_in_the_body(project: pytest.Pytester) -> None:
    project.makepyfile(
        """
        import pytest

        @pytest.mark.skipif(True, reason="no key today")
        @pytest.mark.synth_eval(seeds=range(20), min_reward=0.9)
        def test_not_run(): ...

        @pytest.mark.synth_eval(seeds=range(20), min_reward=0.8)
        def test_skips_itself():
            pytest.skip("after its gate")

        @pytest.mark.synth_eval(seeds=range(20), min_reward=0.9)
        def test_gate_comes_first():
            pytest.skip("never reached")
        """
    )
    result = run(project, "-rs")
    result.assert_outcomes(skipped=2, failed=1)
    result.stdout.fnmatch_lines(["SKIPPED * no key today", "SKIPPED * after its gate"])
    result.stdout.fnmatch_lines(["*test_skips_itself * passed", "*test_gate_comes_first * failed"])
    result.stdout.no_fnmatch_line("*test_not_run * 0/*")


def test_xfail_of_every_kind(project: pytest.Pytester) -> None:
    project.makepyfile(
        """
        import pytest
        from pytest_synth import GateFailed, GateIncomplete

        @pytest.mark.xfail(reason="known to be low")
        @pytest.mark.synth_eval(seeds=range(20), min_reward=0.9)
        def test_low(): ...

        @pytest.mark.xfail(raises=GateIncomplete, strict=True)
        @pytest.mark.synth_eval(seeds=range(30), min_reward=0.1)
        def test_incomplete(): ...

        @pytest.mark.xfail(strict=True, reason="is better than expected")
        @pytest.mark.synth_eval(seeds=range(20), min_reward=0.8)
        def test_better(): ...

        @pytest.mark.xfail(strict=False)
        @pytest.mark.synth_eval(seeds=range(20), min_reward=0.8)
        def test_good(): ...

        @pytest.mark.xfail(raises=GateFailed, strict=True)
        @pytest.mark.synth_eval(seeds=range(20), min_reward=0.8)
        def test_body():
            raise RuntimeError("in the body")

        @pytest.mark.synth_eval(seeds=range(20), min_reward=0.8)
        def test_itself():
            pytest.xfail("said so itself")
        """
    )
    result = run(project)
    result.assert_outcomes(xfailed=3, xpassed=1, failed=2)
    result.stdout.fnmatch_lines(
        [
            "*test_low * failed (expected)",
            "*test_incomplete * incomplete (expected)",
            "*test_better * passed",
            "*test_good * passed",
            "*test_body * passed",
            "*test_itself * passed",
        ]
    )
    result.stdout.fnmatch_lines(["*XPASS(strict)* is better than expected*"])


def test_runxfail_makes_it_a_plain_failure(project: pytest.Pytester) -> None:
    project.makepyfile(
        """
        import pytest

        @pytest.mark.xfail
        @pytest.mark.synth_eval(seeds=range(20), min_reward=0.9)
        def test_low(): ...
        """
    )
    result = run(project, "--runxfail")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*test_low * failed"])


def test_warnings_as_errors_and_a_warning_of_the_body(project: pytest.Pytester) -> None:
    project.makepyfile(
        """
        import pytest, warnings

        @pytest.mark.synth_eval(seeds=range(20), min_reward=0.8)
        def test_good(): ...

        @pytest.mark.filterwarnings("default")
        @pytest.mark.synth_eval(seeds=range(20), min_reward=0.8)
        def test_warns():
            warnings.warn("of the test")

        @pytest.mark.synth_eval(seeds=range(20), min_reward=0.8)
        def test_fails_by_its_warning():
            warnings.warn("of another test")
        """
    )
    result = project.runpytest_subprocess("-p", "no:randomly", "-W", "error")
    result.assert_outcomes(passed=2, failed=1, warnings=1)
    result.stdout.fnmatch_lines(["*UserWarning: of the test*"])


SLOW_APP = """
import asyncio
from pytest_synth import task_app

async def run(row, llm):
    await asyncio.sleep(60 if row else 0)

app = task_app(rows={"test": [0, 1, 2, 3]}, run=run, score=lambda row, answer: 1.0)
"""

SLOW_TESTS = """
import pytest

@pytest.mark.synth_eval(seeds=[0], min_reward=1)
def test_first(): ...  # the backend has started then

@pytest.mark.timeout(2)
@pytest.mark.synth_eval(seeds=[1, 2, 3], min_reward=1)
def test_hangs(): ...

@pytest.mark.synth_eval(seeds=[0], min_reward=1)
def test_later(): ...
"""


def test_time_out_by_signal_fails_the_test_and_the_next_one_runs(project: pytest.Pytester) -> None:
    project.makepyfile(my_app=SLOW_APP, test_it=SLOW_TESTS)
    arguments = ("-o", "timeout_method=signal", "--synth-concurrency", "3", "--synth-report", "out.md")
    result = project.runpytest_subprocess("-p", "no:randomly", *arguments, timeout=50)
    result.assert_outcomes(failed=1, passed=2)
    result.stdout.fnmatch_lines(["*Timeout*>2*", "*test_hangs * incomplete", "*test_later * 1/1 * passed"])
    text = (project.path / "out.md").read_text(encoding="utf-8")
    assert "the test failed before its eval was judged" in text


def test_time_out_by_thread_ends_the_process_and_says_where_it_was(project: pytest.Pytester) -> None:
    project.makepyfile(my_app=SLOW_APP, test_it=SLOW_TESTS)
    result = project.runpytest_subprocess("-p", "no:randomly", "-o", "timeout_method=thread", timeout=50)
    assert result.ret == 1
    text = result.stdout.str() + result.stderr.str()
    assert "+ Timeout +" in text
    assert "Stack of MainThread" in text
    assert "evals/jobs.py" in text


def test_random_order_changes_no_verdict(mixed: pytest.Pytester) -> None:
    for seed in ("1", "2"):
        result = mixed.runpytest(f"--randomly-seed={seed}")
        result.assert_outcomes(passed=2, failed=2)
        assert sorted(table(result)) == ["test_bad", "test_good", "test_worse"]
