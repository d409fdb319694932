"""Prompt-learning jobs of the published SDK against `pytest-synth serve`.

What it reads is compared with what its task app and the model provider have really seen: the reward of every
prompt on every row is known (`intents_world`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
from fakes.model_provider import FakeProvider, Seen
from intents_world import PROPOSALS, reward
from processes import Story, sdk_python

sdk_python()

PREFIX = "learning.policy.gepa."
BASELINE = "Baseline system prompt"  # as the config has it; the task app sends another text
USER = "Customer Query: {query}\n\nAvailable Intents:\n{available_intents}"
VALIDATION = range(50, 60)


@pytest.fixture(scope="module")
def prompts(drive: Callable[..., Story]) -> Story:
    return drive("sdk_prompts.py")


def system_of(pattern: Mapping[str, Any]) -> str:
    system, user = pattern["messages"]
    assert (system["role"], system["order"]) == ("system", 0)
    assert user == {"role": "user", "order": 1, "pattern": USER}
    text: str = system["pattern"]
    return text


def test_the_documented_job_ends_with_a_better_prompt(prompts: Story) -> None:
    story = prompts["documented"]
    result, best = story["result"], story["system_prompt"]
    assert story["job_id"].startswith("pl_")
    assert (result["job_id"], result["status"]) == (story["job_id"], "succeeded")
    assert result["error"] is None
    assert best == system_of(result["best_prompt"])
    assert any(best.startswith(proposal) for proposal in PROPOSALS)
    assert result["best_score"] > reward(BASELINE, range(50))
    assert story["best_texts"][0] == best
    for again in (story["again"], story["replayed"]):
        assert again["status"] == "succeeded"
        assert (again["best_prompt"], again["best_score"]) == (result["best_prompt"], result["best_score"])


def test_the_budget_counts_the_rollouts_that_the_app_saw(prompts: Story, provider: FakeProvider) -> None:
    story = prompts["documented"]
    seen = story["seen"]
    assert 40 <= len(seen) <= 80
    assert story["read"]["prompts"]["total_rollouts"] == len(seen)
    assert story["get_status"]["total_rollouts"] == len(seen)
    (started,) = [e for e in story["read"]["events"] if e["type"] == PREFIX + "job.started"]
    assert started["data"]["plan"]["budget"] == 80
    assert {entry["seed"] for entry in seen} >= set(VALIDATION)
    assert len({entry["correlation_id"] for entry in seen}) == len(seen)
    assert max(entry["in_flight"] for entry in seen) <= 8
    for entry in seen:
        assert entry["extracted_id"] == entry["correlation_id"]
        assert entry["policy"]["model"] == "gpt-4.1-nano"
        assert entry["policy"]["inference_mode"] == "synth_hosted"


def test_every_prompt_is_scored_by_what_it_really_earns(prompts: Story) -> None:
    read = prompts["documented"]["read"]
    tops = read["prompts"]["top_prompts"]
    assert [top["rank"] for top in tops] == list(range(1, len(tops) + 1))
    pareto = seeds_of_ranked(read["events"])
    for top in tops:
        text = system_of(top["pattern"])
        assert top["full_text"] == text
        assert top["train_accuracy"] == pytest.approx(reward(text, pareto))
    best = tops[0]
    assert best["val_accuracy"] == pytest.approx(reward(best["full_text"], VALIDATION))
    assert read["prompts"]["best_score"] == best["train_accuracy"]
    assert system_of(read["prompts"]["best_prompt"]) == best["full_text"]
    assert BASELINE in [top["full_text"] for top in tops]


def seeds_of_ranked(events: list[dict[str, Any]]) -> list[int]:
    """The Pareto set, of which every ranked candidate tells."""
    ranked = [
        e["data"] for e in events if e["type"] == PREFIX + "candidate.evaluated" and "rank" in e["data"]
    ]
    (seeds,) = {tuple(sorted(data["seeds"])) for data in ranked}
    assert len(seeds) == 10
    assert set(seeds) <= set(range(50))
    return list(seeds)


def test_validation_is_told_for_baseline_and_best(prompts: Story) -> None:
    baseline, best = prompts["documented"]["read"]["prompts"]["validation_results"]
    assert baseline["is_baseline"] is True
    assert "rank" not in baseline
    assert baseline["outcome_reward"] == pytest.approx(reward(BASELINE, VALIDATION))
    assert (best["is_baseline"], best["rank"]) == (False, 1)
    assert best["outcome_reward"] == pytest.approx(reward(prompts["documented"]["system_prompt"], VALIDATION))


def test_every_attempt_has_its_score(prompts: Story) -> None:
    found = prompts["documented"]["read"]["prompts"]
    attempted, optimized = found["attempted_candidates"], found["optimized_candidates"]
    ids = [candidate["candidate_id"] for candidate in attempted]
    assert len(set(ids)) == len(ids)
    assert {candidate["candidate_id"] for candidate in optimized} <= set(ids)
    assert all(0 <= candidate["outcome_reward"] <= 1 for candidate in attempted)
    assert found["total_proposal_calls"] >= len(ids) - 1  # the baseline is no proposal
    assert found["version_tree"]["root"] in ids


def test_the_summary_is_that_of_the_attempts(prompts: Story) -> None:
    read = prompts["documented"]["read"]
    summary, found = read["summary"], read["prompts"]
    rewards = [candidate["outcome_reward"] for candidate in found["attempted_candidates"]]
    assert summary["num_candidates_tried"] == len(rewards)
    assert summary["num_frontier_candidates"] == len(found["optimized_candidates"]) > 0
    assert summary["best_train_accuracy"] == max(rewards) == found["best_score"]
    assert summary["mean_train_accuracy"] == pytest.approx(sum(rewards) / len(rewards))
    assert sum(summary["score_distribution"].values()) == len(rewards)
    assert summary["best_val_accuracy"] == found["validation_results"][1]["outcome_reward"]


def test_prompt_texts_are_found_by_rank(prompts: Story) -> None:
    story = prompts["documented"]
    tops = story["read"]["prompts"]["top_prompts"]
    first, second, none = story["read"]["texts"]
    assert first == tops[0]["full_text"] == story["system_prompt"]
    assert second == tops[1]["full_text"] == story["best_texts"][1]
    assert none is None


def test_all_ways_to_read_a_job_agree(prompts: Story) -> None:
    story = prompts["documented"]
    read, results = story["read"], story["get_results"]
    assert story["by_functions"] == [read["prompts"], read["texts"][0], read["summary"]]
    for name in (
        "best_prompt",
        "best_score",
        "top_prompts",
        "optimized_candidates",
        "attempted_candidates",
        "validation_results",
    ):
        assert results[name] == read["prompts"][name]
    assert read["job"] == story["get_status"]
    for document in (read["job"], story["statuses"][-1]):
        assert document["job_id"] == document["id"] == story["job_id"]
        assert document["status"] == "succeeded"
        assert document["best_score"] == document["best_reward"] == results["best_score"]
        assert document["best_prompt"] == document["best_candidate"] == results["best_prompt"]
        assert document["baseline_score"] == pytest.approx(reward(BASELINE, range(50)))
        assert document["created_at"] <= document["started_at"] <= document["completed_at"]
        assert document["config"]["prompt_learning"]["gepa"]["rollout"]["budget"] == 80


def test_statuses_are_told_while_the_job_runs(prompts: Story) -> None:
    statuses = prompts["documented"]["statuses"]
    assert {status["status"] for status in statuses[:-1]} <= {"pending", "running"}
    scores = [status["best_score"] for status in statuses if status["best_score"] is not None]
    assert scores == sorted(scores)
    assert {status["algorithm"] for status in statuses} == {"gepa"}


def test_the_workflow_state_is_the_jobs(prompts: Story) -> None:
    state = prompts["documented"]["state"]
    assert (state["job_id"], state["error"]) == (prompts["documented"]["job_id"], None)
    assert state["query_name"]
    assert state["workflow_state"]["status"] == "succeeded"
    assert state["workflow_state"]["algorithm"] == "gepa"


def test_events_are_numbered_and_read_from_a_cursor(prompts: Story) -> None:
    story = prompts["documented"]
    events = story["read"]["events"]
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    assert all(isinstance(event["data"], dict) for event in events)
    assert {event["job_id"] for event in events} == {story["job_id"]}
    assert story["read"]["later_events"] == events[3:5]
    types = [event["type"].removeprefix(PREFIX) for event in events]
    assert (types[0], types[-1]) == ("job.started", "job.completed")
    assert types.count("job.completed") == 1
    assert not any(kind.endswith("failed") for kind in types)
    bests = [e["data"]["best_score"] for e in events if e["type"] == PREFIX + "candidate.new_best"]
    assert bests == sorted(bests)
    assert bests[-1] == story["result"]["best_score"]


def test_an_ended_job_is_replayed_to_the_handlers(prompts: Story) -> None:
    story = prompts["documented"]
    replayed = story["replayed_events"]
    assert replayed
    assert replayed == story["read"]["events"][: len(replayed)]


def test_an_ended_job_stays_as_it_is_when_it_is_cancelled(prompts: Story) -> None:
    answer = prompts["documented"]["cancel_after_end"]
    assert answer["status"] == "succeeded"
    assert answer["message"] == "the job is succeeded"


def test_the_candidate_runs_in_place_of_the_apps_own_prompt(prompts: Story, provider: FakeProvider) -> None:
    best = prompts["documented"]["system_prompt"]
    ran = {
        seed: {call.body["messages"][0]["content"] for call in provider.seen if asked(call, seed)}
        for seed in VALIDATION  # rows that only searches run
    }
    assert all({BASELINE, best} <= systems for systems in ran.values())
    assert not any("baseline prompt" in systems for systems in ran.values())


def asked(call: Seen, seed: int) -> bool:
    return bool(call.body.get("tools")) and f"number {seed} " in call.body["messages"][-1]["content"]


def test_a_stream_brings_the_events_and_the_best_prompt(prompts: Story) -> None:
    story = prompts["streamed"]
    result, events, listed = story["result"], story["events"], story["listed"]
    assert result["status"] == "succeeded"
    assert result["best_score"] == listed[-1]["data"]["best_score"]
    assert story["system_prompt"] == system_of(listed[-1]["data"]["best_prompt"])
    # Once it knows the end, the SDK drops what it has not handed on yet.
    assert events == listed[: len(events)]
    assert any(event["type"] == PREFIX + "candidate.evaluated" for event in events)
    assert story["rollouts"] == listed[-1]["data"]["total_rollouts"] <= 50


def test_the_sdks_own_handler_takes_the_events_of_a_search(prompts: Story) -> None:
    assert prompts["streamed_by_default_handler"]["status"] == "succeeded"


def test_the_sdks_health_check_of_its_app_passes(prompts: Story) -> None:
    story = prompts["health_checked"]
    assert story["result"]["status"] == "succeeded"
    assert story["absent"]["kind"] == "ValueError"
    assert story["absent"]["text"].startswith("Task app health check failed: ")


def test_a_cancelled_search_starts_nothing_more(prompts: Story) -> None:
    story = prompts["cancelled"]
    assert story["impatient"]["status"] == "running"
    assert [answer["message"] for answer in story["answers"]] == ["the job is cancelled"] * 2
    assert [answer["status"] for answer in story["answers"]] == ["succeeded"] * 2
    assert story["result"]["status"] == "cancelled"
    assert story["state"]["workflow_state"]["status"] == "cancelled"
    assert story["rollouts"] <= 8


def test_a_cancelled_searchs_stream_tells_so(prompts: Story) -> None:
    assert prompts["cancelled_while_streamed"]["status"] == "cancelled"


def test_a_search_whose_app_is_not_there_fails_within_seconds(prompts: Story) -> None:
    story = prompts["unreachable"]
    for result in (story["result"], story["streamed"]):
        assert result["status"] == "failed"
        assert result["error"].startswith(f"task app at {story['url']} is unreachable (")
    assert story["took_s"] < 15


def test_a_search_whose_rollouts_all_fail_says_why(prompts: Story) -> None:
    result = prompts["all_rollouts_fail"]
    assert result["status"] == "failed"
    assert result["error"].endswith("task app answered 500: Internal Server Error")


@pytest.mark.parametrize(
    ("call", "kind", "said"),
    [
        ("wrong key", "RuntimeError", "Job submission failed with status 401: "),
        ("wrong key, reading", "HTTPError", "HTTP 401 for "),
        ("budget", "RuntimeError", "prompt_learning.gepa.rollout.budget: is 25; at least "),
        ("verifier", "RuntimeError", "prompt_learning.verifier"),
        ("unknown status", "HTTPError", "no prompt-learning job 'pl_unknown'"),
        ("unknown events", "HTTPError", "no prompt-learning job 'pl_unknown'"),
        ("unknown poll", "RuntimeError", "Polling failed after 5 consecutive errors."),
        ("unknown cancel", "RuntimeError", "HTTP 404 "),
        ("unknown stream", "Exception", "SSE endpoint returned 404: "),
    ],
)
def test_what_cannot_be_done_is_refused(prompts: Story, call: str, kind: str, said: str) -> None:
    refused = prompts["refused"][call]
    assert refused["kind"] == kind
    assert said in refused["text"]


def test_the_state_of_an_unknown_search_is_none(prompts: Story) -> None:
    state = prompts["refused"]["unknown state"]
    assert state["workflow_state"] is None
    assert state["error"].startswith("HTTP 404: ")


def test_overrides_of_the_config_count(prompts: Story) -> None:
    story = prompts["overridden"]
    assert story["result"]["status"] == "succeeded"
    assert story["rollouts"] <= 50
    assert story["result"]["raw"]["config"]["prompt_learning"]["gepa"]["rollout"]["budget"] == 50


def test_a_search_from_toml_runs(prompts: Story) -> None:
    story = prompts["from_toml"]
    assert story["result"]["status"] == "succeeded"
    assert story["rollouts"] == story["result"]["raw"]["total_rollouts"] <= 50
