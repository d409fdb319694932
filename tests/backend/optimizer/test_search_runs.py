"""Whole searches, checked by what must hold for all of them."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from fakes.optimizer_host import (
    Latency,
    SimulatedHost,
    heavy_tail,
    identity_of,
    make_config,
    run_search,
    steady,
)
from fakes.rule_world import RuleReflection, World, chance, rules_in, write_prompt

from pytest_synth.backend.optimizer.config import GepaConfig, PipelineConfig
from pytest_synth.backend.optimizer.outcome import OptimizationOutcome
from pytest_synth.backend.optimizer.ports import ReflectionRequest, RolloutOutcome, RolloutRequest
from pytest_synth.prompts import Message, Prompt

SHAPES: dict[str, dict[str, Any]] = {
    "one-by-one": {"children_per_generation": 1},
    "generations-of-3": {},
    "generations-of-8": {"children_per_generation": 8, "minibatch_size": 8},
    "window-3": {"pipeline": PipelineConfig("window", 3)},
    "window-16": {"pipeline": PipelineConfig("window", 16), "children_per_generation": 4},
    "population": {"initial_size": 4, "num_generations": 3, "minibatch_size": 8, "archive_size": 5},
    "population-in-a-window": {"initial_size": 6, "pipeline": PipelineConfig("window", 4)},
    "minibatches-of-1": {"minibatch_size": 1},
    "minibatches-of-all": {"minibatch_size": 40},
    "nothing-reused": {"reuse_known": False, "initial_size": 3},
    "nothing-reused-in-a-window": {"reuse_known": False, "pipeline": PipelineConfig("window", 5)},
}
TIMINGS: list[tuple[Latency, int, float]] = [
    (steady(0.1), 8, 0.0),
    (heavy_tail(0.1), 8, 0.5),
    (heavy_tail(0.1), 64, 5.0),
    (heavy_tail(0.1), 1, 0.1),
]


def search(config: GepaConfig, **settings: Any) -> tuple[OptimizationOutcome, SimulatedHost]:
    host = SimulatedHost(settings.pop("world"), **settings)
    return run_search(config, host), host


@pytest.mark.parametrize("budget", [43, 83, 237])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_result_does_not_depend_on_timing_and_the_budget_holds(shape: str, budget: int) -> None:
    world = World(budget)
    results = []
    for latency, slots, reflection_s in TIMINGS:
        config = make_config(world, budget=budget, max_concurrent=slots, **SHAPES[shape])
        outcome, host = search(config, world=world, latency=latency, reflection_s=reflection_s)
        results.append(identity_of(outcome))
        assert len(host.sent) == outcome.usage.rollouts == outcome.usage.sent <= budget
        assert host.most_in_flight <= slots
        assert outcome.usage.unfinished == 0

    assert results[1:] == results[:-1]


@pytest.mark.parametrize("shape", SHAPES)
def test_rewards_and_failures_that_follow_from_the_rollout_do_not_break_the_promises(shape: str) -> None:
    def fails(request: RolloutRequest) -> RolloutOutcome | None:
        place = chance("fails", request.key.fingerprint, request.key.seed)
        if place < 0.08:
            return RolloutOutcome(None, error="upstream is down", error_kind="infrastructure")
        return RolloutOutcome(None, error="500", error_kind="rollout") if place < 0.14 else None

    world, results = World(5, mode="binary", noise=0.1), []
    for latency, slots, reflection_s in TIMINGS:
        config = make_config(world, budget=150, max_concurrent=slots, max_failures=99, **SHAPES[shape])
        outcome, host = search(config, world=world, latency=latency, reflection_s=reflection_s, fails=fails)
        results.append((outcome.candidates, outcome.attempts, outcome.best))
        assert len(host.sent) == outcome.usage.sent <= sum(outcome.usage.by_purpose.values()) <= 150
        assert host.most_in_flight <= slots

    assert results[1:] == results[:-1]


def test_no_rollout_is_paid_twice_when_known_ones_are_reused() -> None:
    _, host = search(make_config(World(3), budget=300, initial_size=3), world=World(3))

    keys = [request.key for request in host.sent]
    assert len(keys) == len(set(keys))
    assert {key.sample for key in keys} == {0}


def test_each_use_of_a_pair_is_a_rollout_of_its_own_when_nothing_is_reused() -> None:
    config = make_config(World(3), budget=300, minibatch_size=20, reuse_known=False)
    _, host = search(config, world=World(3))

    pairs = Counter((request.key.fingerprint, request.key.seed) for request in host.sent)
    assert len({request.key for request in host.sent}) == len(host.sent)
    assert max(pairs.values()) > 1


def test_validation_seeds_are_seen_by_the_final_check_alone() -> None:
    config = make_config(World(1), initial_size=3, budget=150)
    outcome, host = search(config, world=World(1))

    held_out = set(config.validation_seeds)
    for request in host.sent:
        assert (request.key.seed in held_out) == (request.purpose == "final_check")
    used = {request.prompt for request in host.sent if request.purpose == "final_check"}
    assert outcome.best is not None
    assert used == {config.prompt, outcome.best.prompt}
    assert not any(f"query {seed}" in question.text for question in host.asked for seed in held_out)


def test_a_search_finds_a_better_prompt_and_says_so_with_held_out_rewards() -> None:
    world = World(2, conflicts=0)
    config = make_config(world, budget=600)
    outcome, _ = search(config, world=world, reflection=RuleReflection(skill=1.0, slips=False))

    assert outcome.best is not None
    assert outcome.best.rank == 1
    baseline, best = outcome.held_out
    assert (baseline.rank, best.rank) == (None, 1)
    assert baseline.reward is not None
    assert best.reward is not None
    assert best.reward > baseline.reward + 0.3
    assert world.true_reward(outcome.best.prompt.system or "") > world.true_reward(world.baseline) + 0.3


def test_the_lineage_leads_back_to_the_baseline() -> None:
    outcome, _ = search(make_config(World(4), budget=400), world=World(4))

    by_id = {candidate.id: candidate for candidate in outcome.candidates}
    for candidate in outcome.candidates:
        while candidate.parent_id is not None:
            parent = by_id[candidate.parent_id]
            assert parent.generation < max(candidate.generation, 1)
            candidate = parent
        assert candidate.id == "baseline"
    accepted = [attempt for attempt in outcome.attempts if attempt.fate == "accepted"]
    assert len(accepted) == len(outcome.candidates) - 1
    for attempt in accepted:
        assert attempt.after is not None
        assert attempt.before is not None
        assert attempt.after > attempt.before
    assert all(attempt.reason for attempt in outcome.attempts if attempt.fate != "accepted")


def test_candidates_are_ranked_by_their_pareto_rewards() -> None:
    outcome, _ = search(make_config(World(4), budget=400), world=World(4))

    assert [candidate.rank for candidate in outcome.candidates] == list(range(1, len(outcome.candidates) + 1))
    rewards = [candidate.reward for candidate in outcome.candidates]
    assert rewards == sorted(rewards, reverse=True)
    for candidate in outcome.candidates:
        assert len(candidate.rewards) == 10
        assert candidate.reward == pytest.approx(sum(r or 0 for r in candidate.rewards.values()) / 10)
    best_on = {
        max(outcome.candidates, key=lambda c, seed=seed: (c.rewards[seed] or 0, -c.rank)).id  # type: ignore[misc]
        for seed in outcome.candidates[0].rewards
    }
    assert best_on <= {candidate.id for candidate in outcome.candidates if candidate.is_on_front}


def test_founders_enter_without_a_gate_and_cost_little_more_than_the_pareto_set() -> None:
    config = make_config(World(6), budget=80, initial_size=4, minibatch_size=8)
    outcome, host = search(config, world=World(6))

    founders = [attempt for attempt in outcome.attempts if attempt.generation == 0]
    assert [attempt.fate for attempt in founders] == ["accepted"] * 3
    assert {attempt.parent_id for attempt in founders} == {"baseline"}
    assert outcome.usage.by_purpose["population"] == 39
    paid = Counter(r.prompt.fingerprint for r in host.sent if r.purpose == "population")
    assert sorted(paid.values()) == [9, 10, 10, 10]
    lessons = [seed for attempt in founders for seed in attempt.lessons]
    assert len(set(lessons)) == 9


def test_no_child_learns_from_the_seeds_that_score_it() -> None:
    config = make_config(World(6), budget=300, initial_size=4, minibatch_size=8)
    outcome, _ = search(config, world=World(6))

    pareto = set(outcome.candidates[0].rewards)
    assert {seed for attempt in outcome.attempts for seed in attempt.lessons} & pareto == set()
    judged_on_pareto = [a for a in outcome.attempts if a.generation and set(a.gate) <= pareto]
    assert 0 < len(judged_on_pareto) < len(outcome.attempts) / 2


@pytest.mark.parametrize(
    ("pipeline", "is_literal"),
    [(PipelineConfig(), True), (PipelineConfig("window", 2), False)],
    ids=["generations", "window"],
)
def test_a_generation_sees_all_of_the_one_before_and_nothing_of_itself(
    pipeline: PipelineConfig, is_literal: bool
) -> None:
    config = make_config(
        World(7), budget=None, num_generations=5, children_per_generation=6, pipeline=pipeline
    )
    outcome, _ = search(config, world=World(7))

    generations = {candidate.id: candidate.generation for candidate in outcome.candidates}
    own = [a for a in outcome.attempts if generations[a.parent_id] == a.generation]
    assert (own == []) == is_literal
    assert outcome.finish_reason == "generations"
    assert len(outcome.attempts) == 30


def test_parents_come_from_the_best_of_the_archive() -> None:
    config = make_config(World(8), budget=400, archive_size=1, children_per_generation=1)
    outcome, _ = search(config, world=World(8))

    rewards = {candidate.id: candidate.reward for candidate in outcome.candidates}
    pool = ["baseline"]
    for attempt in outcome.attempts:
        assert rewards[attempt.parent_id] == max(rewards[member] for member in pool)
        if attempt.fate == "accepted":
            pool.append(attempt.id)


def test_messages_are_rewritten_one_by_one_and_wildcards_stay() -> None:
    world = World(9)
    prompt = Prompt((Message("system", world.baseline), Message("user", "Query: {query}")))
    config = make_config(
        world, prompt=prompt, budget=200, mutation_rate=0.0, required_wildcards=frozenset({"query"})
    )

    def answer(request: ReflectionRequest) -> str:
        text = RuleReflection(skill=1.0).answer(request.text, request.key.child)
        kept = text.replace("\n```", "\n{query}\n```") if request.component == "1:user" else text
        return kept if request.key.child % 2 else text

    outcome, host = search(config, world=world, answers=answer)

    rewritten = {attempt.components for attempt in outcome.attempts}
    assert rewritten == {("0:system",), ("1:user",)}
    assert all("{query}" in candidate.prompt.messages[1].pattern for candidate in outcome.candidates)
    assert all("{query}" in request.prompt.messages[1].pattern for request in host.sent)
    lost = [a for a in outcome.attempts if "it lost {query}" in a.reason]
    assert lost
    assert {attempt.fate for attempt in lost} == {"no_proposal"}
    assert any(attempt.fate == "accepted" for attempt in outcome.attempts if "1:user" in attempt.components)


def test_a_prompt_that_is_in_the_pool_already_is_dropped() -> None:
    world = World(10, conflicts=0)
    same = write_prompt(list(range(0, 40, 2)))
    config = make_config(world, budget=200, num_generations=2)
    outcome, host = search(config, world=world, answers=lambda request: f"```\n{same}\n```")

    assert [attempt.fate for attempt in outcome.attempts].count("accepted") == 1
    assert [candidate.prompt.system for candidate in outcome.candidates].count(same) == 1
    first, second = outcome.attempts[1:3], outcome.attempts[3:]
    assert {attempt.reason for attempt in first} == {"another child proposed the same prompt"}
    assert {attempt.fate for attempt in second} == {"no_proposal"}
    assert any("that is known already" in attempt.reason for attempt in second)
    assert sum(1 for request in host.asked if request.is_repair) >= 1


def test_with_several_checked_candidates_the_best_on_held_out_seeds_wins() -> None:
    config = make_config(World(11), budget=400, validation_top_k=3)
    outcome, _ = search(config, world=World(11))

    assert [entry.rank for entry in outcome.held_out] == [None, 1, 2, 3]
    best = max(outcome.held_out[1:], key=lambda entry: (entry.reward or 0, -(entry.rank or 0)))
    assert outcome.best is not None
    assert outcome.best.id == best.candidate_id


@pytest.mark.parametrize("founders", [0, 1])
def test_the_baseline_stays_the_best_if_nothing_beats_it(founders: int) -> None:
    world = World(12)
    worse = write_prompt([1001])
    config = make_config(world, budget=100, initial_size=1 + founders)
    outcome, _ = search(config, world=world, answers=lambda request: f"```\n{worse}\n```")

    assert outcome.best is not None
    assert outcome.best.id == "baseline"
    assert len(outcome.candidates) == 1 + founders
    assert [entry.rank for entry in outcome.held_out] == [None, 2][: 1 + founders]


def test_other_seeds_of_the_random_streams_give_another_search() -> None:
    first, _ = search(make_config(World(13)), world=World(13))
    second, _ = search(make_config(World(13), rng_seed=1), world=World(13))

    assert identity_of(first) != identity_of(second)


def test_utilisation_and_waiting_add_up() -> None:
    config = make_config(World(14), budget=200)
    outcome, host = search(config, world=World(14), reflection_s=2.0)

    usage = outcome.usage
    assert usage.utilisation == pytest.approx(len(host.sent) * 0.1 / (8 * usage.wall_s))
    assert 0 < usage.reflection_wait_s < usage.wall_s
    assert usage.tokens == 10 * len(host.sent)
    assert usage.reflections == len(host.asked)


def test_the_best_known_prompt_of_the_world_is_perfect() -> None:
    world = World(0, conflicts=0)

    assert world.true_reward(world.best_prompt) == 1.0
    assert rules_in(world.best_prompt) == tuple(range(40))
    assert world.true_reward(world.baseline) < 0.5
