from __future__ import annotations

import json
from dataclasses import replace

import pytest

from pytest_synth.errors import ConfigError, MissingRewards
from pytest_synth.gates import Baseline, Conditions, GateRule, Observation, judge

RAN = Conditions(model="offline/lexical", prompt="3f9c2a81d0aa", scorer="s1", data="d1")
REMEDY = "run with --synth-update-baseline and review the change of the file"


def rewards(*values: float, split: str | None = "test", first: int = 0) -> list[Observation]:
    return [Observation(split, first + n, 0, value) for n, value in enumerate(values)]


def baseline(*values: float, split: str | None = "test") -> Baseline:
    return Baseline.of(rewards(*values, split=split), RAN)


def test_a_baseline_is_small_readable_text_with_a_line_for_each_seed() -> None:
    text = Baseline.of(rewards(1.0, 0.5, split="test") + rewards(0.0, split=None, first=7), RAN).to_text()
    assert text == (
        "{\n"
        ' "version": 1,\n'
        ' "model": "offline/lexical",\n'
        ' "prompt": "3f9c2a81d0aa",\n'
        ' "scorer": "s1",\n'
        ' "data": "d1",\n'
        ' "samples": 1,\n'
        ' "rewards": {\n'
        '  "": {\n'
        '   "7": 0\n'
        "  },\n"
        '  "test": {\n'
        '   "0": 1,\n'
        '   "1": 0.5\n'
        "  }\n"
        " }\n"
        "}\n"
    )


def test_what_is_written_is_read_again_exactly() -> None:
    stored = Baseline.of(rewards(1.0, 1 / 3, 0.1 + 0.2) + rewards(0.0, split=None), RAN)
    assert Baseline.from_text(stored.to_text()) == stored


def test_a_baseline_holds_the_mean_of_each_seeds_samples() -> None:
    samples = [Observation(None, 4, n, value) for n, value in enumerate((1.0, 0.0, 0.5))]
    stored = Baseline.of(samples, RAN)
    assert (stored.samples, stored.rewards) == (3, {(None, 4): 0.5})


def test_a_run_with_missing_seeds_is_never_stored() -> None:
    with pytest.raises(MissingRewards, match="no reward for seeds 9"):
        Baseline.of([*rewards(1.0), Observation("test", 9, 0, None, "lost")], RAN)
    with pytest.raises(ValueError, match="at least one seed"):
        Baseline.of([], RAN)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param({"version": 2}, "the baseline has version 2, not 1", id="version"),
        pytest.param(
            {"samples": 0}, "samples of the baseline is 0, not a whole number above 0", id="samples"
        ),
        pytest.param({"model": 4}, "model of the baseline is 4, not a text", id="model"),
        pytest.param({"note": "x"}, "the baseline has unknown keys ['note']", id="unknown key"),
        pytest.param({"rewards": {}}, "rewards of the baseline holds no seeds", id="no seeds"),
        pytest.param({"rewards": {"test": [1]}}, "rewards['test'] of the baseline is [1]", id="list"),
        pytest.param(
            {"rewards": {"test": {"7": 1.2}}},
            "the baseline cannot be read: rewards['test']['7'] is 1.2, outside [0, 1]",
            id="reward",
        ),
        pytest.param(
            {"rewards": {"test": {"07": 1}}},
            "rewards['test']['07'] of the baseline: '07' is not the number of a seed",
            id="seed",
        ),
    ],
)
def test_a_baseline_that_was_changed_by_hand_into_nonsense_is_refused(
    change: dict[str, object], message: str
) -> None:
    document = json.loads(baseline(1.0, 0.5).to_text()) | change
    with pytest.raises(ConfigError) as caught:
        Baseline.from_text(json.dumps(document))
    assert str(caught.value) == f"{message}; {REMEDY}" or str(caught.value).startswith(message)
    assert str(caught.value).endswith(REMEDY)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("<<<<<<< HEAD\n{}", "the baseline is not JSON", id="merge conflict"),
        pytest.param("[" * 100_000, "the baseline is not JSON", id="nested too deep"),
        pytest.param(f'{{"version": {"1" * 5000}}}', "the baseline is not JSON", id="number of 5,000 digits"),
        pytest.param(
            f'{{"version": 1, "samples": 1, "rewards": {{"test": {{"{"1" * 5000}": 1}}}}}}',
            "rewards['test']['1111",
            id="seed of 5,000 digits",
        ),
        pytest.param("[]", "the baseline is list, not an object", id="list"),
        pytest.param(
            '{"version": 1, "samples": 1, "rewards": {"test": {"7": 1, "7": 0}}}',
            "the baseline has '7' twice",
            id="a seed twice",
        ),
    ],
)
def test_text_that_is_no_baseline_is_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Baseline.from_text(text)
    assert str(caught.value).startswith(message)
    assert str(caught.value).endswith(REMEDY)


NOT_BELOW = GateRule(max_regression=0.1)


