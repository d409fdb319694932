from __future__ import annotations

from typing import Any

import pytest

from pytest_synth.client import PromptLearningResult, PromptResults
from pytest_synth.client.prompt_results import read_prompt_results, score_of, scoring_summary
from pytest_synth.contracts.jobs import JobStatus
from pytest_synth.errors import UnexpectedAnswer

GEPA = "learning.policy.gepa."


def event(kind: str, **data: Any) -> dict[str, Any]:
    return {"seq": 1, "type": GEPA + kind, "data": data}


def messages(system: str, user: str = "{query}") -> dict[str, Any]:
    return {
        "messages": [
            {"role": "system", "pattern": system, "order": 0},
            {"role": "user", "pattern": user, "order": 1},
        ]
    }


def test_the_last_new_best_wins() -> None:
    found = read_prompt_results(
        [
            event("candidate.new_best", best_prompt=messages("a"), outcome_reward=0.9),
            event("candidate.new_best", best_prompt=messages("b"), outcome_objectives={"reward": 0.0}),
            event("job.completed", best_prompt=messages("c"), best_score=0.7),
        ]
    )
    assert (found.best_prompt, found.best_score) == (messages("b"), 0.0)


def test_a_new_best_without_a_score_keeps_the_one_before() -> None:
    found = read_prompt_results(
        [
            event("candidate.new_best", best_prompt="a", best_score=0.25),
            event("candidate.new_best", best_prompt="b", accuracy=0.9),
        ]
    )
    assert (found.best_prompt, found.best_score) == ("b", 0.25)


def test_the_end_of_the_job_tells_what_nothing_else_did() -> None:
    tree = {"root": "v0"}
    found = read_prompt_results(
        [
            event(
                "job.completed",
                best_prompt="p",
                best_score=0.0,
                optimized_candidates=[],
                attempted_candidates=[{"outcome_reward": 0.5}],
                version_tree=tree,
                state={"total_rollouts": 80, "total_trials": 7},
            )
        ]
    )
    assert found == PromptResults(
        best_prompt="p",
        best_score=0.0,
        version_tree=tree,
        attempted_candidates=[{"outcome_reward": 0.5}],
        total_rollouts=80,
        total_proposal_calls=7,
    )


def test_counts_at_the_top_stand_above_the_state() -> None:
    found = read_prompt_results(
        [event("job.completed", total_rollouts=0, trials_tried=3, state={"total_rollouts": 9})]
    )
    assert (found.total_rollouts, found.total_proposal_calls) == (0, 3)


def test_ranked_candidates_are_the_top_prompts_in_the_order_of_events() -> None:
    found = read_prompt_results(
        [
            event("candidate.evaluated", rank=2, train_accuracy=0.4, pattern=messages("b"), full_text="b"),
            event("candidate.evaluated", outcome_reward=0.1),
            event(
                "candidate.evaluated",
                rank=1,
                train_accuracy=0.5,
                val_accuracy=0.0,
                template={"sections": [{"role": "system", "content": "a"}, {"name": "empty"}]},
                full_text="a",
            ),
            event("job.completed", optimized_candidates=[{"pattern": messages("x")}]),
        ]
    )
    assert found.top_prompts == [
        {
            "rank": 2,
            "train_accuracy": 0.4,
            "val_accuracy": None,
            "pattern": messages("b"),
            "full_text": "b",
        },
        {
            "rank": 1,
            "train_accuracy": 0.5,
            "val_accuracy": 0.0,
            "pattern": {"messages": [{"role": "system", "name": None, "content": "a"}]},
            "full_text": "a",
        },
    ]
    assert (found.text_of_rank(1), found.text_of_rank(2), found.text_of_rank(3)) == ("a", "b", None)


def test_without_ranked_candidates_the_frontier_makes_the_top_prompts() -> None:
    found = read_prompt_results(
        [
            event("validation.completed", rank=1, outcome_reward=0.75),
            event(
                "job.completed",
                validation=[{"rank": 3, "outcome_objectives": {"reward": 0.5}}, None],
                optimized_candidates=[
                    {"rank": 3, "score": {"outcome_reward": 0.0}, "object": {"data": messages("c", "u")}},
                    "no object",
                    {"rank": 1, "outcome_reward": 0.9, "pattern": messages("a")},
                    {"template": {"prompt_sections": [{"role": "system", "name": "s", "content": "d"}]}},
                    {"object": {"data": {"text_replacements": [{"new_text": "e"}]}}, "rank": 2},
                ],
            ),
        ]
    )
    assert [
        (p["rank"], p["train_accuracy"], p["val_accuracy"], p.get("full_text")) for p in found.top_prompts
    ] == [
        (1, 0.9, 0.75, "[system | ]\na\n\n[user | ]\n{query}"),
        (2, None, None, "[system]\ne"),
        (3, 0.0, 0.5, "[system | ]\nc\n\n[user | ]\nu"),
        (4, None, None, "[system | s]\nd"),
    ]
    assert found.top_prompts[2]["pattern"] == messages("c", "u")


def test_a_score_filed_under_rank_0_is_the_best_score() -> None:
    found = read_prompt_results(
        [
            event("candidate.new_best", best_prompt="a", best_score=0.9),
            event("validation.completed", rank=0, outcome_reward=0.0),
        ]
    )
    assert found.best_score == 0.0


