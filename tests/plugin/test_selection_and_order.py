"""Which evals are submitted, when, and what ends them: overlap, deselection, -x, skips, reruns."""

from __future__ import annotations

import pytest

# A task app that notes the seeds it was asked for and how many rollouts were in flight at once.
COUNTING_APP = """
import asyncio, os, pathlib
from pytest_synth import task_app

LOG = pathlib.Path(__file__).with_name("seeds.log")
flying = 0

async def run(row, llm):
    global flying
    flying += 1
    with LOG.open("a") as log:
        log.write(f"{row} {flying}\\n")
    await asyncio.sleep(float(os.environ.get("ROLLOUT_S", "0.05")))
    flying -= 1
    return row

app = task_app(rows={"test": list(range(100))}, run=run, score=lambda row, answer: 1.0)
"""


def log(project: pytest.Pytester) -> list[tuple[int, int]]:
    file = project.path / "seeds.log"
    if not file.exists():
        return []
    return [(int(line.split()[0]), int(line.split()[1])) for line in file.read_text().splitlines()]


def seeds(project: pytest.Pytester) -> list[int]:
    return sorted(seed for seed, _ in log(project))


@pytest.fixture
def counted(project: pytest.Pytester) -> pytest.Pytester:
    project.makepyfile(my_app=COUNTING_APP)
    project.makepyfile(
        test_file="""
        import pytest

        @pytest.mark.synth_eval(seeds=range(0, 10), min_reward=1)
        def test_a(): ...

        @pytest.mark.synth_eval(seeds=range(10, 20), min_reward=1)
        def test_b(): ...

        @pytest.mark.synth_eval(seeds=range(20, 30), min_reward=1)
        def test_c(): ...
        """
    )
    return project


def test_all_evals_share_one_limit_and_overlap(counted: pytest.Pytester) -> None:
    result = counted.runpytest("-p", "no:randomly", "--synth-concurrency", "12")
    result.assert_outcomes(passed=3)
    assert seeds(counted) == list(range(30))
    assert max(flying for _, flying in log(counted)) == 12  # more than one test's ten seeds at once


def test_deselected_evals_are_not_submitted(counted: pytest.Pytester) -> None:
    counted.runpytest("-p", "no:randomly", "-k", "test_b").assert_outcomes(passed=1, deselected=2)
    assert seeds(counted) == list(range(10, 20))


def test_collecting_only_submits_nothing(counted: pytest.Pytester) -> None:
    for flag in ("--collect-only", "--setup-plan"):
        assert counted.runpytest("-p", "no:randomly", flag).ret == 0
    assert seeds(counted) == []


def test_last_failed_runs_only_the_eval_that_failed(counted: pytest.Pytester) -> None:
    text = (counted.path / "test_file.py").read_text()
    (counted.path / "test_file.py").write_text(text.replace("def test_b(): ...", "def test_b(): assert 0"))
    counted.runpytest("-p", "no:randomly").assert_outcomes(passed=2, failed=1)
    (counted.path / "seeds.log").unlink()
    counted.runpytest("-p", "no:randomly", "--lf").assert_outcomes(failed=1)
    assert seeds(counted) == list(range(10, 20))


def test_skipped_evals_do_not_spend(counted: pytest.Pytester) -> None:
    counted.makepyfile(
        test_file="""
        import pytest

        @pytest.mark.skip(reason="not today")
        @pytest.mark.synth_eval(seeds=range(0, 10), min_reward=1)
        def test_a(): ...

        @pytest.mark.skipif("sys.version_info > (3,)", reason="always")
        @pytest.mark.synth_eval(seeds=range(10, 20), min_reward=1)
        def test_b(): ...

        @pytest.mark.xfail(run=False, reason="not ready")
        @pytest.mark.synth_eval(seeds=range(20, 30), min_reward=1)
        def test_c(): ...

        @pytest.mark.skipif("sys.version_info < (3,)", reason="never")
        @pytest.mark.synth_eval(seeds=range(30, 40), min_reward=1)
        def test_d(): ...
        """
    )
    result = counted.runpytest("-p", "no:randomly")
    result.assert_outcomes(skipped=2, xfailed=1, passed=1)
    assert seeds(counted) == list(range(30, 40))


def test_fixture_that_fails_first_keeps_the_eval_from_being_submitted_on_its_own(
    counted: pytest.Pytester,
) -> None:
    counted.makepyfile(
        test_file="""
        import pytest

        @pytest.fixture
        def broken():
            raise RuntimeError("no database")

        @pytest.mark.synth_eval(seeds=range(0, 10), min_reward=1)
        def test_a(broken): ...
        """
    )
    result = counted.runpytest("-p", "no:randomly")
    result.assert_outcomes(errors=1)
    assert seeds(counted) == []


def test_stop_at_the_first_failure_stops_what_has_not_started(
    counted: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted.makepyfile(
        test_file="""
        import pytest

        @pytest.mark.synth_eval(seeds=range(0, 4), min_reward=1)
        def test_a(): assert 0

        @pytest.mark.synth_eval(seeds=range(10, 90), min_reward=1)
        def test_b(): ...
        """
    )
    monkeypatch.setenv("ROLLOUT_S", "0.3")
    result = counted.runpytest("-p", "no:randomly", "-x", "--synth-concurrency", "4")
    result.assert_outcomes(failed=1)
    assert {0, 1, 2, 3} <= set(seeds(counted))
    assert len(seeds(counted)) < 30  # 4 at once, cut at once: far from all 84


def test_rerun_uses_the_result_again(counted: pytest.Pytester) -> None:
    counted.makepyfile(
        test_file="""
        import pytest
        tries = []

        @pytest.mark.synth_eval(seeds=range(0, 10), min_reward=1)
        def test_a(synth_result):
            tries.append(synth_result.job_id)
            assert len(tries) == 3
            assert len(set(tries)) == 1
        """
    )
    result = counted.runpytest("-p", "no:randomly", "--reruns", "2")
    assert "1 passed, 2 rerun" in result.stdout.str()
    assert seeds(counted) == list(range(10))
    assert result.stdout.str().count("10/10") == 1


def test_samples_run_every_seed_several_times(counted: pytest.Pytester) -> None:
    counted.makepyfile(
        test_file="""
        import pytest

        @pytest.mark.synth_eval(seeds=[3, 4], samples=3, min_reward=1)
        def test_a(synth_result):
            assert [(r.seed, r.sample) for r in synth_result.rows] == [
                (3, 0), (3, 1), (3, 2), (4, 0), (4, 1), (4, 2)
            ]
        """
    )
    counted.runpytest("-p", "no:randomly").assert_outcomes(passed=1)
    assert seeds(counted) == [3, 3, 3, 4, 4, 4]


def test_own_limit_of_an_eval_holds(counted: pytest.Pytester) -> None:
    counted.makepyfile(
        test_file="""
        import pytest

        @pytest.mark.synth_eval(seeds=range(0, 10), min_reward=1, max_concurrent=2)
        def test_a(): ...
        """
    )
    counted.runpytest("-p", "no:randomly").assert_outcomes(passed=1)
    assert max(flying for _, flying in log(counted)) == 2


def test_same_results_with_workers(counted: pytest.Pytester) -> None:
    result = counted.runpytest("-p", "no:randomly", "-n", "2")
    result.assert_outcomes(passed=3)
    assert seeds(counted) == list(range(30))
    assert len([line for line in result.outlines if "10/10" in line]) == 3
    result.stdout.fnmatch_lines(["3 evals: 3 passed; 30 rollouts;*"])
