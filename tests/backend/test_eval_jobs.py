"""Eval jobs from submission to results, over real HTTP on both sides."""

from __future__ import annotations

import asyncio
import io
import json
import zipfile
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from fakes.backend_api import Api, wait_until
from fakes.rollout_app import RolloutApp, reward_answer
from fastapi import Request
from starlette.responses import Response

Serve = Callable[[RolloutApp], str]
Open = Callable[..., Api]


async def ask_model(
    body: dict[str, Any], system: str = "Pick one label.\n- refund\n- card"
) -> httpx.Response:
    """Call the rollout's model as a task app does."""
    async with httpx.AsyncClient() as client:
        return await client.post(
            body["policy"]["config"]["inference_url"] + "/chat/completions",
            json={
                "model": body["policy"]["config"]["model"],
                "messages": [
                    {"role": "system", "content": system},
                    {"role": "user", "content": "where is my refund?"},
                ],
            },
        )


def test_every_seed_gets_its_reward_in_the_order_asked_for(api: Api, serve: Serve) -> None:
    async def behave(body: dict[str, Any]) -> dict[str, Any]:
        seed = body["env"]["seed"]
        return reward_answer(
            body, seed / 4, details={"feedback": f"seed {seed}"}, outcome_objectives={"brevity": 0.5}
        )

    results = api.run(serve(RolloutApp(behave)), [3, 1, 2], env_config={"split": "test"})

    assert results["status"] == "completed"
    assert results["error"] is None
    assert [(row["seed"], row["score"], row["outcome_reward"]) for row in results["results"]] == [
        (3, 0.75, 0.75),
        (1, 0.25, 0.25),
        (2, 0.5, 0.5),
    ]
    assert results["mean_reward"] == results["summary"]["mean_reward"] == 0.5
    assert results["summary"]["num_seeds"] == results["summary"]["num_successful"] == 3
    row = results["results"][0]
    assert row["details"] == {"feedback": "seed 3"}
    assert row["objectives"] == {"brevity": 0.5}
    assert row["split"] == "test"
    assert row["prompt_source"] == "app"
    assert row["latency_ms"] > 0


def test_the_task_app_gets_env_policy_key_and_an_inference_url(api: Api, serve: Serve) -> None:
    app = RolloutApp()
    job_id = api.submit(
        serve(app),
        [7],
        env_name="banking77",
        env_config={"split": "test", "level": 2},
        policy={
            "provider": "offline",
            "model": "lexical",
            "temperature": 0.0,
            "api_key": "users-own-key",
            "config": {"other_token": "own-token", "top_p": 1},
        },
        timeout=30.0,
    )
    api.wait(job_id)

    [body], [headers] = app.bodies, app.headers
    assert body["env"] == {"env_name": "banking77", "config": {"split": "test", "level": 2}, "seed": 7}
    config = body["policy"]["config"]
    assert config["temperature"] == 0.0
    assert config["api_key"] == "users-own-key"
    assert config["config"] == {"other_token": "own-token", "top_p": 1}
    assert config["inference_url"].startswith(api.backend.url + "/api/interceptor/v1/")
    assert body["trace_correlation_id"] in config["inference_url"]
    assert body["trace_correlation_id"].startswith("trace_")
    assert body["safety"] == {"max_time_s": 30.0}
    assert headers["x-api-key"] == headers["x-api-keys"] == "env-key-1"


def test_rows_carry_what_the_gateway_saw(api: Api, serve: Serve) -> None:
    async def behave(body: dict[str, Any]) -> dict[str, Any]:
        answer = await ask_model(body)
        text = answer.json()["choices"][0]["message"]["content"]
        return reward_answer(body, float(text == "refund"))

    results = api.run(serve(RolloutApp(behave)), [0])

    [row] = results["results"]
    assert (row["score"], row["calls"], row["answer"]) == (1.0, 1, "refund")
    assert row["query"] == "where is my refund?"
    assert row["tokens"] == results["summary"]["total_tokens"] > 0
    assert len(row["prompt_fingerprint"]) == 12


