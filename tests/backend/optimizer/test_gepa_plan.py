"""The plan: what a budget is spent on, told before the first rollout."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from fakes.optimizer_host import SimulatedHost, make_config, run_search
from fakes.rule_world import World

from pytest_synth.backend.optimizer.fields import GepaConfigError
from pytest_synth.backend.optimizer.plan import _children, make_plan


def test_the_documented_example_is_planned_in_one_line() -> None:
    config = make_config(
        World(), budget=80, minibatch_size=8, initial_size=4, num_generations=3, children_per_generation=3
    )

    assert make_plan(config).text == (
        "80 rollouts: baseline 10, population 39, 1 of 9 children, final check 20"
    )


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"budget": 200}, "200 rollouts: baseline 10, 10 to 54 children, final check 20"),
        (
            {"budget": 60, "initial_size": 6, "num_generations": 2},
            "60 rollouts: baseline 10, population 26 for 2 of 5 prompts, 0 of 6 children, final check 20",
        ),
        (
            {"budget": None, "num_generations": 2, "initial_size": 2},
            "139 rollouts: baseline 10, population 13, 6 of 6 children, final check 20",
        ),
        ({"budget": 43}, "43 rollouts: baseline 10, 1 to 2 children, final check 20"),
        (
            {"budget": 41, "initial_size": 2},
            "41 rollouts: baseline 10, population 0 for 0 of 1 prompt, 1 child, final check 20",
        ),
        (
            {"budget": 63, "validation_top_k": 3},
            "63 rollouts: baseline 10, 1 to 2 children, final check 40",
        ),
    ],
    ids=["unbounded", "population-cut", "no-budget", "little", "least", "top-3"],
)
def test_a_plan_names_each_purpose(changes: dict[str, Any], text: str) -> None:
    assert make_plan(make_config(World(), **changes)).text == text


def test_a_budget_that_cannot_pay_for_one_candidate_is_refused_with_the_number_that_would_do() -> None:
    with pytest.raises(GepaConfigError) as refusal:
        make_plan(make_config(World(), budget=40))

    assert str(refusal.value) == (
        "prompt_learning.gepa.rollout.budget is 40; at least 41 are needed: 10 for the baseline, 11 for one"
        " candidate, 20 for the final check on 10 validation seeds"
    )


def test_generations_of_more_rollouts_than_a_job_may_have_are_refused() -> None:
    with pytest.raises(GepaConfigError) as refusal:
        make_plan(make_config(World(), budget=None, num_generations=10**15, children_per_generation=1))

    assert str(refusal.value) == (
        "prompt_learning.gepa.population.num_generations is 1000000000000000, which may take"
        " 16000000000000030 rollouts with its founders and children; a job may have 100000"
    )


@pytest.mark.parametrize(("minibatch", "pareto"), [(1, 1), (1, 7), (3, 10), (8, 2), (5, 5), (4, 40)])
def test_a_plan_counts_the_fewest_children_over_all_ways_to_spend_the_rest(
    minibatch: int, pareto: int
) -> None:
    config = replace(make_config(World()), minibatch_size=minibatch, pareto_set_size=pareto)
    fewest: list[int] = []
    for rest in range(200):
        costs = range(config.cheapest_child, min(rest, config.dearest_child) + 1)
        if rest >= minibatch + pareto:
            fewest.append(1 + min(fewest[rest - cost] for cost in costs))
        else:
            fewest.append(rest // config.founder_cost + (rest % config.founder_cost > pareto))
        assert _children(rest, config)[0] == fewest[rest]


def test_the_document_of_a_plan_holds_what_is_not_applied() -> None:
    plan = make_plan(make_config(World(), not_applied=("x = 1: no x here",)))

    assert plan.to_document()["not_applied"] == ["x = 1: no x here"]
    assert plan.to_document()["text"] == plan.text


@pytest.mark.parametrize("minibatch", [3, 8, 24])
@pytest.mark.parametrize("founders", [0, 3])
@pytest.mark.parametrize("budget", [41, 43, 54, 57, 67, 80, 83, 131, 300])
@pytest.mark.parametrize("is_reused", [True, False])
def test_a_run_stays_within_its_plan(budget: int, founders: int, minibatch: int, is_reused: bool) -> None:
    config = make_config(
        World(budget),
        budget=budget,
        initial_size=1 + founders,
        minibatch_size=minibatch,
        reuse_known=is_reused,
    )
    host = SimulatedHost(World(budget))

    outcome = run_search(config, host)

    assert outcome.finish_reason == "budget"
    plan, used = outcome.plan, outcome.usage.by_purpose
    tried = [attempt for attempt in outcome.attempts if attempt.generation > 0]
    assert len(host.sent) == outcome.usage.rollouts <= budget
    assert used["baseline"] == plan.baseline
    assert used["final_check"] <= plan.final_check
    assert used.get("population", 0) <= plan.population
    assert plan.children_min <= len(tried) <= plan.children_max
