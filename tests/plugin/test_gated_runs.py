"""A marked test from end to end: verdict, exit code, and what a user reads."""

from __future__ import annotations

import pytest


def test_gate_passes_when_the_mean_reaches_the_threshold(project: pytest.Pytester) -> None:
    project.makepyfile(
        """
        import pytest

        @pytest.mark.synth_eval(seeds=range(20), split="test", min_reward=0.8)
        def test_answers():
            ...
        """
    )
    result = project.runpytest("-p", "no:randomly")
    result.assert_outcomes(passed=1)
    assert result.ret == 0
    result.stdout.fnmatch_lines(
        [
            "synth: 1 eval; backend local, model offline/lexical, at most 16 rollouts at once",
            "*= synth evals =*",
            "*reward*min*seeds*per s*gate*",
            "*test_answers*0.80*0.80*20/20*passed",
            "1 eval: 1 passed; 20 rollouts; 0 tokens; cost *",
        ]
    )


def test_gate_fails_below_the_threshold_and_names_the_lowest_seeds(project: pytest.Pytester) -> None:
    project.makepyfile(
        """
        import pytest

        @pytest.mark.synth_eval(seeds=range(20), split="test", min_reward=0.81)
        def test_answers():
            raise RuntimeError("the body must not run")
        """
    )
    result = project.runpytest("-p", "no:randomly")
    result.assert_outcomes(failed=1)
    assert result.ret == 1
    result.stdout.fnmatch_lines(
        [
            "gate failed: mean reward 0.80 over 20 seeds is below min_reward 0.81; lowest: seed 0 0.00, *",
            "*seed *0: reward 0.00*",
            "*test_answers*0.80*0.81*20/20*failed",
        ]
    )
    result.stdout.no_fnmatch_line("*Traceback*")
    result.stdout.no_fnmatch_line("*plugin/run.py*")


def test_seed_without_a_reward_makes_the_gate_incomplete(project: pytest.Pytester) -> None:
    project.makepyfile(
        my_app="""
        from pytest_synth import task_app

        def run(row, llm):
            if row in (3, 11):
                raise ValueError(f"no answer for row {row}")
            return row

        app = task_app(rows={"test": list(range(20))}, run=run, score=lambda row, answer: 1.0)
        """,
        test_it="""
        import pytest

        @pytest.mark.synth_eval(seeds=range(20), min_reward=0.5)
        def test_answers(): ...

        @pytest.mark.synth_eval(seeds=range(20), min_reward=0.5, allow_missing=2)
        def test_two_may_be_missing(): ...
        """,
    )
    result = project.runpytest("-p", "no:randomly")
    result.assert_outcomes(failed=1, passed=1)
    assert result.ret == 1
    result.stdout.fnmatch_lines(
        [
            "gate incomplete: 2 of 20 seeds have no reward (*3: *ValueError: no answer for row 3*",
            "*18/20*incomplete",
            "*18/20*passed",
        ]
    )


def test_body_runs_after_the_gate_and_sees_the_result(project: pytest.Pytester) -> None:
    project.makepyfile(
        """
        import pytest

        @pytest.mark.synth_eval(seeds=range(20), min_reward=0.8)
        def test_gated(synth_result):
            assert synth_result.mean_reward == 0.8
            assert [row.seed for row in synth_result.rows] == list(range(20))

        @pytest.mark.synth_eval(seeds=range(5))
        def test_criterion_of_its_own(synth_result):
            assert [row.outcome_reward for row in synth_result.rows] == [0, 1, 1, 1, 1]

        @pytest.mark.synth_eval(seeds=range(5))
        def test_body_fails(synth_result):
            assert synth_result.mean_reward > 0.9
        """
    )
    result = project.runpytest("-p", "no:randomly")
    result.assert_outcomes(passed=2, failed=1)
    result.stdout.fnmatch_lines(["*assert 0.8 > 0.9*"])