def test_a_prompt_is_applied_and_named(api: Api, serve: Serve) -> None:
    async def behave(body: dict[str, Any]) -> dict[str, Any]:
        text = (await ask_model(body, "Pick one label.\n- card")).json()["choices"][0]["message"]["content"]
        return reward_answer(body, float(text == "refund"))

    prompt = [{"role": "system", "pattern": "Pick one label.\n- refund\n- card"}]
    extensions = {"prompt": prompt, "prompt_source": "snapshot"}
    [row] = api.run(serve(RolloutApp(behave)), [0], extensions=extensions)["results"]

    assert (row["score"], row["prompt_source"], row["error"]) == (1.0, "snapshot", None)


def test_a_prompt_that_was_not_applied_is_no_reward(api: Api, serve: Serve) -> None:
    prompt = [{"role": "system", "pattern": "Never sent."}]
    results = api.run(serve(RolloutApp()), [0], extensions={"prompt": prompt})

    [row] = results["results"]
    assert (row["score"], row["error_kind"], row["prompt_source"]) == (None, "prompt_not_applied", "call")
    assert row["error"].startswith("prompt not applied: the task app made no model call at its inference_url")
    assert results["status"] == "failed"


def test_samples_run_each_seed_so_often_and_number_the_runs(api: Api, serve: Serve) -> None:
    app = RolloutApp()
    results = api.run(serve(app), [4, 5], extensions={"samples": 3})

    assert [(row["seed"], row["sample"]) for row in results["results"]] == [
        (4, 0), (4, 1), (4, 2), (5, 0), (5, 1), (5, 2),
    ]  # fmt: skip
    assert app.runs == {4: 3, 5: 3}
    assert results["summary"]["num_seeds"] == 6


def test_a_seed_given_twice_is_two_samples(api: Api, serve: Serve) -> None:
    results = api.run(serve(RolloutApp()), [4, 4])
    assert [(row["seed"], row["sample"]) for row in results["results"]] == [(4, 0), (4, 1)]


def test_status_tells_progress_times_and_configuration_without_secrets(api: Api, serve: Serve) -> None:
    job_id = api.submit(
        serve(RolloutApp()), policy={"provider": "offline", "model": "lexical", "api_key": "sk-users-own"}
    )
    api.wait(job_id)
    answer = api.http.get(f"/api/eval/jobs/{job_id}")

    status = answer.json()
    assert status["status"] == "completed"
    assert (status["results"]["completed"], status["results"]["total"]) == (3, 3)
    assert status["results"]["mean_reward"] == status["mean_reward"] == 1.0
    assert status["created_at"] <= status["started_at"] <= status["completed_at"]
    assert status["config"]["policy"] == {"provider": "offline", "model": "lexical"}
    for text in (answer.text, api.http.get(f"/api/eval/jobs/{job_id}/results").text):
        assert "sk-users-own" not in text
        assert "env-key-1" not in text


def test_a_mean_of_zero_is_zero_at_the_top_level_too(api: Api, serve: Serve) -> None:
    async def behave(body: dict[str, Any]) -> dict[str, Any]:
        return reward_answer(body, 0.0)

    results = api.run(serve(RolloutApp(behave)))
    assert (results["status"], results["mean_reward"]) == ("completed", 0.0)


def test_events_tell_the_story_and_are_read_by_cursor(api: Api, serve: Serve) -> None:
    job_id = api.submit(serve(RolloutApp()), [8, 9], max_concurrent=1)
    api.wait(job_id)
    events = api.events(job_id)

    assert [event["seq"] for event in events] == [1, 2, 3, 4, 5, 6]
    assert [event["type"].removeprefix("eval.policy.") for event in events] == [
        "job.started",
        "seed.completed",
        "job.progress",
        "seed.completed",
        "job.progress",
        "job.completed",
    ]
    assert events[0]["data"] == {"seed_count": 2}
    assert events[1]["data"] == {"seed": 8, "sample": 0, "reward": 1.0, "error": None}
    assert events[4]["data"] == {"completed": 2, "total": 2}
    assert events[5]["data"] == {"mean_reward": 1.0, "error": None}
    assert [event["seq"] for event in api.events(job_id, since_seq=2, limit=3)] == [3, 4, 5]
    assert all(event["job_id"] == job_id for event in events)


