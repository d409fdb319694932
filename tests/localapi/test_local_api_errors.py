from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import httpx
import pytest
from fakes.task_caller import KEY, TaskCaller, answer, rollout_body, toy_config
from fastapi import HTTPException

from pytest_synth._serving import ServerThread
from pytest_synth.localapi import RolloutRequest, RolloutResponse, create_local_api


def stop_iteration(*_: Any) -> Any:
    return next(iter([]))


def fail_the_test(*_: Any) -> Any:
    pytest.fail("not like that")


def leave(*_: Any) -> Any:
    raise SystemExit(3)


def group(*_: Any) -> Any:
    raise ExceptionGroup("two", [ExceptionGroup("one", [KeyError("inner")]), ValueError("other")])


def deep(*_: Any) -> Any:
    return int("x1")


def in_a_library(*_: Any) -> Any:
    import json

    return json.loads("{")


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


def unspeakable(*_: Any) -> Any:
    raise Unspeakable


def cut_text(*_: Any) -> Any:
    raise ValueError("cut \ud83d")


async def deep_async(*_: Any) -> Any:
    return deep()


async def cancel_itself(*_: Any) -> Any:
    import asyncio

    raise asyncio.CancelledError


@pytest.mark.parametrize(
    ("rollout", "message", "function"),
    [
        pytest.param(deep, "ValueError: invalid literal for int() with base 10: 'x1'", "deep", id="def"),
        pytest.param(
            deep_async, "ValueError: invalid literal for int() with base 10: 'x1'", "deep", id="async"
        ),
        pytest.param(cut_text, "ValueError: cut ? (", "cut_text", id="half a surrogate pair"),
        pytest.param(unspeakable, "Unspeakable: (its text cannot be read)", "unspeakable", id="no text"),
        pytest.param(in_a_library, "JSONDecodeError: Expecting", "in_a_library", id="raised in a library"),
        pytest.param(stop_iteration, "RuntimeError: the function raised StopIteration", None, id="iterator"),
        pytest.param(fail_the_test, "Failed: not like that", "fail_the_test", id="pytest.fail"),
        pytest.param(leave, "SystemExit: 3", "leave", id="SystemExit"),
        pytest.param(group, "KeyError: 'inner'", None, id="group"),
        pytest.param(cancel_itself, "CancelledError", "cancel_itself", id="cancelled"),
    ],
)
def test_a_rollout_that_raises_is_answered_with_the_exception_and_its_place(
    rollout: Any, message: str, function: str | None
) -> None:
    reply = TaskCaller(create_local_api(toy_config(rollout=rollout))).rollout()
    assert reply.status_code == 500
    error = reply.json()["detail"]["error"]
    assert error["code"] == "rollout_failed"
    assert error["message"].startswith(message)
    assert error["exception"] == message.partition(":")[0]
    if function is not None:
        assert "test_local_api_errors.py:" in error["place"]
        assert error["place"].endswith(f" in {function}")
        assert error["message"].endswith(f"({error['place']})")


