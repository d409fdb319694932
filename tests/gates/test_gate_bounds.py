from __future__ import annotations

from pytest_synth.gates import Baseline, Conditions, GateRule, Observation, judge


def binary(n: int, failing: int) -> list[Observation]:
    return [Observation(None, seed, 0, float(seed >= failing)) for seed in range(n)]


LOWER = GateRule(min_reward=0.8, rule="lower_bound")


def test_lower_bound_passes_where_the_bound_clears_the_limit() -> None:
    verdict = judge(binary(200, 20), LOWER)
    assert verdict.text == (
        "gate passed: mean reward 0.90 over 200 seeds, one-sided 95% lower bound 0.86, min_reward 0.80"
    )
    assert verdict.lower_bound is not None
    assert round(verdict.lower_bound, 4) == 0.8580  # scipy.stats.beta.ppf(0.05, 180, 21)


def test_lower_bound_is_undecided_with_too_few_seeds_and_says_how_many_would_do() -> None:
    verdict = judge(binary(40, 5), LOWER)
    assert verdict.outcome == "failed"
    assert verdict.text == (
        "gate failed: undecided at 40 seeds: mean reward 0.88, but its one-sided 95% lower bound 0.75 "
        "is below min_reward 0.80; about 110 seeds would decide; "
        "lowest: seed 0 0.00, seed 1 0.00, seed 2 0.00, seed 3 0.00, seed 4 0.00"
    )


def test_about_as_many_seeds_as_said_do_decide() -> None:
    assert judge(binary(112, 14), LOWER).passed


def test_lower_bound_with_a_mean_below_the_limit_is_not_called_undecided() -> None:
    text = judge(binary(40, 12), LOWER).text
    assert text.startswith(
        "gate failed: mean reward 0.70 over 40 seeds is below min_reward 0.80 "
        "(one-sided 95% lower bound 0.56); lowest:"
    )


def test_a_mean_at_the_limit_is_never_decided() -> None:
    assert (
        "; the mean is at the limit, where no number of seeds would decide"
        in judge(binary(40, 8), LOWER).text
    )


def test_a_mean_hardly_above_the_limit_would_take_too_many_seeds() -> None:
    assert (
        "; it would take more than 100,000 seeds to decide"
        in judge(binary(1000, 199), GateRule(min_reward=0.8, rule="lower_bound")).text
    )


def test_every_verdict_tells_interval_method_and_what_it_can_see() -> None:
    details = judge(binary(40, 10), GateRule(min_reward=0.5)).details
    assert details == (
        "95% interval of the mean 0.59 to 0.87 (Clopper-Pearson, two-sided); standard error by seed 0.07",
        "these 40 seeds can only see drops of 0.17 or more (one-sided 95%, in 4 of 5 runs)",
    )


def baseline(observations: list[Observation]) -> Baseline:
    return Baseline.of(observations, Conditions())


def test_not_worse_passes_with_seeds_enough_and_holds_a_bound_against_the_margin() -> None:
    rule = GateRule(rule="not_worse", max_regression=0.05)
    verdict = judge(binary(400, 40), rule, baseline=baseline(binary(400, 40)))
    assert verdict.text == (
        "gate passed: mean reward 0.90 against the baseline's 0.90 over the same 400 seeds, difference 0.00, "
        "one-sided 95% lower bound -0.01, max_regression 0.05"
    )


def test_not_worse_is_undecided_with_few_seeds_even_where_nothing_changed() -> None:
    rule = GateRule(rule="not_worse", max_regression=0.05)
    verdict = judge(binary(40, 4), rule, baseline=baseline(binary(40, 4)))
    assert verdict.outcome == "failed"
    assert verdict.text.startswith(
        "gate failed: undecided at 40 seeds: difference to the baseline 0.00, "
        "but its one-sided 95% lower bound "
    )
    assert "is below -0.05 (max_regression 0.05); about " in verdict.text


def test_not_worse_fails_on_a_drop_beyond_the_margin_and_names_it() -> None:
    rule = GateRule(rule="not_worse", max_regression=0.05)
    text = judge(binary(100, 30), rule, baseline=baseline(binary(100, 10))).text
    assert text.startswith(
        "gate failed: mean reward 0.70 is 0.20 below the baseline's 0.90 over the same 100 seeds, "
        "more than max_regression 0.05 (one-sided 95% lower bound -0."
    )


def test_min_reward_beside_not_worse_is_held_against_the_mean() -> None:
    rule = GateRule(rule="not_worse", max_regression=0.5, min_reward=0.95)
    verdict = judge(binary(100, 10), rule, baseline=baseline(binary(100, 10)))
    assert verdict.text.startswith("gate failed: mean reward 0.90 over 100 seeds is below min_reward 0.95;")
    assert any(line.startswith("mean reward 0.90 against the baseline's 0.90") for line in verdict.details)


def test_what_paired_seeds_can_see_is_told_from_their_differences() -> None:
    verdict = judge(binary(100, 10), GateRule(max_regression=0.1), baseline=baseline(binary(100, 10)))
    assert (
        "these 100 seeds, paired with the baseline, can only see drops of 0.02 or more "
        "(one-sided 95%, in 4 of 5 runs)" in verdict.details
    )


def test_sorted_data_and_shuffled_seed_numbers_give_the_same_kind_of_bound() -> None:
    # Rows sorted by label: all good seeds come first. In that order the bets would win early and big.
    values = [0.9] * 50 + [0.1] * 50
    rule = GateRule(min_reward=0.3, rule="lower_bound")
    verdict = judge([Observation(None, n, 0, v) for n, v in enumerate(values)], rule)
    assert verdict.lower_bound is not None
    assert 0.3 < verdict.lower_bound < 0.45