def test_no_more_rollouts_in_flight_than_the_backend_allows(open_api: Open, serve: Serve) -> None:
    async def behave(body: dict[str, Any]) -> dict[str, Any]:
        await asyncio.sleep(0.02)
        return reward_answer(body)

    api, app = open_api(concurrency=4), RolloutApp(behave)
    url = serve(app)
    jobs = [api.submit(url, range(10), max_concurrent=10) for _ in range(3)]
    for job_id in jobs:
        assert api.wait(job_id)["summary"]["num_successful"] == 10
    assert app.most_in_flight == 4


def test_a_job_keeps_its_own_limit(api: Api, serve: Serve) -> None:
    async def behave(body: dict[str, Any]) -> dict[str, Any]:
        await asyncio.sleep(0.01)
        return reward_answer(body)

    app = RolloutApp(behave)
    api.run(serve(app), range(10), max_concurrent=2)
    assert app.most_in_flight == 2


def test_cancel_cuts_what_runs_starts_nothing_more_and_keeps_what_is_done(api: Api, serve: Serve) -> None:
    async def behave(body: dict[str, Any]) -> dict[str, Any]:
        if body["env"]["seed"] > 1:
            await asyncio.sleep(60)
        return reward_answer(body)

    app = RolloutApp(behave)
    job_id = api.submit(serve(app), range(20), max_concurrent=4)
    wait_until(lambda: sum(app.runs.values()) == 6)
    answer = api.http.post(f"/api/eval/jobs/{job_id}/cancel", json={"reason": "enough"})

    assert (answer.json()["status"], answer.json()["message"]) == ("succeeded", "the job is cancelled")
    assert api.status(job_id)["status"] == "cancelled"
    rows = api.results(job_id)["results"]
    assert [row["score"] for row in rows] == [1.0, 1.0] + [None] * 18
    assert {row["error"] for row in rows[2:]} == {"cancelled"}
    assert api.events(job_id)[-1]["type"] == "eval.policy.job.cancelled"
    assert sum(app.runs.values()) == 6
    again = api.http.post(f"/api/eval/jobs/{job_id}/cancel")
    assert (again.status_code, again.json()["message"]) == (200, "the job is cancelled")


def test_a_finished_job_is_not_changed_by_a_cancel(api: Api, serve: Serve) -> None:
    job_id = api.submit(serve(RolloutApp()))
    api.wait(job_id)
    answer = api.http.post(f"/api/eval/jobs/{job_id}/cancel", json={})
    assert answer.json()["message"] == "the job is completed"
    assert api.status(job_id)["status"] == "completed"


def test_what_a_cut_rollout_has_spent_is_kept(api: Api, serve: Serve) -> None:
    async def behave(body: dict[str, Any]) -> dict[str, Any]:
        await ask_model(body)
        asked.append(body["env"]["seed"])
        await asyncio.sleep(60)
        return reward_answer(body)

    asked: list[int] = []
    job_id = api.submit(serve(RolloutApp(behave)), [0])
    wait_until(lambda: bool(asked))
    api.http.post(f"/api/eval/jobs/{job_id}/cancel", json={})
    [row] = api.results(job_id)["results"]
    assert (row["error_kind"], row["calls"]) == ("cancelled", 1)
    assert row["tokens"] > 0


def test_the_same_submission_of_a_run_and_a_test_is_the_same_job(api: Api, serve: Serve) -> None:
    app = RolloutApp()
    url = serve(app)
    extensions = {"run_id": "run-1", "node_id": "test_x.py::test_a"}
    first = api.submit(url, extensions=extensions)
    assert api.submit(url, extensions=extensions) == first
    api.wait(first)
    assert api.submit(url, extensions=extensions) == first
    assert api.submit(url, extensions={**extensions, "node_id": "test_x.py::test_b"}) != first
    assert api.submit(url, range(4), extensions=extensions) != first
    assert api.submit(url) != api.submit(url)
    assert app.runs[0] >= 1


