from __future__ import annotations

import random

import pytest

from pytest_synth.gates import GateRule, Observation, judge, parse_metrics

AT_80 = GateRule(min_reward=0.8)


def rewards(
    *values: float | None, first: int = 0, reason: str = "task app answered 500"
) -> list[Observation]:
    return [
        Observation("test", first + n, 0, value, reason if value is None else None)
        for n, value in enumerate(values)
    ]


def test_gate_passes_and_says_mean_seeds_and_limit() -> None:
    verdict = judge(rewards(1.0, 1.0, 1.0, 0.5), AT_80)
    assert verdict.outcome == "passed"
    assert verdict.text == "gate passed: mean reward 0.88 over 4 seeds, min_reward 0.80"
    assert (verdict.mean, verdict.n_seeds, verdict.n_asked, verdict.n_missing) == (0.875, 4, 4, 0)


def test_gate_fails_below_the_limit_and_names_the_lowest_seeds() -> None:
    verdict = judge(rewards(1.0, 0.0, 1.0, 0.1, 1.0, 0.62), AT_80)
    assert verdict.outcome == "failed"
    assert verdict.text == (
        "gate failed: mean reward 0.62 over 6 seeds is below min_reward 0.80; "
        "lowest: seed 1 0.00, seed 3 0.10, seed 5 0.62"
    )


def test_missing_seeds_make_the_gate_incomplete_with_their_reasons() -> None:
    seeds = rewards(*[1.0] * 20)
    seeds[3] = Observation("test", 3, 0, None, "task app answered 500")
    seeds[11] = Observation("test", 11, 0, None, "no answer within 30 s")
    verdict = judge(seeds, AT_80)
    assert verdict.outcome == "incomplete"
    assert verdict.text == (
        "gate incomplete: 2 of 20 seeds have no reward (3: task app answered 500; 11: no answer within 30 s)"
    )
    assert verdict.mean is None
    assert verdict.details == ("mean reward of the 18 other seeds: 1.00",)


def test_only_reason_is_told_in_full_and_one_of_several_is_shortened() -> None:
    long = "the provider has no key: " + "set it, " * 20
    alone = judge([Observation(None, 1, 0, None, long)], AT_80)
    assert long.strip() in alone.text
    both = judge([Observation(None, 1, 0, None, long), Observation(None, 2, 0, None, "other")], AT_80)
    assert long.strip() not in both.text


def test_missing_seeds_are_incomplete_even_where_the_others_are_far_below_the_limit() -> None:
    assert judge(rewards(0.0, None, 0.0), AT_80).outcome == "incomplete"


def test_equal_reasons_are_grouped_and_runs_of_seeds_are_shortened() -> None:
    verdict = judge(rewards(*[None] * 7, 1.0, None), AT_80)
    assert verdict.text == "gate incomplete: 8 of 9 seeds have no reward (0-6, 8: task app answered 500)"


def test_the_text_stays_short_with_many_seeds_and_reasons() -> None:
    seeds = [Observation(None, 2 * n, 0, None, f"reason {n}\n" + "x" * 500) for n in range(300)]
    text = judge(seeds, AT_80).text
    assert len(text) < 700
    assert "\n" not in text
    assert text.endswith("; and 296 other reasons)")


def test_a_reason_cannot_act_on_the_terminal() -> None:
    text = judge([Observation(None, 1, 0, None, "\x1b[2J\x07 gone")], AT_80).text
    assert text == r"gate incomplete: 1 of 1 seed has no reward (1: \x1b[2J\x07 gone)"


def test_allow_missing_lets_the_mean_of_the_others_decide_and_says_so() -> None:
    seeds = rewards(1.0, None, 0.9)
    rule = GateRule(min_reward=0.8, allow_missing=1)
    verdict = judge(seeds, rule)
    assert verdict.outcome == "passed"
    assert verdict.text == (
        "gate passed: mean reward 0.95 over 2 seeds, min_reward 0.80 "
        "(1 of 3 seeds without a reward, 1 allowed)"
    )
    assert (verdict.n_seeds, verdict.n_asked, verdict.n_missing) == (2, 3, 1)


def test_one_more_missing_than_allowed_is_incomplete() -> None:
    verdict = judge(rewards(1.0, None, None), GateRule(min_reward=0.8, allow_missing=1))
    assert verdict.outcome == "incomplete"
    assert verdict.text.endswith("; allow_missing is 1")


@pytest.mark.parametrize("allowed", [0, 5], ids=["none allowed", "all allowed"])
def test_a_gate_without_any_reward_is_never_passed(allowed: int) -> None:
    assert judge(rewards(None, None), GateRule(min_reward=0.0, allow_missing=allowed)).outcome == "incomplete"


def test_no_seed_at_all_is_incomplete() -> None:
    verdict = judge([], GateRule(min_reward=0.0))
    assert verdict.outcome == "incomplete"
    assert verdict.text == "gate incomplete: no seed was run; a gate that checked nothing is never passed"


def test_without_a_criterion_the_rewards_are_told_and_missing_ones_still_count() -> None:
    assert judge(rewards(0.2, 0.4), GateRule()).text == ("no criterion: mean reward 0.30 over 2 seeds")
    assert judge(rewards(0.2, None), GateRule()).outcome == "incomplete"


