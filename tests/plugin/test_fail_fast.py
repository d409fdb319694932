"""Ending an eval early: only when nothing can save it, and only when asked to."""

from __future__ import annotations

import pytest

APP = """
import asyncio, pathlib
from pytest_synth import task_app

async def run(row, llm):
    with pathlib.Path(__file__).with_name("seeds.log").open("a") as log:
        log.write(f"{row}\\n")
    await asyncio.sleep(0.005)
    if row == 50:
        raise ValueError("lost")
    return row

app = task_app(rows={"test": list(range(100))}, run=run, score=lambda row, answer: float(row >= 20))
"""


@pytest.fixture
def doomed(project: pytest.Pytester) -> pytest.Pytester:
    """The first 20 of 100 seeds have no reward: 0.80 is the most that there can be."""
    project.makepyfile(
        my_app=APP,
        test_it="""
        import pytest

        @pytest.mark.synth_eval(seeds=[n for n in range(100) if n != 50], min_reward=0.9)
        def test_doomed(): ...
        """,
    )
    return project


def rollouts(project: pytest.Pytester) -> int:
    return len((project.path / "seeds.log").read_text().splitlines())


def run(project: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    return project.runpytest("-p", "no:randomly", "--synth-concurrency", "4", *arguments)


def test_eval_ends_once_it_is_certain_to_fail_and_says_what_that_saved(doomed: pytest.Pytester) -> None:
    result = run(doomed, "--synth-fail-fast")
    result.assert_outcomes(failed=1)
    assert 10 <= rollouts(doomed) < 30
    result.stdout.fnmatch_lines(
        ["gate failed: mean reward is at most 0.8* over 99 seeds, below min_reward 0.90*saved*"]
    )
    result.stdout.fnmatch_lines(["*seeds *: not run: verdict certain"])


def test_without_the_option_every_seed_runs(doomed: pytest.Pytester) -> None:
    result = run(doomed)
    result.assert_outcomes(failed=1)
    assert rollouts(doomed) == 99
    result.stdout.fnmatch_lines(["gate failed: mean reward 0.80 over 99 seeds is below min_reward 0.90;*"])


def test_eval_that_can_still_pass_runs_to_its_end(doomed: pytest.Pytester) -> None:
    doomed.makepyfile(
        test_it="""
        import pytest

        @pytest.mark.synth_eval(seeds=[n for n in range(100) if n != 50], min_reward=0.79)
        def test_close(): ...
        """
    )
    run(doomed, "--synth-fail-fast").assert_outcomes(passed=1)
    assert rollouts(doomed) == 99


def test_lost_seed_ends_an_eval_that_allows_none(doomed: pytest.Pytester) -> None:
    doomed.makepyfile(
        test_it="""
        import pytest

        @pytest.mark.synth_eval(seeds=[50, *range(60, 100)], min_reward=0.5)
        def test_lost(): ...
        """
    )
    result = run(doomed, "--synth-fail-fast")
    result.assert_outcomes(failed=1)
    assert rollouts(doomed) < 30
    result.stdout.fnmatch_lines(["gate incomplete: *50*ValueError: lost*"])


def test_switch_in_the_ini_file_must_be_spelt_right(doomed: pytest.Pytester) -> None:
    ini = (doomed.path / "pytest.ini").read_text()
    (doomed.path / "pytest.ini").write_text(ini + "\nsynth_fail_fast = yse\n")
    result = run(doomed)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: ini value synth_fail_fast: 'yse' is not allowed; use true or false"])
    (doomed.path / "pytest.ini").write_text(ini + "\nsynth_fail_fast = yes\n")
    run(doomed)
    assert rollouts(doomed) < 30