def test_jobs_of_a_run_are_served_in_its_order(open_api: Open, serve: Serve) -> None:
    order: list[int] = []
    release: list[bool] = []

    async def behave(body: dict[str, Any]) -> dict[str, Any]:
        order.append(body["env"]["seed"])
        while not release:
            await asyncio.sleep(0.002)
        return reward_answer(body)

    api, app = open_api(concurrency=1), RolloutApp(behave, sizes={"test": 100})
    url = serve(app)
    blocker = api.submit(url, [0], extensions={"position": 0})
    wait_until(lambda: order == [0])
    late = api.submit(url, [21, 22], extensions={"position": 2})
    early = api.submit(url, [11, 12], extensions={"position": 1})
    wait_until(lambda: app.described == 3)
    api.http.get("/api/health")  # by its answer the backend has read the task app's, and queued both jobs
    release.append(True)
    for job_id in (blocker, late, early):
        api.wait(job_id)
    assert order == [0, 11, 12, 21, 22]


class LateFirstAnswer(RolloutApp):
    """A task app whose first answer to `/health` comes late."""

    asked = False

    async def _health(self, request: Request) -> Response:
        if not self.asked:
            self.asked = True
            await asyncio.sleep(0.2)
        return await super()._health(request)


def test_a_job_whose_task_app_answers_late_still_has_its_turn(open_api: Open, serve: Serve) -> None:
    """Else a run's first test could wait for all rollouts of its second."""
    order: list[int] = []

    async def behave(body: dict[str, Any]) -> dict[str, Any]:
        order.append(body["env"]["seed"])
        return reward_answer(body)

    api, url = open_api(concurrency=1), serve(LateFirstAnswer(behave))
    jobs = [api.submit(url, [n], extensions={"position": n}) for n in range(3)]
    for job_id in jobs:
        assert api.wait(job_id)["status"] == "completed"
    assert order == [0, 1, 2]


def test_a_job_that_cannot_begin_keeps_nobody_from_it(open_api: Open, serve: Serve) -> None:
    api, url = open_api(concurrency=1), serve(LateFirstAnswer(sizes={"test": 1}))
    config = {"split": "test"}
    bad = api.submit(url, [1], env_config=config, extensions={"position": 0})
    good = api.submit(url, [0], env_config=config, extensions={"position": 1})
    assert (api.wait(bad)["status"], api.wait(good)["status"]) == ("failed", "completed")


def test_a_job_has_started_when_its_first_rollout_has(open_api: Open, serve: Serve) -> None:
    """Its rollouts a second would else count the time that it waited for the jobs before it."""
    release: list[bool] = []

    async def behave(body: dict[str, Any]) -> dict[str, Any]:
        while body["env"]["seed"] == 0 and not release:
            await asyncio.sleep(0.002)
        return reward_answer(body)

    api, app = open_api(concurrency=1), RolloutApp(behave, sizes={"test": 100})
    url = serve(app)
    first = api.submit(url, [0])
    wait_until(lambda: app.in_flight == 1)
    second = api.submit(url, [1])
    wait_until(lambda: app.described == 2)
    api.http.get("/api/health")  # by its answer the second job is queued
    waiting = api.status(second)
    release.append(True)
    api.wait(first)
    api.wait(second)

    assert (waiting["status"], waiting["started_at"], api.status(first)["status"]) == (
        "pending", None, "completed",
    )  # fmt: skip
    assert api.status(second)["started_at"] >= api.status(first)["started_at"]
    assert [event["type"] for event in api.events(second)].count("eval.policy.job.started") == 1


def nested(depth: int) -> dict[str, Any]:
    value: Any = 0
    for _ in range(depth):
        value = {"x": value}
    return {"x": value}


