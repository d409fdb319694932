"""The events of a search: all that readers on the wire look for, in an order that can be relied on."""

from __future__ import annotations

import json
from collections import Counter
from itertools import pairwise
from typing import Any

import pytest
from fakes.optimizer_host import SimulatedHost, heavy_tail, make_config, run_search
from fakes.rule_world import RuleReflection, World

from pytest_synth.backend.optimizer.events import PREFIX, PROGRESS, estimated_reward
from pytest_synth.backend.optimizer.outcome import OptimizationOutcome
from pytest_synth.prompts import Message, Prompt

WORLD = World(2, conflicts=0)


def searched(**changes: Any) -> tuple[OptimizationOutcome, SimulatedHost]:
    prompt = Prompt((Message("system", WORLD.baseline), Message("user", "Query: {query}")))
    config = make_config(
        WORLD,
        **{"prompt": prompt, "budget": 300, "initial_size": 3, "mutation_rate": 0.0, **changes},
    )
    host = SimulatedHost(WORLD, reflection=RuleReflection(skill=1.0, slips=False))
    return run_search(config, host), host


def reward_of(data: dict[str, Any]) -> float | None:
    """How the published client reads a score."""
    objectives = data.get("outcome_objectives")
    if isinstance(objectives, dict) and objectives.get("reward") is not None:
        return float(objectives["reward"])
    return data.get("outcome_reward")


def test_events_are_json_with_wire_names_and_object_data() -> None:
    _, host = searched()

    assert json.loads(json.dumps(host.events)) == [list(event) for event in host.events]
    assert all(kind.startswith(PREFIX) for kind, _ in host.events)
    names = {kind.removeprefix(PREFIX) for kind, _ in host.events}
    assert names == {
        "job.started",
        "phase.started",
        "candidate.started",
        "candidate.evaluated",
        "candidate.new_best",
        "generation.started",
        "generation.completed",
        "frontier.updated",
        "job.progress",
        "validation.started",
        "validation.completed",
        "job.completed",
    }


def test_the_run_begins_with_its_plan_and_ends_with_its_result() -> None:
    outcome, host = searched(not_applied=("prompt_learning.x = 1: no x here",))

    started = host.of_type("job.started")[0]
    assert host.events[0] == (PREFIX + "job.started", started)
    assert started["plan"]["text"] == outcome.plan.text
    assert started["not_applied"] == ["prompt_learning.x = 1: no x here"]
    assert started["cursor"] == 0
    assert started["heartbeat_interval_seconds"] > 0
    assert host.events[-1][0] == PREFIX + "job.completed"
    phases = [(event["from_phase"], event["to_phase"]) for event in host.of_type("phase.started")]
    assert phases == [
        ("pending", "baseline"),
        ("baseline", "population"),
        ("population", "search"),
        ("search", "validation"),
    ]


def test_top_prompts_are_ranked_from_1_with_clean_text_and_both_scores() -> None:
    outcome, host = searched()

    top = [event for event in host.of_type("candidate.evaluated") if event.get("rank") is not None]
    assert [event["rank"] for event in top] == list(range(1, len(outcome.candidates) + 1))
    assert outcome.best is not None
    assert top[0]["full_text"] == outcome.best.prompt.system
    assert top[0]["pattern"] == {"messages": outcome.best.prompt.to_wire()}
    for event, candidate in zip(top, outcome.candidates, strict=True):
        assert event["train_accuracy"] == candidate.reward
        checked = outcome.held_out_of(candidate.id)
        assert event["val_accuracy"] == (None if checked is None else checked.reward)
    assert top[0]["val_accuracy"] is not None


def test_the_last_new_best_is_the_best_prompt_and_never_the_baseline() -> None:
    outcome, host = searched()

    events = host.of_type("candidate.new_best")
    assert events
    assert outcome.best is not None
    assert events[-1]["best_prompt"] == {"messages": outcome.best.prompt.to_wire()}
    assert reward_of(events[-1]) == events[-1]["best_score"] == outcome.best.reward
    assert "baseline" not in {event["version_id"] for event in events}
    for before, after in pairwise(events):
        assert after["previous_best_score"] == before["best_score"] < after["best_score"]
        assert after["improvement"] == after["best_score"] - before["best_score"]


