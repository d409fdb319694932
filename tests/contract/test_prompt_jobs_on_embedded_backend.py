"""Our prompt-learning client against our backend, over real loopback HTTP, with the offline models."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from pytest_synth import EvalJob, PromptLearningClient, PromptLearningJob, task_app
from pytest_synth._serving import ServerThread
from pytest_synth.backend import BackendSettings, RunningBackend, start
from pytest_synth.errors import InvalidRequestError, JobTimeout, NotFoundError
from pytest_synth.localapi import AsyncLLM

KEY = "env-key-of-the-prompt-jobs"
LABELS = ("card_lost", "refund", "top_up", "exchange_rate")
WORDS = {
    "card_lost": ("missing", "stolen", "vanished"),
    "refund": ("reimburse", "money back", "chargeback"),
    "top_up": ("deposit", "load funds", "add cash"),
    "exchange_rate": ("convert", "currency", "euros to dollars"),
}
ROWS = {
    split: [
        {"query": f"{opening} {word} please", "label": label}
        for label in LABELS
        for word in WORDS[label]
        for opening in openings
    ]
    for split, openings in {
        "train": ("my question is about", "I need"),
        "test": ("can you help with", "tell me about"),
    }.items()
}
BASELINE = "Choose one label: " + ", ".join(LABELS)


async def run(row: dict[str, str], llm: AsyncLLM) -> str:
    reply = await llm.chat(
        [{"role": "system", "content": BASELINE}, {"role": "user", "content": row["query"]}],
    )
    return reply.text


@pytest.fixture(scope="module")
def app_url() -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ENVIRONMENT_API_KEY", KEY)
        app = task_app(
            rows=ROWS,
            run=run,
            score=lambda row, answer: (float(answer.strip() == row["label"]), f"expected {row['label']}"),
            expected="label",
            default_split="train",
        )
        with ServerThread(app) as server:
            yield server.url


@pytest.fixture(scope="module")
def backend() -> Iterator[RunningBackend]:
    with start(BackendSettings(environ={})) as running:
        yield running


def config(app_url: str, **gepa: Any) -> dict[str, Any]:
    return {
        "prompt_learning": {
            "algorithm": "gepa",
            "task_app_url": app_url,
            "env_config": {"split": "train"},
            "initial_prompt": {
                "messages": [
                    {"role": "system", "order": 0, "pattern": BASELINE},
                    {"role": "user", "order": 1, "pattern": "{query}"},
                ],
                "wildcards": {"query": "REQUIRED"},
            },
            "policy": {"model": "lexical", "provider": "offline"},
            "gepa": {
                "evaluation": {"seeds": list(range(18)), "validation_seeds": list(range(18, 24))},
                "rollout": {"budget": 80, "max_concurrent": 8, "minibatch_size": 3},
                "archive": {"size": 5, "pareto_set_size": 10},
                **gepa,
            },
        }
    }


def new(backend: RunningBackend, body: dict[str, Any]) -> PromptLearningJob:
    return PromptLearningJob.from_dict(
        config_dict=body, backend_url=backend.url, api_key=backend.key, task_app_api_key=KEY
    )


def test_a_job_runs_to_its_best_prompt(backend: RunningBackend, app_url: str) -> None:
    job = new(backend, config(app_url))
    job_id = job.submit()
    events: list[dict[str, Any]] = []
    result = job.stream_until_complete(timeout=90.0, interval=1.0, on_event=events.append)
    assert (result.status.value, result.job_id) == ("succeeded", job_id)
    assert result.best_score is not None
    assert 0 <= result.best_score <= 1
    numbers = [event["seq"] for event in events]
    assert numbers == sorted(set(numbers))
    reader = PromptLearningClient(backend.url, backend.key)
    assert events == reader.get_events_sync(job_id)
    found = asyncio.run(reader.get_prompts(job_id))
    assert found.best_prompt == result.best_prompt
    assert 0 < found.total_rollouts <= 80
    assert reader.get_prompt_text_sync(job_id) == result.get_system_prompt() == job.get_best_prompt_text()
    summary = reader.get_scoring_summary_sync(job_id)
    assert summary["num_candidates_tried"] == len(found.attempted_candidates) > 0
    assert sum(summary["score_distribution"].values()) == summary["num_candidates_tried"]
    assert summary["best_val_accuracy"] is not None
    again = PromptLearningJob.from_job_id(job_id, backend.url, backend.key).poll_until_complete()
    assert (again.best_prompt, again.best_score) == (result.best_prompt, result.best_score)


def test_a_job_can_be_cancelled(backend: RunningBackend, app_url: str) -> None:
    job = new(backend, config(app_url))
    job.submit()
    assert job.cancel(reason="enough")["status"] == "succeeded"
    result = job.poll_until_complete(timeout=30.0, interval=0.05)
    assert result.status.value == "cancelled"
    assert job.query_workflow_state()["workflow_state"]["status"] == "cancelled"


def test_a_wait_that_is_too_short_times_out(backend: RunningBackend, app_url: str) -> None:
    job = new(backend, config(app_url))
    job.submit()
    with pytest.raises(JobTimeout) as caught:
        job.poll_until_complete(timeout=0.0)
    assert caught.value.document["job_id"] == job.job_id
    job.cancel()
    job.poll_until_complete(timeout=30.0, interval=0.05)


def test_a_refused_field_is_named(backend: RunningBackend, app_url: str) -> None:
    with pytest.raises(InvalidRequestError, match="budget"):
        new(backend, config(app_url, rollout={"budget": 0})).submit()


def test_an_unknown_job_is_named(backend: RunningBackend) -> None:
    with pytest.raises(NotFoundError, match="pl_unknown"):
        PromptLearningJob.from_job_id("pl_unknown", backend.url, backend.key).poll_until_complete()
    with pytest.raises(NotFoundError):
        EvalJob.from_job_id("pl_unknown", backend.url, backend.key).poll_until_complete()