REFUSED_BODIES = [
    pytest.param({"task_app_url": None}, "task_app_url", "valid string", id="no url"),
    pytest.param({"task_app_url": "ftp://x"}, "task_app_url", "match pattern", id="not http"),
    pytest.param({"seeds": []}, "seeds", "at least 1 item", id="no seeds"),
    pytest.param({"seeds": ["a"]}, "seeds.0", "valid integer", id="seed is text"),
    pytest.param({"seeds": [True]}, "seeds.0", "valid integer", id="seed is a truth value"),
    pytest.param({"seeds": [1.5]}, "seeds.0", "valid integer", id="seed is a fraction"),
    pytest.param({"save_trace": 1}, "save_trace", "valid boolean", id="truth value is a number"),
    pytest.param({"seeds": [-1]}, "seeds.0", "greater than or equal to 0", id="negative seed"),
    pytest.param({"max_concurrent": 0}, "max_concurrent", "greater than or equal to 1", id="no concurrency"),
    pytest.param({"timeout": 0}, "timeout", "greater than 0", id="no time"),
    pytest.param(
        {"verifier_config": {"x": 1}}, "verifier_config", "verifier_config: is not supported", id="verifier"
    ),
    pytest.param(
        {"verifier_config": {"enabled": True}}, "verifier_config", "is not supported", id="verifier on"
    ),
    pytest.param({"seeds": [0] * 100_001}, "seeds", "are 100001; a job may have 100000", id="too many seeds"),
    pytest.param({"policy": nested(101)}, "policy", "deeper than 100 levels", id="deep policy"),
    pytest.param({"env_config": nested(400)}, "env_config", "deeper than 100 levels", id="deep env_config"),
    pytest.param({"extensions": {"sample": 2}}, "extensions.sample", "not permitted", id="extension's name"),
    pytest.param(
        {"extensions": {"prompt": [{"role": "boss", "pattern": "x"}]}},
        "extensions.prompt",
        "messages[0].role is 'boss'",
        id="prompt's role",
    ),
    pytest.param({"extensions": {"samples": 50_000}}, "extensions.samples", "150000 rollouts", id="too many"),
    pytest.param({"policy": {"provider": "nobody", "model": "x"}}, "policy", "nobody", id="provider"),
]


@pytest.mark.parametrize(("change", "field", "said"), REFUSED_BODIES)
def test_a_bad_body_is_refused_by_the_field(api: Api, change: dict[str, Any], field: str, said: str) -> None:
    body = {"task_app_url": "http://127.0.0.1:1", "seeds": [1, 2, 3], "policy": {}, **change}
    answer = api.http.post("/api/eval/jobs", json=body)

    assert answer.status_code == 422
    [found] = answer.json()["detail"]
    assert ".".join(map(str, found["loc"])) == f"body.{field}"
    assert said in found["msg"]


@pytest.mark.parametrize(
    ("content", "kind", "said"),
    [
        (b"{", "application/json", "body: is not JSON (Expecting property name"),
        (b"{}", "text/plain", "body: is not a JSON object sent with 'Content-Type: application/json'"),
        (b"[]", "application/json", "body: is not a JSON object sent with"),
    ],
    ids=["cut off", "no content type of JSON", "a list"],
)
def test_a_body_that_is_no_json_object_is_refused_in_words(
    api: Api, content: bytes, kind: str, said: str
) -> None:
    answer = api.http.post("/api/eval/jobs", content=content, headers={"Content-Type": kind})

    assert answer.status_code == 422
    assert said in answer.json()["detail"][0]["msg"]


@pytest.mark.parametrize(
    "verifier", [{}, {"reward_source": "task_app"}, {"enabled": False, "reward_source": "fused"}]
)
def test_a_verifier_that_leaves_the_rewards_to_the_task_app_changes_nothing(
    api: Api, serve: Serve, verifier: dict[str, Any]
) -> None:
    result = api.run(serve(RolloutApp()), verifier_config=verifier)

    assert result["status"] == "completed"
    assert result["summary"]["num_successful"] == 3


def test_an_object_of_a_hundred_levels_is_taken(api: Api, serve: Serve) -> None:
    policy = {"provider": "offline", "model": "lexical", **nested(98)}
    assert api.run(serve(RolloutApp()), policy=policy)["status"] == "completed"


def test_a_whole_number_with_a_point_is_a_seed(api: Api, serve: Serve) -> None:
    app = RolloutApp()
    body = {"task_app_url": serve(app), "task_app_api_key": "env-key-1", "seeds": [7.0]}
    job_id = api.http.post("/api/eval/jobs", json={**body, "policy": {"provider": "offline"}}).json()[
        "job_id"
    ]
    assert [row["seed"] for row in api.wait(job_id)["results"]] == [7]