def test_no_new_best_comes_when_nothing_beats_the_baseline() -> None:
    config = make_config(WORLD, budget=100)
    host = SimulatedHost(WORLD, answers=lambda request: "```\nFollow rule 1001.\n```")
    outcome = run_search(config, host)

    assert host.of_type("candidate.new_best") == []
    completed = host.of_type("job.completed")[0]
    assert completed["best_prompt"] == {"messages": config.prompt.to_wire()}
    assert outcome.best is not None
    assert completed["best_score"] == outcome.best.reward


def test_with_several_checked_the_chosen_one_is_the_last_new_best() -> None:
    for number in range(8):
        world = World(number)
        host = SimulatedHost(world)
        outcome = run_search(make_config(world, budget=400, validation_top_k=4), host)
        assert outcome.best is not None
        last = host.of_type("candidate.new_best")[-1]
        assert last["best_prompt"] == {"messages": outcome.best.prompt.to_wire()}
        assert reward_of(last) == outcome.best.reward


def test_held_out_scores_have_ranks_but_the_baseline_s_has_none() -> None:
    outcome, host = searched()

    baseline, best = host.of_type("validation.completed")
    assert baseline["is_baseline"] is True
    assert "rank" not in baseline
    assert (best["is_baseline"], best["rank"]) == (False, 1)
    assert [reward_of(baseline), reward_of(best)] == [entry.reward for entry in outcome.held_out]


def test_the_scoring_summary_can_be_made_of_the_last_event() -> None:
    outcome, host = searched()

    completed = host.of_type("job.completed")[0]
    attempted, optimized = completed["attempted_candidates"], completed["optimized_candidates"]
    scores = [reward_of(entry) for entry in attempted]
    assert outcome.best is not None
    assert max(score for score in scores if score is not None) == outcome.best.reward
    assert None not in scores
    assert len(attempted) == 1 + sum(1 for attempt in outcome.attempts if attempt.after is not None)
    assert len(optimized) == sum(1 for candidate in outcome.candidates if candidate.is_on_front)
    assert all(entry["full_text"] and reward_of(entry) is not None for entry in optimized)
    assert completed["total_rollouts"] == len(host.sent)
    assert completed["trials_tried"] == len(outcome.attempts)
    assert [entry.get("rank") for entry in completed["validation"]] == [None, 1]
    assert "state" not in completed
    assert completed["finish_reason"] == "budget"
    assert completed["usage"]["by_purpose"] == outcome.usage.by_purpose
    assert completed["summary"] == outcome.text


@pytest.mark.parametrize(
    ("parent", "before", "after", "estimate"),
    [(0.6, 0.9, 0.8, 0.5), (0.6, 0.5, 0.5, 0.6), (0.1, 0.9, 0.1, 0.0), (0.6, 0.2, 0.4, 0.6)],
)
def test_a_rejected_child_is_scored_by_what_it_lost_against_its_parent(
    parent: float, before: float, after: float, estimate: float
) -> None:
    assert estimated_reward(parent, before, after) == pytest.approx(estimate)


def test_the_version_tree_has_every_candidate_once() -> None:
    outcome, host = searched()

    tree = host.of_type("job.completed")[0]["version_tree"]
    assert tree["root"] == "baseline"
    assert set(tree["nodes"]) == {candidate.id for candidate in outcome.candidates}
    assert Counter(edge["to"] for edge in tree["edges"]) == Counter(
        candidate.id for candidate in outcome.candidates if candidate.parent_id is not None
    )


def test_each_child_is_started_once_and_evaluated_if_it_has_a_prompt() -> None:
    outcome, host = searched()

    started = [event["candidate_id"] for event in host.of_type("candidate.started")]
    evaluated = [event for event in host.of_type("candidate.evaluated") if "rank" not in event]
    assert started == [attempt.id for attempt in outcome.attempts]
    assert [event["candidate_id"] for event in evaluated] == ["baseline"] + [
        attempt.id for attempt in outcome.attempts if attempt.prompt is not None
    ]
    assert evaluated[0]["mutation_type"] == "baseline"
    fates = {attempt.id: attempt for attempt in outcome.attempts}
    for event in evaluated[1:]:
        attempt = fates[event["candidate_id"]]
        assert event["accepted"] == (attempt.fate == "accepted")
        assert event["parent_id"] == attempt.parent_id
        assert event["generation"] == attempt.generation
        assert event["minibatch_after"] == attempt.after
        assert len(event["instance_objectives"]) == len(event["seeds"])
        assert reward_of(event) is not None