@pytest.mark.parametrize(
    ("values", "limit", "outcome"),
    [
        pytest.param([1.0] * 7 + [0.0] * 3, 0.7, "passed", id="7 of 10 at 0.7"),
        pytest.param([0.1] * 10, 0.1, "passed", id="ten times 0.1 at 0.1"),
        pytest.param([1.0] * 5 + [0.0], 5 / 6, "passed", id="5 of 6 at the float above it"),
        pytest.param([1 / 3] * 3, 1 / 3, "passed", id="thirds"),
        pytest.param([0.1 + 0.2 - 0.2], 0.1, "passed", id="computed 0.1"),
        pytest.param([1 - 0.9], 0.1, "passed", id="computed 0.1 that is a little below"),
        pytest.param([1.0] * 6999 + [0.0] * 3001, 0.7, "failed", id="one seed of 10,000 short"),
        pytest.param([0.0], 0.0, "passed", id="zero at zero"),
        pytest.param([1.0] * 3, 1.0, "passed", id="all at one"),
        pytest.param([1.0] * 2 + [0.999999], 1.0, "failed", id="a little below one"),
    ],
)
def test_the_edge_of_the_limit_is_exact(values: list[float], limit: float, outcome: str) -> None:
    assert judge(rewards(*values), GateRule(min_reward=limit)).outcome == outcome


def test_a_mean_just_below_the_limit_is_shown_with_the_digits_that_tell() -> None:
    text = judge(rewards(*[1.0] * 7999, *[0.0] * 2001), AT_80).text
    assert "mean reward 0.7999 over 10,000 seeds is below min_reward 0.80;" in text


def test_no_more_digits_are_shown_than_tell() -> None:
    text = judge(rewards(1.0, 1.0, 0.0), GateRule(min_reward=0.67)).text
    assert "mean reward 0.667 over 3 seeds is below min_reward 0.67;" in text


def test_a_limit_is_shown_as_it_was_written() -> None:
    assert "is below min_reward 0.925;" in judge(rewards(0.9), GateRule(min_reward=0.925)).text


def test_a_seed_with_one_missing_sample_is_missing() -> None:
    seeds = [
        Observation("test", 1, 0, 1.0),
        Observation("test", 1, 1, None, "no answer within 30 s"),
        Observation("test", 2, 0, 1.0),
        Observation("test", 2, 1, 1.0),
    ]
    verdict = judge(seeds, AT_80)
    assert verdict.text == "gate incomplete: 1 of 2 seeds has no reward (1: no answer within 30 s)"


def test_a_seed_with_fewer_samples_than_the_others_is_missing() -> None:
    seeds = [Observation("test", 1, 0, 1.0), Observation("test", 1, 1, 1.0), Observation("test", 2, 0, 1.0)]
    assert judge(seeds, AT_80).text.endswith("(2: 1 of 2 samples were not reported)")


def test_the_mean_is_over_seeds_of_the_mean_over_samples() -> None:
    seeds = [Observation(None, seed, sample, value) for seed, sample, value in
             [(1, 0, 1.0), (1, 1, 0.0), (2, 0, 1.0), (2, 1, 1.0)]]  # fmt: skip
    assert judge(seeds, AT_80).mean == 0.75


@pytest.mark.parametrize("reward", [1.2, -0.1, float("nan"), float("inf")])
def test_what_lies_outside_0_to_1_is_no_reward(reward: float) -> None:
    verdict = judge([Observation(None, 5, 0, reward)], GateRule(min_reward=0.0))
    assert verdict.outcome == "incomplete"
    assert f"5: reward is {reward!r}" in verdict.text


def test_a_reward_with_a_reason_against_it_does_not_count() -> None:
    verdict = judge([Observation(None, 5, 0, 1.0, "prompt not applied")], GateRule(min_reward=0.0))
    assert verdict.text == "gate incomplete: 1 of 1 seed has no reward (5: prompt not applied)"


def test_seeds_of_two_splits_are_different_seeds_and_are_named_with_their_split() -> None:
    verdict = judge([Observation("train", 1, 0, 0.0), Observation("test", 1, 0, 0.5)], AT_80)
    assert verdict.n_asked == 2
    assert verdict.text.endswith("lowest: seed train/1 0.00, seed test/1 0.50")


def test_the_same_rollout_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="split 'test', seed 0, sample 0 was observed twice"):
        judge(rewards(1.0) + rewards(1.0), AT_80)


def test_the_verdict_does_not_depend_on_the_order_of_the_observations() -> None:
    source = random.Random(4)
    seeds = rewards(*[source.random() for _ in range(500)])
    shuffled = source.sample(seeds, len(seeds))
    assert judge(shuffled, AT_80) == judge(seeds, AT_80)


def with_metrics(**metrics: float) -> Observation:
    return Observation(None, len(metrics), 0, 1.0, None, metrics)


def test_every_metric_must_hold() -> None:
    rule = GateRule(metrics=parse_metrics({"accuracy": 0.8, "latency_ms": ("<=", 900)}))
    verdict = judge([with_metrics(accuracy=0.9, latency_ms=950.0)], rule)
    assert verdict.outcome == "failed"
    assert verdict.text == "gate failed: latency_ms 950.00 over 1 seed is above the limit 900"
    assert "accuracy 0.90 over 1 seed, limit >= 0.8" in verdict.details


def test_a_metric_that_a_seed_lacks_makes_the_gate_incomplete() -> None:
    rule = GateRule(min_reward=0.5, metrics=parse_metrics({"accuracy": 0.8}))
    verdict = judge([with_metrics(acuracy=0.9), with_metrics(accuracy=0.9, speed=1.0)], rule)
    assert verdict.outcome == "incomplete"
    assert verdict.text == (
        "gate incomplete: 1 of 2 seeds has no metric 'accuracy' (1); "
        "the task app reports 'accuracy', 'acuracy', 'speed'"
    )


def test_a_failed_limit_wins_over_a_metric_that_could_not_be_checked() -> None:
    rule = GateRule(min_reward=0.5, metrics=parse_metrics({"accuracy": 0.8}))
    verdict = judge(rewards(0.1), rule)
    assert verdict.outcome == "failed"
    assert any("no metric 'accuracy'" in line for line in verdict.details)
