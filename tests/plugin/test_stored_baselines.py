"""Baselines in the repository: written on demand, compared seed by seed, never in doubt."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

APP = """
import json, pathlib
from pytest_synth import task_app

def run(row, llm):
    return row in json.loads(pathlib.Path(__file__).with_name("right.json").read_text())

app = task_app(rows={"test": list(range(20))}, run=run, score=lambda row, answer: float(answer))
"""

TEST = """
import pytest

@pytest.mark.synth_eval(seeds=range(20), split="test", max_regression=0.1)
def test_answers(): ...
"""


@pytest.fixture
def compared(project: pytest.Pytester) -> pytest.Pytester:
    project.makepyfile(my_app=APP, test_it=TEST)
    answer(project, range(16))
    return project


def answer(project: pytest.Pytester, right: object) -> None:
    (project.path / "right.json").write_text(json.dumps(list(right)))  # type: ignore[call-overload]


def file(project: pytest.Pytester) -> Path:
    return project.path / "__synth__" / "test_it" / "test_answers.json"


def run(project: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    return project.runpytest("-p", "no:randomly", *arguments)


def test_without_a_baseline_the_test_is_red_and_says_how_to_make_one(compared: pytest.Pytester) -> None:
    result = run(compared)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["gate incomplete: *no baseline*--synth-update-baseline*"])
    assert not file(compared).exists()


def test_baseline_is_written_on_demand_and_holds_afterwards(compared: pytest.Pytester) -> None:
    run(compared, "--synth-update-baseline").assert_outcomes(passed=1)
    document = json.loads(file(compared).read_text())
    assert document["rewards"]["test"] == {str(seed): int(seed < 16) for seed in range(20)}
    assert document["model"] == "offline/lexical"
    before = file(compared).read_text()
    run(compared).assert_outcomes(passed=1)
    assert file(compared).read_text() == before


def test_margin_is_exact_at_its_edge_and_a_larger_drop_names_the_seeds(compared: pytest.Pytester) -> None:
    run(compared, "--synth-update-baseline").assert_outcomes(passed=1)
    answer(compared, range(14))  # 0.8 - 0.1 = 0.7: at the limit
    run(compared).assert_outcomes(passed=1)
    answer(compared, [*range(13), 19])
    run(compared).assert_outcomes(passed=1)
    answer(compared, [*range(12), 19])
    result = run(compared)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["gate failed: mean reward 0.65 *baseline*0.80*"])
    result.stdout.fnmatch_lines(["*newly failing: 4 seeds (12-15)", "*newly fixed: 1 seed (19)"])


def test_baseline_of_another_model_or_of_other_seeds_is_not_compared(compared: pytest.Pytester) -> None:
    run(compared, "--synth-update-baseline").assert_outcomes(passed=1)
    document = json.loads(file(compared).read_text())
    document["model"] = "openai/gpt-4.1-nano"
    file(compared).write_text(json.dumps(document))
    result = run(compared)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        ["gate incomplete: *model was 'openai/gpt-4.1-nano' and is 'offline/lexical'*"]
    )
    run(compared, "--synth-update-baseline").assert_outcomes(passed=1)
    compared.makepyfile(test_it=TEST.replace("range(20)", "range(19)"))
    result = run(compared)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["gate incomplete: *1 seed of it not asked for (19)*"])


def test_baseline_of_another_scorer_or_of_other_rows_is_not_compared(compared: pytest.Pytester) -> None:
    run(compared, "--synth-update-baseline").assert_outcomes(passed=1)
    compared.makepyfile(my_app=APP.replace("float(answer)", "float(answer) * 1.0"))
    result = run(compared)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["gate incomplete: *scorer was '*' and is '*'*"])
    compared.makepyfile(my_app=APP.replace("list(range(20))", "list(range(21))"))
    result = run(compared)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["gate incomplete: *data was '*' and is '*'*"])


def test_run_with_a_missing_reward_leaves_the_baseline_alone(compared: pytest.Pytester) -> None:
    run(compared, "--synth-update-baseline").assert_outcomes(passed=1)
    before = file(compared).read_text()
    compared.makepyfile(my_app=APP.replace("return row in", "assert row != 3; return row in"))
    run(compared, "--synth-update-baseline").assert_outcomes(failed=1)
    assert file(compared).read_text() == before


def test_unreadable_baseline_is_told_before_anything_runs(compared: pytest.Pytester) -> None:
    file(compared).parent.mkdir(parents=True)
    file(compared).write_text("<<<<<<< ours")
    result = run(compared)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: synth_eval on test_it.py::test_answers: *not JSON*"])
    run(compared, "--synth-update-baseline").assert_outcomes(passed=1)


def test_parameters_and_workers_write_a_file_each(compared: pytest.Pytester) -> None:
    compared.makepyfile(
        test_it="""
        import pytest

        @pytest.mark.parametrize("name", ["a", "b/c", "bc", "b.c", "b::c", pytest.param("d", id="d" * 300)])
        @pytest.mark.synth_eval(seeds=range(20), max_regression=0.1)
        def test_answers(name): ...
        """
    )
    run(compared, "--synth-update-baseline", "-n", "2").assert_outcomes(passed=6)
    files = sorted(re.sub("-[0-9a-f]{8}", "-HASH", path.name) for path in file(compared).parent.iterdir())
    assert files == [
        "test_answers[a].json",
        "test_answers[b.c].json",
        "test_answers[bc]-HASH.json",
        "test_answers[bc]-HASH.json",
        "test_answers[bc].json",
        f"test_answers[{'d' * 67}-HASH.json",
    ]
    run(compared).assert_outcomes(passed=6)


def test_lower_bound_and_metrics_gate_too(compared: pytest.Pytester) -> None:
    compared.makepyfile(
        my_app="""
        from pytest_synth import RolloutMetrics, task_app

        def score(row, answer):
            return RolloutMetrics(
                outcome_reward=float(row % 10 > 0), outcome_objectives={"latency_ms": 10.0 * row}
            )

        app = task_app(rows={"test": list(range(40))}, run=lambda row, llm: 0, score=score)
        """,
        test_it="""
        import pytest

        @pytest.mark.synth_eval(seeds=range(40), min_reward=0.85)
        def test_mean(): ...

        @pytest.mark.synth_eval(seeds=range(40), min_reward=0.85, gate="lower_bound")
        def test_bound(): ...

        @pytest.mark.synth_eval(seeds=range(40), metrics={"latency_ms": ("<=", 195)})
        def test_metric(): ...

        @pytest.mark.synth_eval(seeds=range(40), metrics={"latency_ms": ("<=", 194)})
        def test_slow(): ...
        """,
    )
    result = run(compared)
    result.assert_outcomes(passed=2, failed=2)
    result.stdout.fnmatch_lines(
        [
            "gate failed: undecided at 40 seeds: mean reward 0.90, but its one-sided 95% lower bound 0.79 is "
            "below min_reward 0.85; about 210 seeds would decide*",
            "gate failed: latency_ms 195.00 over 40 seeds is above the limit 194*",
        ]
    )
