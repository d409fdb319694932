"""What a search has found, read out of its job's status and events."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pytest_synth.errors import OptimizationFailed
from pytest_synth.evals.optimization_results import OptimizationResult, Search, read_result
from pytest_synth.evals.optimizations import progress_parts, section_of
from pytest_synth.evals.optimize_spec import parse_optimize
from pytest_synth.evals.settings import Settings
from pytest_synth.evals.spec import parse_eval
from pytest_synth.prompts import Prompt

PREFIX = "learning.policy.gepa."
BASELINE, BEST = Prompt.parse("Sort."), Prompt.parse("Sort well.")
SPEC = parse_optimize(
    (range(8),),
    {"validation_seeds": range(8, 12), "prompt": "Sort.", "split": "train"},
    base=Path("/nowhere"),
)
SEARCH = Search("pl_1", SPEC, "offline/lexical", "80 rollouts: baseline 4, ...")


def wire(prompt: Prompt) -> dict[str, Any]:
    return {"messages": prompt.to_wire()}


def evaluated(name: str, **data: Any) -> dict[str, Any]:
    return {"type": f"{PREFIX}candidate.evaluated", "data": {"candidate_id": name, **data}}


def validation(name: str, right: int, **data: Any) -> dict[str, Any]:
    rewards = {str(seed): float(seed < right) for seed in range(8, 12)}
    return {"candidate_id": name, "rewards": rewards, "is_baseline": name == "baseline", **data}


DOCUMENT = {
    "status": "succeeded",
    "best_prompt": wire(BEST),
    "plan": {"budget": 80},
    "total_rollouts": 40,
    "finish_reason": "budget",
    "summary": "40 of 80 rollouts: baseline 4, ...; ended by budget",
    "usage": {"cost_usd": 0.25},
    "not_applied": ["gepa.archive.pareto_eps: rewards are compared exactly"],
}
EVENTS = [
    evaluated("baseline", accepted=True, is_baseline=True, outcome_reward=0.25, rollouts_used=4),
    evaluated("c1", accepted=False, parent_id="baseline", generation=1, outcome_reward=0.1, rollouts_used=7,
              pattern=wire(Prompt.parse("Sort badly."))),
    evaluated("c2", accepted=True, parent_id="baseline", generation=1, outcome_reward=1.0, rollouts_used=14,
              pattern=wire(BEST)),
    evaluated("c2", accepted=True, parent_id="baseline", rank=1, outcome_reward=1.0),
    {
        "type": f"{PREFIX}job.completed",
        "data": {
            "best_candidate_id": "c2",
            "validation": [validation("baseline", 9), validation("c2", 11, rank=1)],
        },
    },
]  # fmt: skip


def read(document: dict[str, Any] = DOCUMENT, events: list[dict[str, Any]] = EVENTS) -> OptimizationResult:
    return read_result(SEARCH, document, events)


def completed(**changes: Any) -> list[dict[str, Any]]:
    return [*EVENTS[:-1], {**EVENTS[-1], "data": {**EVENTS[-1]["data"], **changes}}]


def test_result_tells_best_prompt_budget_and_held_out_rewards() -> None:
    found = read()
    assert (found.baseline, found.best, found.improved) == (BASELINE, BEST, True)
    assert (found.best_id, found.parent_id, found.model) == ("c2", "baseline", "offline/lexical")
    assert (found.rollouts, found.budget, found.finish_reason) == (40, 80, "budget")
    assert (found.plan, found.summary) == (SEARCH.plan, DOCUMENT["summary"])
    assert found.cost_usd == 0.25
    assert found.held_out is not None
    assert (found.held_out.before, found.held_out.after) == (0.25, 0.75)
    assert found.held_out.seeds == tuple(("train", seed) for seed in range(8, 12))


def test_candidates_come_once_in_the_order_of_their_decision() -> None:
    assert [(c.id, c.parents, c.accepted, c.reward, c.rollouts) for c in read().candidates] == [
        ("baseline", (), True, 0.25, 4),
        ("c1", ("baseline",), False, None, 7),
        ("c2", ("baseline",), True, 1.0, 14),
    ]
    entry = read().to_entry("test_it")
    assert [candidate.id for candidate in entry.lineage()] == ["baseline", "c2"]
    assert entry.candidates[0].prompt is not None
    assert entry.candidates[0].prompt[0].pattern == "Sort."


def test_stored_prompt_has_the_held_out_result_and_its_origin() -> None:
    record = read().snapshot.record
    assert read().snapshot.prompt == BEST
    assert (record.reward, record.baseline_reward, record.n) == (0.75, 0.25, 4)
    assert (record.candidate, record.parent, record.model) == ("c2", "baseline", "offline/lexical")
    assert (record.seeds, record.baseline_fingerprint) == ("train 8-11", BASELINE.fingerprint)
    assert record.interval is not None
    assert record.interval[0] < 0.5 < record.interval[1]


def test_costs_add_up_unless_one_is_not_known() -> None:
    assert read().to_entry("t", further_cost_usd=0.5).cost_usd == 0.75
    assert read().to_entry("t", further_cost_usd=None).cost_usd is None
    assert read({**DOCUMENT, "usage": {"cost_usd": None}}).to_entry("t").cost_usd is None


@pytest.mark.parametrize(
    "changes",
    [
        {"validation": [validation("baseline", 9)][:0]},
        {"validation": [validation("c2", 11)]},
        {"validation": [validation("baseline", 9), {**validation("c2", 11), "rewards": {"8": 1.0}}]},
        {"validation": [validation("baseline", 9), {**validation("c2", 11), "rewards": None}]},
        {"validation": "none"},
    ],
)
def test_missing_rewards_give_no_held_out_result(changes: dict[str, Any]) -> None:
    found = read(events=completed(**changes))
    assert found.held_out is None
    assert found.snapshot.record.reward is None


def test_baseline_is_the_best_where_nothing_was_better() -> None:
    found = read({**DOCUMENT, "best_prompt": wire(BASELINE)}, completed(best_candidate_id="baseline"))
    assert (found.improved, found.best_id, found.parent_id) == (False, "baseline", None)
    assert found.held_out is not None
    assert found.held_out.before == found.held_out.after


def test_service_that_names_no_candidate_is_read_by_its_best_prompt() -> None:
    found = read_result(SEARCH, {"best_prompt": wire(BEST), "status": "succeeded"}, EVENTS[:3])
    assert (found.best_id, found.parent_id, found.budget) == ("c2", "baseline", 80)


def test_service_without_candidates_gives_the_best_prompt() -> None:
    found = read_result(SEARCH, {"best_prompt": "Sort well.", "status": "succeeded"}, [])
    assert (found.best, found.held_out) == (BEST, None)
    assert [candidate.id for candidate in found.to_entry("t").lineage()] == ["baseline", "best"]


def test_service_that_names_versions_and_no_baseline_is_read_from_its_events() -> None:
    first, second = Prompt.parse("Sort quickly."), BEST
    events = [
        {
            "type": f"{PREFIX}candidate.evaluated",
            "data": {
                "version_id": name,
                "parent_id": parent,
                "outcome_reward": reward,
                "pattern": wire(prompt),
            },
        }
        for name, parent, reward, prompt in [("v1", "v0", 0.5, first), ("v2", "v1", 0.75, second)]
    ]
    best = [
        {"type": f"{PREFIX}candidate.new_best", "data": {"best_prompt": wire(prompt)}}
        for prompt in (first, second)
    ]
    found = read_result(SEARCH, {"status": "succeeded"}, [*events, *best])
    assert (found.best, found.best_id, found.parent_id) == (BEST, "v2", "v1")
    assert [(c.id, c.parents) for c in found.candidates] == [
        ("baseline", ()),
        ("v1", ("baseline",)),
        ("v2", ("v1",)),
    ]
    assert [c.id for c in found.to_entry("t").lineage()] == ["baseline", "v1", "v2"]


def test_success_without_a_prompt_is_a_failure() -> None:
    with pytest.raises(OptimizationFailed, match="the search pl_1 has succeeded without a best prompt"):
        read_result(SEARCH, {"status": "succeeded"}, [])


def test_section_is_completed_by_what_the_run_knows() -> None:
    judged = parse_eval(
        ([50],), {"policy": {"temperature": 0}, "env_name": "shop", "env_config": {"lang": "en"}}, base=Path()
    )
    section = section_of(SPEC, Settings(concurrency=5), judged)
    assert section["policy"] == {
        "provider": "offline",
        "model": "lexical",
        "temperature": 0,
        "inference_mode": "synth_hosted",
    }
    assert (section["env_name"], section["env_config"]) == ("shop", {"lang": "en", "split": "train"})
    assert section["gepa"]["rollout"] == {"budget": 80, "minibatch_size": 3, "max_concurrent": 5}
    assert "max_concurrent" not in SPEC.section["gepa"]["rollout"]


def test_ceiling_of_the_run_ends_the_search() -> None:
    assert "token" not in section_of(SPEC, Settings(), None)["gepa"]
    assert section_of(SPEC, Settings(max_cost=0.5), None)["gepa"]["token"] == {"max_spend_usd": 0.5}


def test_what_a_section_names_stays() -> None:
    named = {
        "policy": {"provider": "openai", "model": "gpt"},
        "env_config": {"split": "dev"},
        "env_name": "mine",
        "gepa": {"rollout": {"max_concurrent": 2}},
    }
    spec = SPEC.__class__(SPEC.seeds, SPEC.validation_seeds, "dev", "dev", BASELINE, named)
    assert section_of(spec, Settings(), parse_eval(([1],), {"env_name": "other"}, base=Path())) == named


def test_progress_is_told_with_the_most_important_first() -> None:
    assert progress_parts({}) == []
    assert progress_parts({"rollouts_completed": 3, "rollouts_total": 80, "phase": "baseline"}) == [
        "3/80 rollouts",
        "baseline",
    ]
    assert progress_parts(
        {
            "rollouts_completed": 31,
            "rollouts_total": 80,
            "phase": "search",
            "generation": 2,
            "transformations_tried": 4,
            "transformations_planned": 9,
            "best_score": 0.7,
            "baseline_score": 0.25,
            "cost_usd": 0.0123,
            "reflection_wait_seconds": 4.2,
        }
    ) == [
        "31/80 rollouts",
        "best 0.70 (baseline 0.25)",
        "generation 2",
        "4/9 children",
        "$0.0123",
        "4 s waited for reflection",
    ]
