from __future__ import annotations

import random

import pytest

from pytest_synth.gates import NOT_RUN, GateRule, Observation, certain_to_fail, judge

AT_80 = GateRule(min_reward=0.8)


def rewards(*values: float | None, samples: int = 1) -> list[Observation]:
    return [
        Observation(None, n // samples, n % samples, value, None if value is not None else "lost")
        for n, value in enumerate(values)
    ]


@pytest.mark.parametrize(
    ("failed", "certain"),
    [pytest.param(2, False, id="2 of 10 may fail"), pytest.param(3, True, id="3 of 10 may not")],
)
def test_failure_is_certain_when_the_rest_cannot_make_up_for_it(failed: int, certain: bool) -> None:
    found = certain_to_fail(rewards(*[0.0] * failed), AT_80, seeds=10)
    assert (found is not None) is certain


def test_the_reason_says_the_most_that_is_possible() -> None:
    found = certain_to_fail(rewards(0.0, 0.5, 0.2), AT_80, seeds=10)
    assert found is not None
    assert (found.outcome, found.at_most) == ("failed", 0.77)
    assert found.text == "mean reward is at most 0.77 over 10 seeds, below min_reward 0.80"


def test_a_pass_is_never_certain() -> None:
    assert certain_to_fail(rewards(*[1.0] * 9), AT_80, seeds=10) is None


def test_without_min_reward_nothing_is_certain() -> None:
    assert certain_to_fail(rewards(0.0), GateRule(max_regression=0.1), seeds=2) is None


def test_more_missing_seeds_than_allowed_make_it_certain_too() -> None:
    assert certain_to_fail(rewards(1.0, None), GateRule(min_reward=0.5, allow_missing=1), seeds=9) is None
    found = certain_to_fail(rewards(None, 1.0, None), GateRule(min_reward=0.5, allow_missing=1), seeds=9)
    assert found is not None
    assert (found.outcome, found.text) == ("incomplete", "2 seeds have no reward, 1 allowed")


def test_a_seed_with_a_sample_outstanding_could_still_go_missing_where_that_is_allowed() -> None:
    # Seed 0 has one bad sample of two. If the other one is lost, the seed no longer counts.
    seen = rewards(0.0, samples=2)
    assert certain_to_fail(seen, GateRule(min_reward=0.9), seeds=2, samples=2) is not None
    assert certain_to_fail(seen, GateRule(min_reward=0.9, allow_missing=1), seeds=2, samples=2) is None


def end_early(full: list[Observation], rule: GateRule, seeds: int, samples: int) -> list[Observation]:
    """Run rollout by rollout, and stop when the verdict is certain."""
    for n in range(len(full) + 1):
        if certain_to_fail(full[:n], rule, seeds=seeds, samples=samples) is not None:
            return full[:n] + [Observation(o.split, o.seed, o.sample, None, NOT_RUN) for o in full[n:]]
    return full


def test_ending_early_never_turns_a_pass_into_a_failure_and_gives_the_same_outcome() -> None:
    source = random.Random(8)
    ended = 0
    for _ in range(3000):
        seeds, samples = source.randint(1, 12), source.choice([1, 1, 3])
        rule = GateRule(
            min_reward=source.choice([0.3, 0.5, 0.7, 0.8, 1.0]),
            rule=source.choice(["mean", "lower_bound"]),
            allow_missing=source.choice([0, 0, 1, 3]),
        )
        rate, lost = source.random(), source.choice([0.0, 0.0, 0.1])
        values: list[float | None] = [
            None
            if source.random() < lost
            else source.choice([float(source.random() < rate), source.random()])
            for _ in range(seeds * samples)
        ]
        full = rewards(*values, samples=samples)
        source.shuffle(full)
        early = judge(end_early(full, rule, seeds, samples), rule)
        late = judge(full, rule)
        assert early.passed == late.passed
        if early.n_not_run:
            ended += 1
            assert not late.passed
            if late.outcome == "failed" and early.at_most is not None:
                assert late.mean is not None
                assert late.mean <= early.at_most + 1e-9
    assert ended > 500


def test_the_verdict_of_a_run_that_was_ended_early_says_at_most_and_what_was_saved() -> None:
    full = rewards(0.0, 0.0, 0.0, *[1.0] * 7)
    verdict = judge(end_early(full, AT_80, 10, 1), AT_80)
    assert verdict.outcome == "failed"
    assert verdict.text == (
        "gate failed: mean reward is at most 0.70 over 10 seeds, below min_reward 0.80 "
        "(certain after 3 rollouts, 7 saved); lowest: seed 0 0.00, seed 1 0.00, seed 2 0.00"
    )
    assert (verdict.mean, verdict.at_most, verdict.n_not_run, verdict.n_missing) == (None, 0.7, 7, 0)


def test_a_run_ended_because_seeds_are_missing_is_incomplete_and_names_only_the_missing_ones() -> None:
    full = rewards(1.0, None, *[1.0] * 8)
    verdict = judge(end_early(full, AT_80, 10, 1), AT_80)
    assert verdict.text == (
        "gate incomplete: 1 of 10 seeds has no reward (1: lost); 8 seeds not run: the verdict was certain"
    )
    assert verdict.n_not_run == 8


def test_rollouts_that_were_spared_without_certainty_are_missing() -> None:
    verdict = judge([*rewards(1.0), Observation(None, 1, 0, None, NOT_RUN)], AT_80)
    assert verdict.outcome == "incomplete"
    assert verdict.text == "gate incomplete: 1 of 2 seeds has no reward (1: not run: verdict certain)"
