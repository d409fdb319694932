"""Eval jobs of the published SDK against `pytest-synth serve`, beside what its task app really saw."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from fakes.model_provider import FakeProvider
from intents_world import reward
from processes import PROVIDER_KEY, Story, sdk_python

sdk_python()

SYSTEM = "Classify. Intents: refund, exchange_rate"  # the task app's own prompt
TOKENS = 11  # of each call, as the provider says


@pytest.fixture(scope="module")
def evals(drive: Callable[..., Story]) -> Story:
    return drive("sdk_evals.py")


def rewards(result: dict[str, Any]) -> list[tuple[int, float | None]]:
    return [(row["seed"], row["score"]) for row in result["seed_results"]]


def errors(result: dict[str, Any]) -> list[str | None]:
    return [row["error"] for row in result["seed_results"]]


def test_a_job_is_polled_to_its_rewards(evals: Story) -> None:
    story = evals["polled"]
    result, results, seeds = story["result"], story["results"], range(100, 110)
    assert result["status"] == "completed"
    assert result["error"] is None
    assert result["mean_reward"] == pytest.approx(reward(SYSTEM, seeds))
    assert rewards(result) == [(seed, reward(SYSTEM, [seed])) for seed in seeds]
    assert all(row["score"] == row["outcome_reward"] for row in result["seed_results"])
    assert result["total_tokens"] == sum(row["tokens"] for row in result["seed_results"]) == 10 * TOKENS
    assert result["total_cost_usd"] == pytest.approx(sum(row["cost_usd"] for row in result["seed_results"]))
    assert result["total_cost_usd"] > 0
    assert all(row["latency_ms"] > 0 for row in result["seed_results"])
    assert story["mean_text"].startswith("60.00% $0.0000")
    assert (results["job_id"], results["status"]) == (story["job_id"], "completed")
    assert results["summary"] == {
        "mean_reward": result["mean_reward"],
        "total_tokens": result["total_tokens"],
        "total_cost_usd": result["total_cost_usd"],
        "num_seeds": 10,
        "num_successful": 10,
        "num_failed": 0,
    }


def test_the_status_tells_how_far_a_job_is(evals: Story) -> None:
    story = evals["polled"]
    last = story["statuses"][-1]
    assert {status["status"] for status in story["statuses"]} <= {"pending", "running", "completed"}
    completed = [status["results"]["completed"] for status in story["statuses"]]
    assert completed == sorted(completed)
    assert {status["results"]["total"] for status in story["statuses"]} == {10}
    assert last["job_id"] == story["job_id"]
    assert last["results"]["mean_reward"] == pytest.approx(0.6)
    assert last["created_at"] <= last["started_at"] <= last["completed_at"]
    assert last["config"]["seeds"] == list(range(100, 110))
    state = story["state"]
    assert (state["job_id"], state["error"]) == (story["job_id"], None)
    assert state["workflow_state"]["status"] == "completed"
    assert state["workflow_state"]["progress"] == {"completed": 10, "total": 10}


def test_the_task_app_sees_each_seed_once_with_all_that_was_asked(evals: Story) -> None:
    seen = evals["polled"]["seen"]
    assert sorted(entry["seed"] for entry in seen) == list(range(100, 110))
    assert max(entry["in_flight"] for entry in seen) <= 3
    assert len({entry["correlation_id"] for entry in seen}) == 10
    for entry in seen:
        assert entry["env_config"] == {"split": "test"}
        assert entry["policy"] == {"model": "gpt-4.1-nano", "provider": "openai"}
        assert entry["extracted_id"] == entry["correlation_id"]
        assert entry["correlation_id"].startswith("trace_")
        assert "/api/interceptor/v1/" in entry["inference_url"]
        assert entry["max_time_s"] == 45.0


def test_rows_are_told_apart_by_the_correlation_ids_that_the_app_saw(evals: Story) -> None:
    story = evals["polled"]
    seen = {entry["correlation_id"]: entry["seed"] for entry in story["seen"]}
    assert {row["correlation_id"]: row["seed"] for row in story["result"]["seed_results"]} == seen


def test_the_provider_gets_its_own_key_and_the_tools(evals: Story, provider: FakeProvider) -> None:
    story = evals["polled"]
    calls = [call for call in provider.seen if call.body["messages"][0]["content"] == SYSTEM]
    (call,) = [call for call in calls if "number 104 " in call.body["messages"][-1]["content"]]
    assert call.headers["authorization"] == f"Bearer {PROVIDER_KEY}"
    assert call.body["tools"][0]["function"]["name"] == "banking77_classify"
    assert call.body["tool_choice"]["function"]["name"] == "banking77_classify"
    assert story["result"]["seed_results"][4]["query"].startswith("Customer Query: number 104 ")


def test_the_policy_reaches_the_app_whole_and_its_key_is_shown_nowhere(
    evals: Story, provider: FakeProvider
) -> None:
    story = evals["own_policy"]
    (entry,) = story["seen"]
    assert entry["policy"] == {
        "model": "gpt-4.1-nano",
        "provider": "openai",
        "inference_mode": "synth_hosted",
        "temperature": 0.3,
        "api_key": "sk-of-the-user",
    }
    assert "sk-of-the-user" not in story["shown"]
    assert not any("sk-of-the-user" in str(call.headers) for call in provider.seen)


def test_a_mean_of_zero_is_a_number_polled_and_streamed(evals: Story) -> None:
    story = evals["mean_of_zero"]
    for result in (story["polled"], story["streamed"]):
        assert result["status"] == "completed"
        assert result["mean_reward"] == 0.0
        assert result["mean_reward"] is not None
        assert rewards(result) == [(0, 0.0), (1, 0.0)]


def test_failed_seeds_are_counted_and_told_with_their_reason(evals: Story) -> None:
    result = evals["partial"]
    assert result["status"] == "completed"
    assert result["mean_reward"] == 1.0
    assert rewards(result) == [(0, 1.0), (1, None), (2, 1.0), (3, None)]
    assert errors(result) == [
        None,
        "task app answered 500: Internal Server Error",
        None,
        "the task app's answer has no reward_info",
    ]
    summary = result["raw"]["summary"]
    assert (summary["num_seeds"], summary["num_successful"], summary["num_failed"]) == (4, 2, 2)


def test_a_job_whose_seeds_all_fail_has_failed(evals: Story) -> None:
    story = evals["all_failed"]
    for result in (story["polled"], story["streamed"]):
        assert result["status"] == "failed"
        assert result["error"] == (
            "all 2 rollouts failed; seed 0: task app answered 500: Internal Server Error"
        )
        assert result["mean_reward"] is None
        assert (result["num_completed"], result["num_total"]) == (2, 2)
        assert errors(result) == ["task app answered 500: Internal Server Error"] * 2
    assert story["results"]["status"] == "failed"
    assert story["results"]["summary"]["num_failed"] == 2
    assert story["state"]["workflow_state"]["error"] == story["polled"]["error"]


def test_an_unreachable_app_fails_the_job_within_seconds(evals: Story) -> None:
    story = evals["unreachable"]
    assert story["result"]["status"] == "failed"
    assert story["result"]["error"] == (
        f"task app at {story['url']} is unreachable (GET {story['url']}/health: connection refused);"
        " is it running?"
    )
    assert story["took_s"] < 15


def test_a_wrong_environment_key_is_told_and_not_shown(evals: Story) -> None:
    story = evals["wrong_environment_key"]
    assert story["result"]["status"] == "failed"
    assert story["result"]["error"].endswith(
        "refused GET /health with 400; its ENVIRONMENT_API_KEY differs from the backend's"
    )
    assert story["key"][:6] not in str(story["result"])


def test_a_rollout_that_takes_too_long_is_given_up(evals: Story) -> None:
    result = evals["slow_rollout"]
    assert result["status"] == "failed"
    assert result["error"] == "all 1 rollouts failed; seed 1: no answer within 1 s"


def test_a_seed_that_the_app_does_not_have_fails_the_job(evals: Story) -> None:
    result = evals["out_of_range"]
    assert result["status"] == "failed"
    assert result["error"] == "seed 5000 is out of range: split 'test' has 1000 rows (0 to 999)"


@pytest.mark.parametrize(
    ("submission", "status", "said"),
    [
        ("wrong key", 401, "missing or unknown API key"),
        ("url", 422, "task_app_url: "),
        ("seeds", 422, "seeds.0: "),
        ("concurrency", 422, "max_concurrent: "),
        ("provider", 422, "policy.provider 'no such provider' is unknown"),
        ("verifier", 422, "verifier_config: is not supported"),
    ],
)
def test_a_submission_is_refused_with_the_field(
    evals: Story, submission: str, status: int, said: str
) -> None:
    refused = evals["refused"][submission]
    assert refused["kind"] == "RuntimeError"
    assert refused["text"].startswith(f"Job submission failed with status {status}: ")
    assert said in refused["text"]


def test_an_unknown_job_is_404_everywhere(evals: Story) -> None:
    refused = evals["refused"]
    for call in ("unknown status", "unknown results", "unknown traces"):
        assert refused[call]["kind"] == "RuntimeError"
        assert "404" in refused[call]["text"]
        assert "no eval job 'eval-unknown'" in refused[call]["text"]
    assert refused["unknown cancel"]["kind"] == "HTTPStatusError"
    assert "404 Not Found" in refused["unknown cancel"]["text"]
    assert refused["unknown state"]["workflow_state"] is None
    assert refused["unknown state"]["error"].startswith("HTTP 404: ")


def test_a_stream_brings_the_result_live_and_replayed(evals: Story) -> None:
    story = evals["streamed"]
    for result in story["results"]:
        assert result["status"] == "completed"
        assert result["mean_reward"] == pytest.approx(reward(SYSTEM, range(5)))
        assert rewards(result) == [(seed, reward(SYSTEM, [seed])) for seed in range(5)]
    assert story["statuses"][-1] == "completed"
    # Once it knows the end, the SDK drops what it has not handed on yet.
    assert story["live"] == story["replayed"][: len(story["live"])]
    assert story["live"]


def test_a_replayed_stream_brings_every_event_in_order(evals: Story) -> None:
    events = evals["streamed"]["replayed"]
    assert [event["seq"] for event in events] == list(range(1, 12))
    assert events[0]["type"] == "eval.policy.job.started"
    assert events[0]["data"] == {"seed_count": 5}
    told = {e["data"]["seed"]: e["data"]["reward"] for e in events if e["type"].endswith("seed.completed")}
    assert told == {seed: reward(SYSTEM, [seed]) for seed in range(5)}
    progress = [event["data"] for event in events if event["type"].endswith("job.progress")]
    assert progress == [{"completed": done, "total": 5} for done in range(1, 6)]


def test_the_sdks_own_handler_takes_the_events(evals: Story) -> None:
    result = evals["streamed_by_default_handler"]
    assert (result["status"], result["mean_reward"]) == ("completed", 1.0)


def test_traces_hold_every_rollouts_model_calls(evals: Story) -> None:
    story = evals["traces"]
    files = {name: trace for name, trace in story["files"].items() if name.endswith(".json")}
    assert files == story["files"]
    by_seed = {trace["seed"]: trace for trace in files.values()}
    assert sorted(by_seed) == [0, 1, 4]
    seen = {entry["seed"]: entry["correlation_id"] for entry in story["seen"]}
    assert {seed: trace["correlation_id"] for seed, trace in by_seed.items()} == seen
    assert by_seed[1]["error"] == "task app answered 500: Internal Server Error"
    assert by_seed[1]["calls"] == []
    for seed, said in ((0, "card_arrival"), (4, "none_of_these")):
        (call,) = by_seed[seed]["calls"]
        assert re.match(f"Customer Query: number {seed} ", call["request"]["messages"][-1]["content"])
        (tool_call,) = call["response"]["choices"][0]["message"]["tool_calls"]
        assert said in tool_call["function"]["arguments"]
        assert by_seed[seed]["trace"] == {"event_history": [{"said": said}], "metadata": {"seed": seed}}


def test_a_cancelled_job_starts_nothing_more(evals: Story) -> None:
    story = evals["cancelled"]
    assert story["impatient"]["status"] == "running"
    assert story["impatient"]["num_total"] == 20
    for answer in story["answers"]:
        assert answer["status"] == "succeeded"
        assert answer["message"] == "the job is cancelled"
        assert answer["attempt_id"]
    assert story["result"]["status"] == "cancelled"
    assert story["state"]["workflow_state"]["status"] == "cancelled"
    assert story["rollouts"] <= 2


def test_a_cancelled_jobs_stream_tells_so(evals: Story) -> None:
    assert evals["cancelled_while_streamed"]["status"] == "cancelled"


def test_a_job_from_toml_is_found_again_by_its_id(evals: Story) -> None:
    result = evals["from_toml"]
    assert result["status"] == "completed"
    assert rewards(result) == [(0, 1.0), (3, 0.0)]