def test_generations_are_told_with_their_numbers() -> None:
    outcome, host = searched(budget=500, num_generations=2)

    assert [event["generation"] for event in host.of_type("generation.started")] == [1, 2]
    ended = host.of_type("generation.completed")
    assert [event["generation"] for event in ended] == [0, 1, 2]
    for event in ended:
        members = [a for a in outcome.attempts if a.generation == event["generation"]]
        assert event["children"] == len(members)
        assert event["candidates_proposed"] == sum(1 for a in members if a.prompt is not None)
        assert event["candidates_accepted"] == sum(1 for a in members if a.fate == "accepted")
    assert outcome.best is not None
    assert ended[-1]["best_accuracy"] == outcome.best.reward


def test_a_generation_that_the_budget_cuts_short_is_told_too() -> None:
    outcome, host = searched(budget=143, children_per_generation=100)

    last = host.of_type("generation.completed")[-1]
    assert last["generation"] == outcome.attempts[-1].generation
    assert 0 < last["children"] == sum(1 for a in outcome.attempts if a.generation) < 100


def test_fronts_are_told_with_what_came_and_went() -> None:
    outcome, host = searched()

    front: set[str] = {"baseline"}
    for event in host.of_type("frontier.updated"):
        assert set(event["frontier"]) == (front | set(event["added"])) - set(event["removed"])
        assert event["frontier_size"] == len(event["frontier"])
        assert set(event["frontier_scores"]) == set(event["frontier"])
        front = set(event["frontier"])
    assert front == {candidate.id for candidate in outcome.candidates if candidate.is_on_front}


def test_progress_comes_once_a_second_and_ends_with_all_rollouts() -> None:
    outcome, host = searched(max_concurrent=2)

    events = host.of_type("job.progress")
    times = [event["elapsed_seconds"] for event in events]
    assert len(events) >= 5
    assert all(after - before >= 0.999 for before, after in pairwise(times[:-1]))
    last = events[-1]
    assert last["rollouts_completed"] == outcome.usage.rollouts
    assert last["rollouts_total"] == 300
    shares = [event["percent_overall"] for event in events]
    assert shares == sorted(shares)
    assert 0.9 < shares[-1] <= 1  # the published client multiplies it by 100
    assert last["transformations_tried"] == len(outcome.attempts)
    assert last["rollout_tokens_used"] == outcome.usage.tokens
    assert outcome.best is not None
    assert last["best_score"] == outcome.best.reward
    assert outcome.baseline is not None
    assert last["baseline_score"] == outcome.baseline.reward
    assert all(event["eta_seconds"] is None or event["eta_seconds"] >= 0 for event in events)


@pytest.mark.parametrize("slots", [1, 64])
def test_all_events_but_progress_are_the_same_at_any_timing(slots: int) -> None:
    def milestones(latency: Any, slots: int) -> list[Any]:
        host = SimulatedHost(WORLD, latency=latency, reflection_s=0.3)
        run_search(make_config(WORLD, initial_size=3, max_concurrent=slots), host)
        kept = [(kind, dict(data)) for kind, data in host.events if kind != PROGRESS]
        kept[-1][1].pop("usage")
        return kept

    assert milestones(heavy_tail(0.1), slots) == milestones(heavy_tail(1.0), 8)


def test_the_outcome_is_told_in_one_line_beside_the_plan() -> None:
    outcome, _ = searched(budget=80)

    assert outcome.plan.text == ("80 rollouts: baseline 10, population 26, 1 to 5 children, final check 20")
    accepted = sum(1 for a in outcome.attempts if a.fate == "accepted" and a.generation)
    used = outcome.usage.by_purpose["children"]
    tried = sum(1 for a in outcome.attempts if a.generation)
    assert tried == 1
    assert outcome.best is not None
    before, after = (outcome.held_out_of(name) for name in ("baseline", outcome.best.id))
    assert before is not None
    assert after is not None
    held_out = f"{before.reward:.2f} -> {after.reward:.2f}"
    assert before != after
    assert outcome.text == (
        f"{outcome.usage.rollouts} of 80 rollouts: baseline 10, population 26 for 2 prompts,"
        f" {tried} child {used} ({accepted} accepted), final check 20 ({held_out}); ended by budget"
    )


def test_one_prompt_and_one_child_are_told_as_such() -> None:
    outcome, _ = searched(budget=80, initial_size=2, num_generations=1, children_per_generation=1)

    assert outcome.plan.text == "80 rollouts: baseline 10, population 13, 1 of 1 child, final check 20"
    assert " for 1 prompt, 1 child " in outcome.text
