from __future__ import annotations

from typing import Any

import pytest

from pytest_synth.client import EvalResult
from pytest_synth.contracts.jobs import JobStatus
from pytest_synth.errors import UnexpectedAnswer

LIST_FORM = {
    "job_id": "e1",
    "status": "completed",
    "error": None,
    "summary": {
        "mean_reward": 0.5,
        "total_tokens": 750,
        "total_cost_usd": 0.01,
        "num_seeds": 3,
        "num_successful": 2,
        "num_failed": 1,
    },
    "results": [
        {"seed": 0, "score": 1.0, "tokens": 150, "cost_usd": 0.002, "latency_ms": 420, "error": None},
        {"seed": 1, "outcome_reward": 0, "tokens": None},
        {"seed": 2, "score": None, "error": "500: boom", "error_kind": "task_app", "extra": "kept"},
    ],
}


def test_the_list_form_is_read_whole() -> None:
    result = EvalResult.from_response("e1", LIST_FORM)
    assert (result.status, result.succeeded, result.failed, result.is_terminal) == (
        JobStatus.COMPLETED,
        True,
        False,
        True,
    )
    assert (result.mean_reward, result.total_tokens, result.total_cost_usd) == (0.5, 750, 0.01)
    assert (result.num_completed, result.num_total) == (3, 3)
    assert result.seed_results == LIST_FORM["results"]
    assert [(r.seed, r.score, r.outcome_reward, r.tokens, r.error) for r in result.rows] == [
        (0, 1.0, 1.0, 150, None),
        (1, 0.0, 0.0, 0, None),
        (2, None, None, 0, "500: boom"),
    ]
    assert result.raw == LIST_FORM


def test_the_object_form_is_read_too() -> None:
    data = {
        "status": "running",
        "results": {"completed": 3, "total": 8, "mean_reward": 0.25, "items": [{"seed": 4, "score": 0.25}]},
    }
    result = EvalResult.from_response("e1", data)
    assert (result.num_completed, result.num_total, result.mean_reward) == (3, 8, 0.25)
    assert [row.seed for row in result.rows] == [4]
    assert not result.is_terminal


@pytest.mark.parametrize(
    "data",
    [
        {"summary": {"mean_reward": 0.0, "total_tokens": 0, "total_cost_usd": 0.0}},
        {"summary": {"mean_reward": 0.0}, "mean_reward": 0.9, "total_tokens": 0, "total_cost_usd": 0.0},
        {"mean_reward": 0.0, "total_tokens": 0, "total_cost_usd": 0.0, "results": {"mean_reward": 0.9}},
    ],
    ids=["summary", "summary before top level", "top level before results"],
)
def test_zero_is_a_value_and_not_missing(data: dict[str, Any]) -> None:
    result = EvalResult.from_response("e1", {"status": "completed", **data})
    assert (result.mean_reward, result.total_tokens, result.total_cost_usd) == (0.0, 0, 0.0)


def test_what_is_not_said_is_none() -> None:
    result = EvalResult.from_response("e1", {"status": "failed", "error": "task app is down"})
    assert (result.mean_reward, result.total_tokens, result.total_cost_usd) == (None, None, None)
    assert (result.num_completed, result.num_total, result.rows) == (0, 0, ())
    assert (result.failed, result.error) == (True, "task app is down")


@pytest.mark.parametrize(
    ("word", "status"),
    [
        ("completed", JobStatus.COMPLETED),
        ("Succeeded", JobStatus.SUCCEEDED),
        ("canceled", JobStatus.CANCELLED),
        ("queued", JobStatus.QUEUED),
        ("in progress", JobStatus.RUNNING),
        ("error", JobStatus.FAILED),
    ],
)
def test_the_words_of_both_job_families_are_understood(word: str, status: JobStatus) -> None:
    assert EvalResult.from_response("e1", {"status": word}).status is status


@pytest.mark.parametrize("data", [{"status": "paused"}, {"status": None}, {}])
def test_an_unknown_status_is_reported_and_not_taken_for_pending(data: dict[str, Any]) -> None:
    with pytest.raises(UnexpectedAnswer, match=r"job e1 has the unknown status .*; known: pending, queued"):
        EvalResult.from_response("e1", data)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"seed": 1}, {"score": 0.5}], r"results\[1\]\.seed of job e1: Field required"),
        ([{"seed": "one"}], r"results\[0\]\.seed of job e1: Input should be a valid integer"),
        (["row"], r"results\[0\] of job e1 is 'row', not an object"),
    ],
)
def test_a_row_that_is_none_is_named(rows: list[Any], message: str) -> None:
    with pytest.raises(UnexpectedAnswer, match=message):
        EvalResult.from_response("e1", {"status": "completed", "results": rows})


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"mean_reward": "0.5"}, "mean_reward of job e1 is '0.5', not a number"),
        ({"summary": {"total_tokens": {"all": 3}}}, r"total_tokens of job e1 is \{'all': 3\}, not a number"),
        ({"results": {"items": 5}}, "results.items of job e1 is 5, not a list"),
    ],
)
def test_what_is_no_number_and_no_list_is_named(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(UnexpectedAnswer, match=message):
        EvalResult.from_response("e1", {"status": "failed", **fields})