def test_class_module_and_parameter_can_carry_the_marker(project: pytest.Pytester) -> None:
    project.makepyfile(
        test_module="""
        import pytest

        pytestmark = pytest.mark.synth_eval(seeds=range(20), min_reward=0.8)

        def test_of_the_module(): ...

        class TestThem:
            pytestmark = pytest.mark.synth_eval(seeds=[0, 5], min_reward=0.1)

            def test_of_the_class(self): ...

            @pytest.mark.synth_eval(seeds=[1], min_reward=1)
            def test_of_its_own(self): ...

        @pytest.mark.parametrize(
            "name",
            [
                pytest.param("good", marks=pytest.mark.synth_eval(seeds=[1, 2], min_reward=1)),
                pytest.param("bad", marks=pytest.mark.synth_eval(seeds=[0], min_reward=1)),
            ],
        )
        def test_of_a_parameter(name): ...
        """
    )
    result = project.runpytest("-p", "no:randomly", "-v")
    result.assert_outcomes(passed=3, failed=2)
    result.stdout.fnmatch_lines(
        [
            "*test_of_the_module PASSED*",
            "*test_of_the_class FAILED*",
            "*test_of_its_own PASSED*",
            "*test_of_a_parameter[[]good] PASSED*",
            "*test_of_a_parameter[[]bad] FAILED*",
        ]
    )


def test_doctest_of_a_marked_module_stays_a_doctest(project: pytest.Pytester) -> None:
    project.makepyfile(
        test_it="""
        '''
        >>> 1 + 1
        2
        '''
        import pytest
        pytestmark = pytest.mark.synth_eval(seeds=range(20), min_reward=0.8)
        def test_of_the_module(): ...
        """
    )
    result = project.runpytest("-p", "no:randomly", "--doctest-modules")
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(["synth: 1 eval; *"])


def test_fixture_synth_eval_runs_evals_that_a_marker_cannot_express(project: pytest.Pytester) -> None:
    project.makepyfile(
        """
        def test_two_halves(synth_eval):
            first, second = synth_eval(seeds=range(10)), synth_eval(seeds=range(10, 20), split="test")
            assert (first.mean_reward, second.mean_reward) == (0.8, 0.8)
            assert [row.seed for row in second.rows] == list(range(10, 20))
        """
    )
    result = project.runpytest("-p", "no:randomly")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["*call 1*10/10*", "*call 2*10/10*"])


def test_prompt_of_the_marker_is_applied_and_named(project: pytest.Pytester) -> None:
    project.makepyfile(
        my_app="""
        from pytest_synth import task_app

        SYSTEM = "Answer with one of the labels.\\n- red: warm fire\\n- blue: cold water"

        async def run(row, llm):
            reply = await llm.chat(
                [{"role": "system", "content": SYSTEM}, {"role": "user", "content": row}]
            )
            return reply.text

        app = task_app(rows={"test": ["fire", "water"]}, run=run, score=lambda row, answer: answer == "blue")
        """,
        test_it="""
        import pytest

        @pytest.mark.synth_eval(seeds=[0, 1], min_reward=0.5)
        def test_own_prompt(synth_result):
            assert synth_result.mean_reward == 0.5
            assert {row.prompt_source for row in synth_result.rows} == {"app"}

        @pytest.mark.synth_eval(seeds=[0, 1], min_reward=1, prompt="Labels:\\n- blue: fire, water\\n- red: x")
        def test_other_prompt(synth_result):
            assert synth_result.mean_reward == 1
            assert {row.prompt_source for row in synth_result.rows} == {"marker"}
            from pytest_synth import Prompt
            expected = Prompt.parse("Labels:\\n- blue: fire, water\\n- red: x").fingerprint
            assert {row.prompt_fingerprint for row in synth_result.rows} == {expected}
        """,
    )
    result = project.runpytest("-p", "no:randomly")
    result.assert_outcomes(passed=2)


def test_prompt_that_was_not_applied_is_never_green(project: pytest.Pytester) -> None:
    project.makepyfile(
        """
        import pytest

        @pytest.mark.synth_eval(seeds=[1, 2], min_reward=1, prompt="Answer yes.")
        def test_app_without_a_model_call(): ...
        """
    )
    result = project.runpytest("-p", "no:randomly")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["gate incomplete: 2 of 2 seeds have no reward (*prompt not applied*"])


def test_regression_that_is_expected_may_not_hide_a_run_that_measured_nothing(
    project: pytest.Pytester,
) -> None:
    project.makepyfile(
        """
        import pytest
        from pytest_synth import GateFailed

        @pytest.mark.xfail(strict=True, raises=GateFailed)
        @pytest.mark.synth_eval(seeds=range(20), min_reward=0.9)
        def test_too_low(): ...

        @pytest.mark.xfail(strict=True, raises=GateFailed)
        @pytest.mark.synth_eval(seeds=[1], min_reward=0.9, prompt="never applied")
        def test_not_measured(): ...
        """
    )
    result = project.runpytest("-p", "no:randomly")
    result.assert_outcomes(xfailed=1, failed=1)
