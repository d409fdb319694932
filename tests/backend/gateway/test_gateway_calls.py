"""Model calls through a served gateway: routes, forwarding, errors, retries."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from fakes.gateway_server import KEY, GatewayUnderTest, chat
from fakes.model_provider import completion
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

TOOLS = [{"type": "function", "function": {"name": "pick", "parameters": {"type": "object"}}}]


def test_a_call_reaches_the_provider_with_its_key_and_the_policys_model(served: GatewayUnderTest) -> None:
    answer = served.post(served.open())
    assert (answer.status_code, answer.json()) == (200, completion())
    (seen,) = served.provider.seen
    assert seen.path == "/v1/chat/completions"
    assert seen.headers["authorization"] == f"Bearer {KEY}"
    assert seen.body == chat(model="m-1") | {"model": "m-1"}


@pytest.mark.parametrize(
    "url",
    [
        "{base}/{trial}/{cid}/chat/completions",
        "{base}/{trial}/{cid}/v1/chat/completions",
        "{base}/{trial}/chat/completions?cid={cid}",
        "{base}/{trial}/v1/chat/completions?cid={cid}",
        "{base}/{trial}?cid={cid}/chat/completions",
        "{base}/{trial}/{cid}?cid={cid}/v1/chat/completions",
    ],
)
def test_every_form_of_the_inference_url_is_served(served: GatewayUnderTest, url: str) -> None:
    rollout = served.open()
    base = f"{served.gateway.base_url}/api/interceptor/v1"
    assert rollout.inference_url == f"{base}/{rollout.trial_id}/{rollout.correlation_id}"
    assert rollout.correlation_id.startswith("trace_")
    answer = served.post(url.format(base=base, trial=rollout.trial_id, cid=rollout.correlation_id))
    assert answer.status_code == 200


def test_unknown_fields_and_tools_pass_untouched(served: GatewayUnderTest) -> None:
    body = chat(tools=TOOLS, tool_choice={"type": "function", "function": {"name": "pick"}}, x_new={"a": [1]})
    served.post(served.open(), body)
    assert served.provider.seen[0].body == {**body, "model": "m-1"}


def test_thinking_budget_is_left_out(served: GatewayUnderTest) -> None:
    served.post(served.open(), chat(thinking_budget=256))
    assert "thinking_budget" not in served.provider.seen[0].body


def test_the_policys_settings_fill_what_the_app_leaves_open(served: GatewayUnderTest) -> None:
    policy = {"provider": "openai", "model": "m-1", "temperature": 0.0, "max_completion_tokens": 5}
    rollout = served.open(policy)
    served.post(rollout, chat())
    served.post(rollout, chat(temperature=0.7, max_tokens=9))
    first, second = (seen.body for seen in served.provider.seen)
    assert (first["temperature"], first["max_completion_tokens"]) == (0.0, 5)
    assert (second["temperature"], second["max_tokens"]) == (0.7, 9)
    assert "max_completion_tokens" not in second


def test_a_closed_rollout_is_not_found(served: GatewayUnderTest) -> None:
    rollout = served.open()
    served.gateway.close_rollout(rollout)
    answer = served.post(rollout)
    assert answer.status_code == 404
    assert answer.json()["error"]["message"] == "no open rollout has this URL: it never existed, or is over"
    assert served.provider.seen == []


def test_the_trial_of_one_rollout_does_not_open_with_the_id_of_another(served: GatewayUnderTest) -> None:
    one, other = served.open(), served.open()
    base = f"{served.gateway.base_url}/api/interceptor/v1"
    assert served.post(f"{base}/{one.trial_id}/{other.correlation_id}/chat/completions").status_code == 404


@pytest.mark.parametrize(
    ("body", "message"),
    [
        pytest.param(b"{", "the body is not JSON: ", id="no-json"),
        pytest.param(b"[" * 100_000, "the body is not JSON: it is nested too deep", id="too-deep"),
        pytest.param(b"[]", "the body is list, not an object", id="list"),
        pytest.param(b"{}", "'messages' must be a list with at least one message", id="no-messages"),
        pytest.param(b'{"messages": ["x"]}', "messages[0] is str, not an object", id="text-message"),
    ],
)
def test_a_body_that_is_no_call_is_refused(served: GatewayUnderTest, body: bytes, message: str) -> None:
    url = f"{served.open().inference_url}/chat/completions"
    answer = served.post(url, content=body)
    assert answer.status_code == 400
    assert answer.json()["error"]["message"].startswith(message)


def test_an_upstream_error_keeps_status_and_message(served: GatewayUnderTest) -> None:
    served.provider.script = [(400, {}, json.dumps({"error": {"message": "bad tool", "type": "oops"}}))]
    rollout = served.open()
    answer = served.post(rollout)
    assert answer.status_code == 400
    assert answer.json()["error"]["message"] == "openai answered 400: bad tool"
    assert answer.json()["error"]["type"] == "oops"
    (call,) = served.gateway.close_rollout(rollout).calls
    assert (call.status, call.error, call.response) == (400, "openai answered 400: bad tool", None)


@pytest.mark.parametrize("text", [f"no such key {KEY}", "no such key sk-pl*********6789"])
def test_a_key_in_an_upstream_error_is_blotted_out(served: GatewayUnderTest, text: str) -> None:
    served.provider.script = [(401, {}, text)]
    answer = served.post(served.open())
    assert answer.json()["error"]["message"] == "openai answered 401: no such key [key]"


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_a_passing_failure_is_tried_again(served: GatewayUnderTest, status: int) -> None:
    served.provider.script = [(status, {}, "later")] * 2
    rollout = served.open()
    assert served.post(rollout).status_code == 200
    assert len(served.provider.seen) == 3
    first, second = served.sleeps
    assert 0.25 <= first <= 0.5
    assert 0.5 <= second <= 1.0
    assert len(served.gateway.close_rollout(rollout).calls) == 1


def test_retry_after_is_obeyed(served: GatewayUnderTest) -> None:
    served.provider.script = [(429, {"Retry-After": "7"}, "later")]
    assert served.post(served.open()).status_code == 200
    assert served.sleeps == [7.0]


def test_a_wait_of_many_minutes_is_passed_on(served: GatewayUnderTest) -> None:
    served.provider.script = [(429, {"Retry-After": "3600"}, "tomorrow")]
    answer = served.post(served.open())
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "3600")
    assert served.sleeps == []


def test_attempts_are_bounded(served: GatewayUnderTest) -> None:
    served.provider.reply = lambda body: (503, {}, "down")
    answer = served.post(served.open())
    assert answer.status_code == 503
    assert answer.json()["error"]["message"] == "openai answered 503: down"
    assert len(served.provider.seen) == 5


def test_an_error_of_the_caller_is_not_tried_again(served: GatewayUnderTest) -> None:
    served.provider.script = [(404, {}, "no such model")]
    assert served.post(served.open()).status_code == 404
    assert len(served.provider.seen) == 1


def test_a_provider_that_is_not_there_is_502(make_gateway: Callable[..., GatewayUnderTest]) -> None:
    served = make_gateway({"OPENAI_BASE_URL": "http://user:pass@127.0.0.1:9/v1", "OPENAI_API_KEY": ""})
    answer = served.post(served.open())
    message = answer.json()["error"]["message"]
    assert answer.status_code == 502
    assert message.startswith("openai at http://127.0.0.1:9/v1 does not answer: ")
    assert "pass" not in message
    assert len(served.sleeps) == 4


def test_an_answer_without_json_is_502(served: GatewayUnderTest) -> None:
    served.provider.script = [(200, {}, "<html>")]
    answer = served.post(served.open())
    assert answer.status_code == 502
    assert answer.json()["error"]["message"] == "openai answered 200 with no JSON: '<html>'"


@pytest.mark.parametrize("operation", ["embeddings", "models", ""])
def test_other_operations_are_named_and_refused(served: GatewayUnderTest, operation: str) -> None:
    answer = served.post(f"{served.open().inference_url}/{operation}")
    assert answer.status_code == 404


def inference(served: GatewayUnderTest, body: Any, key: str = "good") -> Any:
    url = f"{served.gateway.base_url}/api/inference/v1/chat/completions"
    return served.post(url, body, headers={"Authorization": f"Bearer {key}"})


def test_the_inference_route_takes_the_provider_from_the_model(served: GatewayUnderTest) -> None:
    assert inference(served, chat(model="openai/m-2")).json() == completion()
    assert served.provider.seen[0].body["model"] == "m-2"


def test_the_inference_route_needs_a_key(served: GatewayUnderTest) -> None:
    answer = inference(served, chat(model="openai/m-2"), key="bad")
    assert answer.status_code == 401
    assert answer.json()["error"]["message"] == "the API key is missing or unknown"
    assert served.provider.seen == []


@pytest.mark.parametrize("model", ["gpt-4o-mini", "gpt-5", "o3", "o4-mini"])
def test_the_inference_route_knows_the_maker_of_a_model(served: GatewayUnderTest, model: str) -> None:
    assert inference(served, chat(model=model)).json() == completion()
    assert served.provider.seen[0].body["model"] == model


@pytest.mark.parametrize("model", ["gpt-oss-20b", "llama-3.1-8b-instant", "Qwen/Qwen3-4B", "o3x"])
def test_the_inference_route_refuses_a_model_of_many_providers(served: GatewayUnderTest, model: str) -> None:
    answer = inference(served, chat(model=model))
    assert answer.status_code == 400
    assert answer.json()["error"]["message"].startswith(f"model {model!r} names no provider; ")
    assert served.provider.seen == []


def test_a_limit_that_the_provider_says_is_used_up_is_waited_for(served: GatewayUnderTest) -> None:
    arrivals: list[float] = []

    async def last_one(request: Request) -> Response:
        arrivals.append(time.monotonic())
        headers = {
            "x-ratelimit-remaining-requests": "0",
            "x-ratelimit-limit-requests": "10",
            "x-ratelimit-reset-requests": "3s",
        }
        return JSONResponse(completion(), headers=headers)

    served.provider.script = [last_one, last_one]
    rollout = served.open()
    served.post(rollout)
    served.post(rollout)
    assert arrivals[1] - arrivals[0] >= 0.29  # a tenth of the limit is there again