@pytest.mark.parametrize(
    ("before", "now", "margin", "outcome"),
    [
        pytest.param([0.8], [0.7], 0.1, "passed", id="0.8 less 0.1"),
        pytest.param([0.9] * 3, [0.85] * 3, 0.05, "passed", id="0.9 less 0.05"),
        pytest.param([1.0] * 10, [1.0] * 9 + [0.0], 0.1, "passed", id="one seed of ten"),
        pytest.param([1.0] * 10, [1.0] * 8 + [0.0] * 2, 0.1, "failed", id="two seeds of ten"),
        pytest.param([0.8], [0.6999], 0.1, "failed", id="a little more"),
        pytest.param([0.5], [1.0], 0.1, "passed", id="better"),
    ],
)
def test_the_edge_of_the_margin_is_exact(
    before: list[float], now: list[float], margin: float, outcome: str
) -> None:
    verdict = judge(rewards(*now), GateRule(max_regression=margin), baseline=baseline(*before))
    assert verdict.outcome == outcome


def test_a_regression_fails_with_its_size_and_names_the_seeds_that_changed() -> None:
    before = [1.0] * 8 + [0.0] * 2
    now = [1.0] * 4 + [0.0] * 4 + [0.0, 1.0]
    verdict = judge(rewards(*now), NOT_BELOW, baseline=baseline(*before), conditions=RAN)
    assert verdict.outcome == "failed"
    assert verdict.text.startswith(
        "gate failed: mean reward 0.50 is 0.30 below the baseline's 0.80 over the same 10 seeds, "
        "more than max_regression 0.10; lowest: seed 4 0.00"
    )
    assert "newly failing: 4 seeds (4-7)" in verdict.details
    assert "newly fixed: 1 seed (9)" in verdict.details
    assert verdict.comparison is not None
    assert [change.seed for change in verdict.comparison.newly_failing] == [4, 5, 6, 7]


def test_graded_drops_that_cross_no_mark_are_named_largest_first() -> None:
    verdict = judge(rewards(0.9, 0.6, 0.8), GateRule(max_regression=0.05), baseline=baseline(1.0, 1.0, 0.8))
    assert "largest drops: seed 1 1.00 -> 0.60, seed 0 1.00 -> 0.90" in verdict.details


def test_a_small_drop_passes_and_says_so() -> None:
    verdict = judge(rewards(1.0, 0.9), NOT_BELOW, baseline=baseline(1.0, 1.0), conditions=RAN)
    assert verdict.text == (
        "gate passed: mean reward 0.95 against the baseline's 1.00 over the same 2 seeds, "
        "difference -0.05, max_regression 0.10"
    )


def test_no_baseline_is_red_with_the_remedy() -> None:
    verdict = judge(rewards(1.0), GateRule(min_reward=0.5, max_regression=0.1))
    assert verdict.outcome == "incomplete"
    assert verdict.text == (
        "gate incomplete: no baseline to compare with; run with --synth-update-baseline and commit the file"
    )
    assert "mean reward 1.00 over 1 seed, min_reward 0.50" in verdict.details


def test_a_low_mean_fails_also_without_a_baseline() -> None:
    assert judge(rewards(0.1), GateRule(min_reward=0.5, max_regression=0.1)).outcome == "failed"


@pytest.mark.parametrize(
    ("now", "conditions", "reason"),
    [
        pytest.param(
            rewards(1.0, 1.0), replace(RAN, model="openai/gpt-4.1-nano"),
            "model was 'offline/lexical' and is 'openai/gpt-4.1-nano'", id="model",
        ),
        pytest.param(rewards(1.0, 1.0), replace(RAN, scorer="s2"), "scorer was 's1' and is 's2'", id="score"),
        pytest.param(rewards(1.0, 1.0), replace(RAN, data="d2"), "data was 'd1' and is 'd2'", id="data"),
        pytest.param(rewards(1.0, 1.0, 1.0), RAN, "1 seed not in it (2)", id="more seeds"),
        pytest.param(rewards(1.0), RAN, "1 seed of it not asked for (1)", id="fewer seeds"),
        pytest.param(
            rewards(1.0, 1.0, split="train"), RAN,
            "2 seeds not in it (0, 1), 2 seeds of it not asked for (0, 1)", id="other split",
        ),
        pytest.param(
            [Observation("test", seed, n, 1.0) for seed in (0, 1) for n in (0, 1)], RAN,
            "samples was 1 and is 2", id="samples",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_compared_is_refused_with_the_reason(
    now: list[Observation], conditions: Conditions, reason: str
) -> None:
    verdict = judge(now, NOT_BELOW, baseline=baseline(1.0, 1.0), conditions=conditions)
    assert verdict.outcome == "incomplete"
    assert verdict.text == f"gate incomplete: the baseline cannot be compared: {reason}; {REMEDY}"


def test_another_prompt_is_what_a_baseline_is_compared_with() -> None:
    verdict = judge(
        rewards(1.0), NOT_BELOW, baseline=baseline(1.0), conditions=replace(RAN, prompt="000000000000")
    )
    assert verdict.outcome == "passed"


def test_allowed_missing_seeds_are_left_out_of_both_sides() -> None:
    now = [*rewards(1.0), Observation("test", 1, 0, None, "lost")]
    verdict = judge(now, GateRule(max_regression=0.1, allow_missing=1), baseline=baseline(1.0, 0.0))
    assert verdict.outcome == "passed"
    assert verdict.comparison is not None
    assert verdict.comparison.baseline_mean == 1.0


def test_the_run_that_makes_the_baseline_is_held_against_the_other_criteria_only() -> None:
    rule = GateRule(min_reward=0.8, rule="not_worse", max_regression=0.1).without_baseline()
    assert (rule.rule, rule.max_regression, rule.min_reward) == ("mean", None, 0.8)
    assert judge(rewards(0.9), rule).outcome == "passed"
