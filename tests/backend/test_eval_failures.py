"""What goes wrong in an eval job: every seed ends with a reason, and the job says the same in its words."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from fakes.backend_api import Api, wait_until
from fakes.model_provider import FakeProvider
from fakes.rollout_app import RolloutApp, reward_answer
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response

from pytest_synth._serving import ServerThread, bind_loopback

Serve = Callable[[RolloutApp], str]
Open = Callable[..., Api]


def bad_seed_1(answer: Callable[[dict[str, Any]], Response | dict[str, Any]]) -> RolloutApp:
    """A task app that answers badly for seed 1, and well for all others."""

    async def behave(body: dict[str, Any]) -> Response | dict[str, Any]:
        return answer(body) if body["env"]["seed"] == 1 else reward_answer(body)

    return RolloutApp(behave)


def structured(body: dict[str, Any]) -> Response:
    error = {"code": "rollout_failed", "message": "KeyError: 'label'"}
    return JSONResponse({"detail": {"error": error}}, status_code=500)


CASES = [
    pytest.param(
        structured, "task_app", "task app answered 500: rollout_failed: KeyError: 'label'", id="structured"
    ),
    pytest.param(
        lambda _: PlainTextResponse("Internal Server Error", 500),
        "task_app",
        "task app answered 500: Internal Server Error",
        id="plain text",
    ),
    pytest.param(
        lambda _: JSONResponse({"detail": "no such row"}, 404),
        "task_app",
        "task app answered 404: no such row",
        id="detail text",
    ),
    pytest.param(
        lambda _: JSONResponse({"detail": [{"loc": ["body", "env"], "msg": "Field required"}]}, 422),
        "task_app",
        "task app answered 422: body.env: Field required",
        id="validation list",
    ),
    pytest.param(
        lambda _: JSONResponse({"error": {"message": "model gone"}}, 500),
        "task_app",
        "task app answered 500: model gone",
        id="OpenAI shape",
    ),
    pytest.param(
        lambda _: PlainTextResponse("x" * 5000, 500),
        "task_app",
        "task app answered 500: " + "x" * 299 + "…",
        id="long text is shortened",
    ),
    pytest.param(
        lambda _: PlainTextResponse("hello", 200),
        "task_app",
        "task app answered with text instead of JSON: hello",
        id="no JSON",
    ),
    pytest.param(
        lambda _: Response('{"reward_info": ' + "[" * 100_000 + "]" * 100_000 + "}"),
        "task_app",
        "task app answered with text instead of JSON: {",
        id="JSON too deep to be read",
    ),
    pytest.param(
        lambda _: Response('{"reward_info": {"outcome_reward": 1' + "0" * 400 + "}}"),
        "no_reward",
        "reward_info.outcome_reward is 1000",
        id="an integer beyond every float",
    ),
    pytest.param(
        lambda _: RedirectResponse("http://127.0.0.1:1/rollout"),
        "task_app",
        "task app answered 307: no text",
        id="redirect is not followed",
    ),
    pytest.param(
        lambda body: {**reward_answer(body), "trace_correlation_id": "trace_other"},
        "task_app",
        "task app answered for another rollout: its trace_correlation_id is 'trace_other' instead of 'trace_",
        id="wrong correlation id",
    ),
    pytest.param(
        lambda body: {**reward_answer(body, 0.0), "success_status": "timeout", "status_detail": "no model"},
        "task_app",
        "task app reports timeout: no model",
        id="says itself that it failed",
    ),
    pytest.param(
        lambda body: reward_answer(body, 1.5),
        "no_reward",
        "reward_info.outcome_reward is 1.5, outside [0, 1]",
        id="reward out of range",
    ),
    pytest.param(
        lambda body: reward_answer(body, None),
        "no_reward",
        "reward_info.outcome_reward is missing",
        id="no reward",
    ),
    pytest.param(
        lambda _: JSONResponse([1]),
        "no_reward",
        "the task app answered list instead of an object",
        id="a list",
    ),
]


@pytest.mark.parametrize(("answer", "kind", "said"), CASES)
def test_a_failed_rollout_says_why_and_the_others_count(
    api: Api, serve: Serve, answer: Any, kind: str, said: str
) -> None:
    results = api.run(serve(bad_seed_1(answer)), range(3))

    assert results["status"] == "completed"
    assert [row["score"] for row in results["results"]] == [1.0, None, 1.0]
    row = results["results"][1]
    assert row["error"].startswith(said)
    assert row["error_kind"] == kind
    summary = results["summary"]
    assert (summary["num_successful"], summary["num_failed"], summary["mean_reward"]) == (2, 1, 1.0)


def test_a_job_completed_with_failures_says_how_many(api: Api, serve: Serve) -> None:
    job_id = api.submit(serve(bad_seed_1(structured)), range(3))
    api.wait(job_id)
    assert api.events(job_id)[-1]["data"] == {
        "mean_reward": 1.0,
        "error": "1 of 3 rollouts have no reward",
    }


def test_an_answer_without_correlation_id_counts(api: Api, serve: Serve) -> None:
    results = api.run(serve(bad_seed_1(lambda _: {"metrics": {"outcome_reward": 0.5}})), range(2))
    assert [row["score"] for row in results["results"]] == [1.0, 0.5]


def test_a_job_whose_rollouts_all_fail_has_failed(api: Api, serve: Serve) -> None:
    async def behave(body: dict[str, Any]) -> Response:
        return structured(body)

    job_id = api.submit(serve(RolloutApp(behave)), range(3))
    results = api.wait(job_id)
    said = "all 3 rollouts failed; seed 0: task app answered 500: rollout_failed: KeyError: 'label'"
    assert (results["status"], results["error"], results["mean_reward"]) == ("failed", said, None)
    assert api.status(job_id)["results"]["items"] == results["results"]
    assert api.events(job_id)[-1] | {"created_at": "", "ts": "", "timestamp_ms": 0} == {
        "seq": 8,
        "type": "eval.policy.job.failed",
        "job_id": job_id,
        "level": "error",
        "message": "",
        "data": {"error": said},
        "created_at": "",
        "ts": "",
        "timestamp_ms": 0,
    }


def test_a_rollout_that_takes_too_long_is_cut(api: Api, serve: Serve) -> None:
    async def behave(body: dict[str, Any]) -> dict[str, Any]:
        if body["env"]["seed"] == 1:
            await asyncio.sleep(60)
        return reward_answer(body)

    results = api.run(serve(RolloutApp(behave)), range(3), timeout=0.3)
    row = results["results"][1]
    assert (row["error"], row["error_kind"], row["score"]) == ("no answer within 0.3 s", "timeout", None)
    assert results["summary"]["num_successful"] == 2


def test_a_busy_answer_is_tried_again(api: Api, serve: Serve) -> None:
    async def behave(body: dict[str, Any]) -> Response | dict[str, Any]:
        if app.runs[body["env"]["seed"]] == 1:
            return PlainTextResponse("busy", 503)
        return reward_answer(body)

    app = RolloutApp(behave)
    results = api.run(serve(app), range(2))
    assert [row["score"] for row in results["results"]] == [1.0, 1.0]
    assert app.runs == {0: 2, 1: 2}


def test_a_server_error_is_not_tried_again(api: Api, serve: Serve) -> None:
    app = bad_seed_1(structured)
    api.run(serve(app), range(2))
    assert app.runs == {0: 1, 1: 1}


async def call_model(body: dict[str, Any], messages: list[dict[str, str]]) -> httpx.Response:
    async with httpx.AsyncClient() as client:
        url = body["policy"]["config"]["inference_url"] + "/chat/completions"
        return await client.post(url, json={"model": "lexical", "messages": messages})


def test_a_dead_model_is_no_low_score(api: Api, serve: Serve) -> None:
    """Many task apps turn a failed call into a reward of 0."""

    async def behave(body: dict[str, Any]) -> dict[str, Any]:
        answer = await call_model(body, [{"role": "user", "content": "Write a poem."}])
        assert answer.status_code >= 400
        return reward_answer(body, 0.0)

    [row] = api.run(serve(RolloutApp(behave)), [0])["results"]
    assert (row["score"], row["error_kind"]) == (None, "model")
    assert row["error"].startswith("the only model call failed: ")


def test_a_task_app_that_fails_for_its_model_names_the_model(api: Api, serve: Serve) -> None:
    async def behave(body: dict[str, Any]) -> Response:
        await call_model(body, [{"role": "user", "content": "Write a poem."}])
        return PlainTextResponse("HTTPStatusError", 500)

    [row] = api.run(serve(RolloutApp(behave)), [0])["results"]
    assert row["error_kind"] == "model"
    assert row["error"].startswith("task app answered 500: HTTPStatusError; its last model call failed: ")


def test_a_task_app_that_quotes_its_model_is_not_told_twice(api: Api, serve: Serve) -> None:
    async def behave(body: dict[str, Any]) -> Response:
        answer = await call_model(body, [{"role": "user", "content": "Write a poem."}])
        said.append(answer.json()["error"]["message"])
        return PlainTextResponse(
            f"ModelCallError: model call failed with 400: {said[0]} (app.py:3 in run)", 500
        )

    said: list[str] = []
    [row] = api.run(serve(RolloutApp(behave)), [0])["results"]
    assert row["error"] == f"task app answered 500; its last model call failed: {said[0]}"


def test_a_model_that_refuses_the_key_ends_the_job_at_once(open_api: Open, serve: Serve) -> None:
    async def behave(body: dict[str, Any]) -> dict[str, Any]:
        await call_model(body, [{"role": "user", "content": "hello"}])
        return reward_answer(body, 0.0)  # the task app has swallowed the error

    error = {"error": {"message": "Incorrect API key provided", "code": "invalid_api_key"}}
    provider = FakeProvider(reply=lambda _: (401, {}, json.dumps(error)))
    app = RolloutApp(behave)
    with ServerThread(provider.app) as server:
        api = open_api(environ={"OPENAI_BASE_URL": server.url + "/v1", "OPENAI_API_KEY": "sk-1"})
        policy = {"provider": "openai", "model": "m"}
        results = api.run(serve(app), range(20), policy=policy, max_concurrent=2)

    assert results["status"] == "failed"
    assert results["error"].startswith("the model refuses: ")
    assert "Incorrect API key provided" in results["error"]
    assert {row["error"] for row in results["results"]} == {results["error"]}
    assert {row["error_kind"] for row in results["results"]} == {"model"}
    assert sum(app.runs.values()) <= 4


def test_keys_that_a_task_app_echoes_do_not_get_into_rows(api: Api, serve: Serve) -> None:
    async def behave(body: dict[str, Any]) -> Response | dict[str, Any]:
        own = body["policy"]["config"]["api_key"]
        if body["env"]["seed"] == 1:
            return PlainTextResponse(f"refused {own} and env-key-1", 500)
        return reward_answer(body, details={"config": {"api_key": own, "list": [f"Bearer {own}"]}})

    policy = {"provider": "offline", "model": "lexical", "api_key": "sk-users-own"}
    results = api.run(serve(RolloutApp(behave)), range(2), policy=policy)
    good, bad = results["results"]
    assert good["details"] == {"config": {"api_key": "[hidden]", "list": ["Bearer [hidden]"]}}
    assert bad["error"] == "task app answered 500: refused [hidden] and [hidden]"


# Before the first rollout


def test_a_dead_task_app_fails_the_job_within_two_seconds(api: Api) -> None:
    with bind_loopback() as sock:
        url = f"http://127.0.0.1:{sock.getsockname()[1]}"
    started = time.monotonic()
    results = api.run(url, range(2))

    assert time.monotonic() - started < 2.5
    said = f"task app at {url} is unreachable (GET {url}/health: connection refused); is it running?"
    assert (results["status"], results["error"]) == ("failed", said)
    assert [(row["error"], row["error_kind"]) for row in results["results"]] == [(said, "unreachable")] * 2


def test_a_url_that_is_none_fails_the_job(api: Api) -> None:
    assert "is not a URL" in api.run("http://[::1")["error"]
    assert "is not a URL" in api.run(f"http://{'a' * 64}.example")["error"]


def test_a_wrong_key_fails_the_job_before_any_rollout(api: Api, serve: Serve) -> None:
    app = RolloutApp(key="the-right-key")
    url = serve(app)
    results = api.run(url)
    said = (
        f"task app at {url} refused GET /health with 400; its ENVIRONMENT_API_KEY differs from the backend's"
    )
    assert (results["status"], results["error"]) == ("failed", said)
    assert results["results"][0]["error_kind"] == "refused"
    assert not app.bodies


def test_a_key_that_only_rollouts_check_is_told_alike(api: Api, serve: Serve) -> None:
    app = RolloutApp(key="the-right-key", health=lambda: JSONResponse({"healthy": True}))
    url = serve(app)
    [row] = api.run(url, [0])["results"]
    assert row["error"] == (
        f"task app at {url} refused POST /rollout with 400;"
        " its ENVIRONMENT_API_KEY differs from the backend's"
    )


def test_a_backend_without_any_key_says_that(api: Api, serve: Serve) -> None:
    url = serve(RolloutApp())
    results = api.run(url, task_app_api_key=None)
    assert results["error"] == (
        f"task app at {url} refused GET /health with 400; the backend has no ENVIRONMENT_API_KEY for it:"
        " send task_app_api_key with the job, or upload the key"
    )


def test_the_local_key_may_use_the_environments_key(open_api: Open, serve: Serve) -> None:
    api = open_api(environ={"ENVIRONMENT_API_KEY": "env-key-1"})
    results = api.run(serve(RolloutApp()), task_app_api_key=None)
    assert results["status"] == "completed"


def test_a_health_check_that_fails_is_quoted(api: Api, serve: Serve) -> None:
    url = serve(RolloutApp(health=lambda: PlainTextResponse("loading data", 500)))
    results = api.run(url)
    assert results["error"] == f"task app at {url} answered GET /health with 500: loading data"


def test_a_seed_out_of_range_fails_the_job_before_any_rollout(api: Api, serve: Serve) -> None:
    app = RolloutApp(sizes={"train": 10, "test": 3080})
    results = api.run(serve(app), [0, 4000], env_config={"split": "test"})
    said = "seed 4000 is out of range: split 'test' has 3080 rows (0 to 3079)"
    assert (results["status"], results["error"]) == ("failed", said)
    assert {row["error_kind"] for row in results["results"]} == {"out_of_range"}
    assert not app.bodies


def test_an_unknown_split_is_named_with_the_known_ones(api: Api, serve: Serve) -> None:
    results = api.run(serve(RolloutApp(sizes={"train": 10, "test": 10})), env_config={"split": "tset"})
    assert results["error"] == "split 'tset' is unknown: the task app has 'train', 'test'"


def test_without_a_split_no_seed_is_refused(api: Api, serve: Serve) -> None:
    assert api.run(serve(RolloutApp(sizes={"train": 1})), [99])["status"] == "completed"


# In the middle of a job


def test_a_task_app_that_dies_ends_the_job_and_keeps_what_is_done(api: Api) -> None:
    async def behave(body: dict[str, Any]) -> dict[str, Any]:
        if body["env"]["seed"] > 4:
            await asyncio.sleep(60)
        return reward_answer(body)

    app = RolloutApp(behave)
    with ServerThread(app.app) as server:
        job_id = api.submit(server.url, range(30), max_concurrent=4)
        wait_until(lambda: sum(app.runs.values()) == 9)
        url = server.url
    results = api.wait(job_id)

    assert results["status"] == "failed"
    assert results["error"].startswith(f"task app at {url} is unreachable (GET {url}/health: ")
    rows = results["results"]
    assert [row["score"] for row in rows] == [1.0] * 5 + [None] * 25
    assert {row["error_kind"] for row in rows[5:]} <= {"unreachable", "task_app"}
    assert {row["error"] for row in rows[20:]} == {results["error"]}


def test_a_single_unreachable_rollout_does_not_end_the_job(api: Api, serve: Serve) -> None:
    async def behave(body: dict[str, Any]) -> Response | dict[str, Any]:
        return reward_answer(body) if body["env"]["seed"] != 2 else CutResponse()

    results = api.run(serve(RolloutApp(behave)), range(6), max_concurrent=1)
    assert results["status"] == "completed"
    assert [row["score"] for row in results["results"]] == [1.0, 1.0, None, 1.0, 1.0, 1.0]
    assert results["results"][2]["error_kind"] == "unreachable"


class CutResponse(Response):
    """Ends the connection in the middle of the answer."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        headers = [(b"content-length", b"100")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"{", "more_body": False})