@pytest.mark.parametrize("is_async", [False, True])
def test_a_keyboard_interrupt_that_the_users_code_raises_does_not_stop_a_server_thread(
    monkeypatch: pytest.MonkeyPatch, is_async: bool
) -> None:
    """Out of a task it would end the event loop, and whoever waits for an answer would wait on."""

    def interrupt(*_: Any) -> Any:
        raise KeyboardInterrupt

    async def interrupt_async(*_: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setenv("ENVIRONMENT_API_KEY", KEY)
    app = create_local_api(toy_config(rollout=interrupt_async if is_async else interrupt))
    with ServerThread(app) as server:
        ask = partial(httpx.post, f"{server.url}/rollout", headers={"X-API-Key": KEY}, timeout=10)
        replies = [ask(json=rollout_body()) for _ in range(2)]
    errors = [reply.json()["detail"]["error"] for reply in replies]
    assert [error["exception"] for error in errors] == ["KeyboardInterrupt"] * 2


def test_an_http_exception_keeps_its_status_and_detail() -> None:
    def rollout(*_: Any) -> Any:
        raise HTTPException(503, {"reason": "warming up", "wait_s": 3}, {"Retry-After": "3"})

    reply = TaskCaller(create_local_api(toy_config(rollout=rollout))).rollout()
    assert (reply.status_code, reply.headers["retry-after"]) == (503, "3")
    assert reply.json() == {"detail": {"reason": "warming up", "wait_s": 3}}


def changed(**fields: Any) -> Callable[..., Any]:
    return lambda request, _: {**answer(request).model_dump(), **fields}


def unchecked(reward: Any) -> Callable[..., RolloutResponse]:
    """A response whose reward was set after it was checked."""

    def rollout(request: RolloutRequest, _: Any) -> RolloutResponse:
        response = answer(request)
        response.reward_info.outcome_reward = reward
        return response

    return rollout


def circle(request: RolloutRequest, _: Any) -> Any:
    trace: dict[str, Any] = {}
    trace["self"] = trace
    return {**answer(request).model_dump(), "trace": trace}


@pytest.mark.parametrize(
    ("rollout", "message"),
    [
        pytest.param(
            lambda *_: None,
            "rollout returned None; it must return a RolloutResponse or a mapping with its fields",
            id="nothing",
        ),
        pytest.param(lambda *_: 0.5, "rollout returned 0.5; it must return a RolloutResponse", id="number"),
        pytest.param(changed(reward_info=None), "the task app's answer has no reward_info", id="no reward"),
        pytest.param(unchecked(1.2), "reward_info.outcome_reward is 1.2, outside [0, 1]", id="too high"),
        pytest.param(unchecked(-1), "reward_info.outcome_reward is -1, outside [0, 1]", id="negative"),
        pytest.param(unchecked(math.nan), "reward_info.outcome_reward is nan, not a finite", id="not finite"),
        pytest.param(unchecked("0.5"), "reward_info.outcome_reward is '0.5', not a number", id="text"),
        pytest.param(
            changed(reward_info={"outcome_reward": 1, "event_rewards": [0.5, "x"]}),
            "reward_info.event_rewards.1 is 'x': Input should be a valid number",
            id="field of a list",
        ),
        pytest.param(
            changed(reward_info={"outcome_reward": 1, "outcome_objectives": {"speed": math.inf}}),
            "reward_info.outcome_objectives.speed is inf, not a finite number",
            id="objective not finite",
        ),
        pytest.param(
            changed(success_status="fine"), "success_status is 'fine': Input should be 'success'", id="word"
        ),
        pytest.param(
            changed(trace_correlation_id="trace_2"),
            "trace_correlation_id is 'trace_2', not the request's 'trace_1'; "
            "pass request.trace_correlation_id on",
            id="wrong correlation",
        ),
        pytest.param(
            changed(reward_info={"outcome_reward": 1, "details": {"seen": [1, object]}}),
            "reward_info.details.seen[1] is <class 'object'>, which has no JSON form",
            id="no JSON",
        ),
    ],
)
def test_an_answer_that_does_not_fit_names_the_field_and_its_value(rollout: Any, message: str) -> None:
    status, code, text = TaskCaller(create_local_api(toy_config(rollout=rollout))).refused()
    assert (status, code) == (500, "invalid_rollout_response")
    assert text.startswith(message)


def test_an_answer_without_correlation_id_names_it() -> None:
    rollout = lambda *_: {"reward_info": {"outcome_reward": 1}}  # noqa: E731
    _, _, text = TaskCaller(create_local_api(toy_config(rollout=rollout))).refused()
    assert text == "trace_correlation_id is missing"


def test_an_answer_that_holds_itself_is_a_structured_error() -> None:
    status, code, text = TaskCaller(create_local_api(toy_config(rollout=circle))).refused()
    assert (status, code) == (500, "invalid_rollout_response")
    assert "ircular" in text or "holds itself" in text


class Array:
    """Looks like numpy's scalars and arrays do."""

    def __init__(self, values: Any) -> None:
        self.values = values

    def tolist(self) -> Any:
        return self.values


def test_notes_are_sent_as_plain_as_json_can() -> None:
    details = {"nan": math.nan, "cut": "\ud83d", "array": Array([1, 2]), "set": {1}, "bytes": b"x"}
    rollout = lambda request, _: answer(request, 1.0, **details)  # noqa: E731
    reply = TaskCaller(create_local_api(toy_config(rollout=rollout))).rollout()
    assert reply.json()["reward_info"]["details"] == {
        "nan": "NaN",
        "cut": "?",
        "array": [1, 2],
        "set": [1],
        "bytes": "x",
    }


def test_a_request_that_does_not_fit_names_the_field_and_repeats_no_value() -> None:
    body = rollout_body(policy={"api_key": "sk-callers-own-key"})
    del body["env"]
    body["policy"]["output_mode"] = "sk-callers-own-key"
    reply = TaskCaller(create_local_api(toy_config())).request("POST", "/rollout", json=body)
    assert reply.status_code == 422
    assert [entry["loc"] for entry in reply.json()["detail"]] == [
        ["body", "env"],
        ["body", "policy", "output_mode"],
    ]
    assert "sk-callers-own-key" not in reply.text


@pytest.mark.parametrize(
    "rollout",
    [
        pytest.param(lambda request, http: 1 / 0, id="control"),
        pytest.param(lambda request, http: {}[http.headers["x-api-key"]], id="environment key"),
        pytest.param(lambda request, http: {}[request.policy.config["api_key"]], id="policy's key"),
        pytest.param(lambda request, http: int("sk-of-the-provider-0123"), id="provider's key"),
        pytest.param(lambda request, http: f"answer with {KEY}", id="wrong answer"),
        pytest.param(
            lambda request, http: (_ for _ in ()).throw(HTTPException(502, {"text": f"bad {KEY}"})),
            id="HTTPException",
        ),
    ],
)
def test_no_error_holds_a_key(monkeypatch: pytest.MonkeyPatch, rollout: Any) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-the-provider-0123")
    caller = TaskCaller(create_local_api(toy_config(rollout=rollout)))
    reply = caller.rollout(policy={"api_key": "sk-policy-0123456789"})
    assert reply.status_code in (500, 502)
    for key in (KEY, "sk-policy-0123456789", "sk-of-the-provider-0123"):
        assert key not in reply.text
    assert ("***" in reply.text) == ("ZeroDivisionError" not in reply.text)


def test_a_long_message_is_cut() -> None:
    def rollout(*_: Any) -> Any:
        raise ValueError("x" * 100_000)

    _, _, text = TaskCaller(create_local_api(toy_config(rollout=rollout))).refused()
    assert len(text) < 2500
    assert "xxx ... (" in text