def test_a_refused_body_does_not_come_back_with_its_keys(api: Api) -> None:
    answer = api.http.post("/api/eval/jobs", json={"task_app_api_key": ["secret-key-123"], "seeds": [1]})
    assert answer.status_code == 422
    assert "secret-key-123" not in answer.text


@pytest.mark.parametrize("text", ["", "[1]", "{", "null"])
def test_what_is_no_object_is_refused(api: Api, text: str) -> None:
    answer = api.http.post("/api/eval/jobs", content=text, headers={"Content-Type": "application/json"})
    assert answer.status_code == 422


def traces_of(api: Api, job_id: str) -> dict[str, dict[str, Any]]:
    answer = api.http.get(f"/api/eval/jobs/{job_id}/traces")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/zip")
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        return {name: json.loads(archive.read(name)) for name in archive.namelist()}


@pytest.mark.parametrize("whole", [False, True])
def test_traces_hold_the_model_calls_of_each_rollout(api: Api, serve: Serve, whole: bool) -> None:
    async def behave(body: dict[str, Any]) -> dict[str, Any]:
        await ask_model(body, "Pick one label, not sk-users-own, nor sk-other.\n- refund\n- card")
        return {**reward_answer(body), "trace": {"event_history": [1]}}

    policy = {
        "provider": "offline",
        "model": "lexical",
        "api_key": "sk-users-own",
        "x": {"token": "sk-other"},
    }
    extensions = {"samples": 2}
    job_id = api.submit(
        serve(RolloutApp(behave)), [3, 4], policy=policy, extensions=extensions, save_trace=whole
    )
    api.wait(job_id)
    traces = traces_of(api, job_id)

    assert sorted(traces) == ["seed_3.json", "seed_3_sample_1.json", "seed_4.json", "seed_4_sample_1.json"]
    trace = traces["seed_3.json"]
    [call] = trace["calls"]
    assert call["request"]["messages"][0]["content"].startswith("Pick one label, not [hidden], nor [hidden].")
    assert call["response"]["choices"][0]["message"]["content"] == "refund"
    assert (trace["seed"], trace["reward"]) == (3, 1.0)
    assert trace["correlation_id"].startswith("trace_")
    assert trace.get("trace") == ({"event_history": [1]} if whole else None)


def test_a_job_that_never_ran_has_traces_that_say_why(api: Api, serve: Serve) -> None:
    job_id = api.submit(serve(RolloutApp(sizes={"test": 2})), [1, 9], env_config={"split": "test"})
    api.wait(job_id)
    traces = traces_of(api, job_id)
    assert traces["seed_1.json"]["error"].startswith("seed 9 is out of range")


def test_workflow_state_tells_how_far_a_job_is(api: Api, serve: Serve) -> None:
    job_id = api.submit(serve(RolloutApp()))
    api.wait(job_id)
    document = api.http.get(f"/api/jobs/{job_id}/workflow-state").json()
    assert document["job_id"] == job_id
    assert document["workflow_state"]["status"] == "completed"
    assert document["workflow_state"]["progress"] == {"completed": 3, "total": 3}
    assert document["error"] is None


def test_files_are_an_empty_list(api: Api) -> None:
    answer = api.http.get("/api/files", params={"limit": 5, "purpose": "x", "after": "y"})
    assert answer.json() == {"object": "list", "data": [], "has_more": False}


@pytest.mark.parametrize("path", ["", "/", "/rotate", "/lease", "/lease/x/heartbeat"])
def test_managed_tunnels_are_501_with_the_way_out(api: Api, path: str) -> None:
    answer = api.http.post("/api/v1/tunnels" + path, json={})
    assert answer.status_code == 501
    assert "reaches task apps on this machine directly (tunnel 'localhost')" in answer.json()["detail"]


def test_the_status_without_api_is_the_same(api: Api, serve: Serve) -> None:
    job_id = api.submit(serve(RolloutApp()))
    api.wait(job_id)
    assert api.http.get(f"/eval/jobs/{job_id}", params={"_t": 1}).json() == api.status(job_id)


def test_an_unknown_job_is_404_by_name(api: Api) -> None:
    answer = api.http.get("/api/eval/jobs/eval-nope")
    assert (answer.status_code, answer.json()) == (404, {"detail": "no eval job 'eval-nope'"})
