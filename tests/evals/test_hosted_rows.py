"""Rows of the published API, completed by what was seen on this machine."""

from __future__ import annotations

from typing import Any

import pytest

from pytest_synth.client import EvalResult
from pytest_synth.contracts.evals import EvalRow
from pytest_synth.evals.joining import Seen, complete, join, recover
from pytest_synth.evals.relaying import Note
from pytest_synth.evals.spec import EvalSpec
from pytest_synth.prompts import Prompt

PROMPT = Prompt.parse("P")
APPLIED = {"prompt_applied": True, "prompt_fingerprint": PROMPT.fingerprint}


def note(seed: int = 1, correlation_id: str = "trace_1", **more: Any) -> Note:
    return Note(**{"seed": seed, "correlation_id": correlation_id, "is_answered": True, **more})


def row(seed: int = 1, score: float | None = 1.0, **more: Any) -> EvalRow:
    return EvalRow(seed=seed, score=score, outcome_reward=score, **more)


def completed(found: EvalRow, *notes: Note, prompt: Prompt | None = PROMPT) -> EvalRow:
    spec = EvalSpec(seeds=(1, 2), split="test", prompt=prompt)
    source = "app" if prompt is None else "marker"
    [one] = complete([found], Seen(spec, source, 2, notes))
    return one


def result(*rows: EvalRow, status: str = "completed", **more: Any) -> EvalResult:
    document = {"status": status, "results": [one.model_dump(mode="json") for one in rows], **more}
    return EvalResult.from_response("eval-1", document)


def test_a_row_gets_what_the_backend_does_not_tell() -> None:
    found = completed(
        row(tokens=150, cost_usd=0.002),
        note(
            **APPLIED,
            replaced_fingerprint="0123456789ab",
            calls=1,
            tokens=11,
            latency_ms=5.0,
            query="q",
            answer="a",
            objectives={"speed": 0.5},
            details={"expected": "x"},
        ),
    )
    assert found == EvalRow(
        seed=1,
        split="test",
        sample=2,
        score=1.0,
        outcome_reward=1.0,
        tokens=150,
        cost_usd=0.002,
        latency_ms=5.0,
        calls=1,
        prompt_source="marker",
        prompt_fingerprint=PROMPT.fingerprint,
        replaced_fingerprint="0123456789ab",
        query="q",
        answer="a",
        objectives={"speed": 0.5},
        details={"expected": "x"},
    )


def test_what_the_backend_tells_is_kept() -> None:
    told = row(tokens=7, latency_ms=9.0, objectives={"speed": 1.0}, details={"judge": "good"})
    found = completed(told, note(**APPLIED, tokens=11, latency_ms=5.0, details={"expected": "x"}))
    assert (found.tokens, found.latency_ms) == (7, 9.0)
    assert (found.objectives, found.details) == ({"speed": 1.0}, {"judge": "good"})


@pytest.mark.parametrize(
    ("notes", "error"),
    [
        pytest.param(
            [note(prompt_applied=False, prompt_reason="no call")], "prompt not applied: no call", id="no call"
        ),
        pytest.param(
            [],
            "prompt not applied: its rollout did not come through this machine's gateway",
            id="not seen here",
        ),
        pytest.param(
            [note(seed=2, **APPLIED)],
            "prompt not applied: its rollout did not come through this machine's gateway",
            id="another seed's",
        ),
    ],
)
def test_a_reward_without_the_prompt_is_none(notes: list[Note], error: str) -> None:
    found = completed(row(), *notes)
    assert (found.score, found.outcome_reward) == (None, None)
    assert (found.error, found.error_kind) == (error, "prompt_not_applied")


def test_without_a_prompt_a_rollout_that_was_not_seen_keeps_its_reward() -> None:
    found = completed(row(), prompt=None)
    assert (found.score, found.error, found.prompt_source) == (1.0, None, "app")


@pytest.mark.parametrize(
    ("calls", "error"),
    [(1, "the only model call failed: gone"), (3, "all 3 model calls failed: gone")],
)
def test_a_reward_of_a_dead_model_is_none(calls: int, error: str) -> None:
    found = completed(row(score=0.0), note(calls=calls, model_error="gone"), prompt=None)
    assert (found.score, found.error, found.error_kind) == (None, error, "model")


def test_the_backends_own_reason_is_kept() -> None:
    found = completed(row(score=None, error="task app answered 500"), note(prompt_applied=False))
    assert (found.error, found.error_kind) == ("task app answered 500", None)


@pytest.mark.parametrize(
    ("notes", "answer"),
    [
        pytest.param(["a", "b"], "b", id="the last"),
        pytest.param(["a", "-b"], "a", id="the last that was answered"),
        pytest.param(["a+", "b"], "a", id="the one with its id"),
        pytest.param(["-a", "-b"], "b", id="none was answered"),
    ],
)
def test_of_several_rollouts_of_a_seed_the_one_that_counted_is_taken(notes: list[str], answer: str) -> None:
    made = [
        note(
            correlation_id="trace_own" if text.endswith("+") else "trace_other",
            is_answered=not text.startswith("-"),
            answer=text.strip("-+"),
            **APPLIED,
        )
        for text in notes
    ]
    assert completed(row(correlation_id="trace_own"), *made).answer == answer


def test_rewards_of_a_cut_job_are_taken_from_what_was_seen() -> None:
    rows = [row(1, 0.5), row(2, None, error="cut")]
    notes = [note(1, reward=1.0), note(2, reward=0.25), note(3, reward=0.75), note(4, reward=None)]
    found = {one.seed: (one.score, one.outcome_reward, one.error) for one in recover(rows, notes)}
    assert found == {1: (0.5, 0.5, None), 2: (0.25, 0.25, None), 3: (0.75, 0.75, None)}


def test_jobs_are_joined_to_one_result() -> None:
    first = row(1, 1.0, tokens=5, cost_usd=0.25)
    second = row(2, 0.0, tokens=7, cost_usd=0.5)
    jobs = [
        result(first, started_at="2026-01-01T10:00:00Z", completed_at="2026-01-01T10:01:00Z"),
        result(second, started_at="2026-01-01T10:00:30", completed_at="2026-01-01T10:02:00+00:00"),
    ]
    found = join(jobs, [first, second])
    assert (found.job_id, found.status.value, found.error) == ("eval-1", "completed", None)
    assert (found.mean_reward, found.total_tokens, found.total_cost_usd) == (0.5, 12, 0.75)
    assert found.rows == (first, second)
    assert found.raw["started_at"] == "2026-01-01T10:00:00+00:00"
    assert found.raw["completed_at"] == "2026-01-01T10:02:00+00:00"


def test_an_unknown_cost_and_an_unreadable_time_stay_unknown() -> None:
    rows = [row(1, 1.0, cost_usd=0.25), row(2, 1.0)]
    found = join([result(*rows, started_at="yesterday", completed_at="2026-01-01T10:00:00Z")], rows)
    assert found.total_cost_usd is None
    assert found.raw["started_at"] is None


@pytest.mark.parametrize(
    ("jobs", "error", "status", "told"),
    [
        pytest.param(
            [result(), result(status="failed", error="all failed")], None, "failed", "all failed", id="a job"
        ),
        pytest.param([result()], "the tunnel is dead", "failed", "the tunnel is dead", id="the eval"),
        pytest.param([], "the tunnel is dead", "failed", "the tunnel is dead", id="before any job"),
    ],
)
def test_what_failed_is_told(jobs: list[EvalResult], error: str | None, status: str, told: str) -> None:
    found = join(jobs, [], error)
    assert (found.status.value, found.error, found.mean_reward) == (status, told, None)