def test_mipro_ends_with_a_score_too() -> None:
    mipro = {"type": "learning.policy.mipro.job.completed", "data": {"best_full_score": 0.5, "accuracy": 1}}
    assert read_prompt_results([mipro]).best_score == 0.5


@pytest.mark.parametrize(
    "bad",
    [
        {"type": GEPA + "candidate.new_best", "data": None},
        {"type": GEPA + "job.completed", "data": {"state": None, "optimized_candidates": None}},
        {"type": GEPA + "job.completed", "data": {"optimized_candidates": 5, "attempted_candidates": 7}},
        {"type": GEPA + "validation.completed", "data": []},
        {"type": None},
        {},
    ],
    ids=str,
)
def test_an_event_without_its_data_is_no_crash(bad: dict[str, Any]) -> None:
    assert read_prompt_results([bad]).best_score is None


def test_the_summary_counts_what_was_tried() -> None:
    found = read_prompt_results(
        [
            event("validation.completed", outcome_reward=1.0, is_baseline=True),
            event("validation.completed", outcome_reward=0.5, rank=1),
            event(
                "job.completed",
                attempted_candidates=[
                    {"outcome_reward": 0.0},
                    {"outcome_reward": 0.2},
                    {"score": {"outcome_objectives": {"reward": 1.0}}},
                    {"score": 0.9},
                ],
                optimized_candidates=[{}],
            ),
        ]
    )
    assert scoring_summary(found) == {
        "best_train_accuracy": 1.0,
        "best_val_accuracy": 0.5,
        "num_candidates_tried": 4,
        "num_frontier_candidates": 1,
        "score_distribution": {"0.0-0.2": 1, "0.2-0.4": 1, "0.4-0.6": 0, "0.6-0.8": 0, "0.8-1.0": 1},
        "mean_train_accuracy": pytest.approx(0.4),
    }


def test_the_summary_of_nothing_has_no_scores() -> None:
    summary = scoring_summary(PromptResults())
    assert (summary["best_train_accuracy"], summary["mean_train_accuracy"]) == (None, None)


@pytest.mark.parametrize(
    ("data", "score"),
    [
        ({"outcome_objectives": {"reward": 0.0}, "outcome_reward": 0.9}, 0.0),
        ({"outcome_objectives": {"other": 1}, "outcome_reward": 0.9}, 0.9),
        ({"outcome_reward": "0.5"}, 0.5),
        ({"outcome_reward": True, "best_score": 0.1}, 0.1),
        ({"outcome_reward": 10**400, "best_score": 0.1}, 0.1),
        ({"accuracy": 0.9, "reward": 0.9, "score": 0.9}, None),
        (None, None),
    ],
)
def test_a_score_is_read_where_the_published_client_reads_it(data: Any, score: float | None) -> None:
    assert score_of(data, "best_score") == score


@pytest.mark.parametrize("name", ["best_score", "best_reward", "best_train_score", "best_train_reward"])
def test_a_best_score_of_zero_is_a_score(name: str) -> None:
    result = PromptLearningResult.from_response("pl_1", {"status": "running", "best_score": None, name: 0.0})
    assert result.best_score == 0.0


def test_a_best_score_in_a_text_is_read_and_any_other_value_is_named() -> None:
    assert (
        PromptLearningResult.from_response("pl_1", {"status": "running", "best_score": "0.5"}).best_score
        == 0.5
    )
    with pytest.raises(UnexpectedAnswer, match=r"best_reward of job pl_1 is \{\}, not a number"):
        PromptLearningResult.from_response("pl_1", {"status": "running", "best_reward": {}})


@pytest.mark.parametrize("word", ["succeeded", "completed", "complete", "Success"])
def test_success_is_succeeded_by_any_word(word: str) -> None:
    result = PromptLearningResult.from_response("pl_1", {"status": word})
    assert (result.status.value, result.succeeded, result.is_terminal) == ("succeeded", True, True)


def test_failure_has_its_error() -> None:
    result = PromptLearningResult.from_response("pl_1", {"status": "error", "error": "no seeds"})
    assert (result.status, result.failed, result.error) == (JobStatus.FAILED, True, "no seeds")


def test_an_unknown_status_is_reported() -> None:
    with pytest.raises(UnexpectedAnswer, match="job pl_1 has the unknown status 'paused'"):
        PromptLearningResult.from_response("pl_1", {"status": "paused"})


@pytest.mark.parametrize(
    "data",
    [
        {"best_prompt": "text"},
        {"best_prompt": messages("text")},
        {"best_prompt": {"messages": [{"role": "system", "content": "text"}]}},
        {"best_prompt": {"sections": [{"role": "user"}, {"role": "system", "content": "text"}]}},
        {"best_prompt": {"text_replacements": [{"apply_to_role": "system", "new_text": "text"}]}},
        {"best_prompt": None, "optimized_candidates": [1, {"pattern": messages("text")}]},
        {"best_prompt": {}, "archive": [{"object": {"pattern": messages("text")}}]},
    ],
    ids=str,
)
def test_the_system_prompt_is_dug_out_of_every_shape(data: dict[str, Any]) -> None:
    assert PromptLearningResult.from_response(
        "pl_1", {"status": "succeeded", **data}
    ).get_system_prompt() == ("text")


def test_a_result_without_a_prompt_has_no_system_prompt() -> None:
    data = {"status": "succeeded", "best_prompt": {"messages": [{"role": "user", "pattern": "q"}]}}
    assert PromptLearningResult.from_response("pl_1", data).get_system_prompt() is None
