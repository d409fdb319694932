from __future__ import annotations

import pytest
from fakes.task_caller import KEY, TaskCaller, rollout_body, toy_config

from pytest_synth.localapi import create_local_api

GUARDED = [
    ("GET", "/health"),
    ("GET", "/info"),
    ("GET", "/task_info"),
    ("POST", "/rollout"),
    ("POST", "/done"),
    ("GET", "/debug/env"),
]


@pytest.mark.parametrize(("method", "path"), GUARDED)
def test_every_route_but_the_root_wants_the_key(method: str, path: str) -> None:
    caller = TaskCaller(create_local_api(toy_config()))
    body = rollout_body() if path == "/rollout" else None
    assert caller.request(method, path, json=body, headers={}).status_code == 400
    assert caller.request(method, path, json=body).status_code == 200


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_the_root_is_open(method: str) -> None:
    answer = TaskCaller(create_local_api(toy_config())).request(method, "/", headers={})
    assert answer.status_code == 200
    assert method == "HEAD" or answer.json() == {"status": "ok", "service": "toy"}


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        pytest.param({"X-API-Key": KEY}, 200, id="key"),
        pytest.param({"x-api-keys": f"old, {KEY}"}, 200, id="one of several"),
        pytest.param({"Authorization": f"Bearer {KEY}"}, 200, id="bearer"),
        pytest.param({"authorization": f"bearer  {KEY} "}, 200, id="bearer in lower case"),
        pytest.param({"X-API-Key": "wrong", "Authorization": f"Bearer {KEY}"}, 200, id="any one counts"),
        pytest.param({"X-API-Key": "second-key"}, 200, id="alias"),
        pytest.param({}, 400, id="none"),
        pytest.param({"X-API-Key": ""}, 400, id="empty"),
        pytest.param({"X-API-Key": KEY[:-1]}, 400, id="shorter"),
        pytest.param({"X-API-Key": KEY + "x"}, 400, id="longer"),
        pytest.param({"X-API-Key": "schlüssel"}, 400, id="not ASCII"),
        pytest.param({"Authorization": f"Basic {KEY}"}, 400, id="not a bearer"),
    ],
)
def test_a_key_is_accepted_in_three_headers(
    monkeypatch: pytest.MonkeyPatch, headers: dict[str, str], status: int
) -> None:
    monkeypatch.setenv("ENVIRONMENT_API_KEY_ALIASES", "first-key, second-key,")
    answer = TaskCaller(create_local_api(toy_config())).request("GET", "/health", headers=headers)
    assert answer.status_code == status


@pytest.mark.parametrize(
    ("headers", "message"),
    [
        ({}, "the request shows no key; send it as X-API-Key or Authorization: Bearer"),
        (
            {"X-API-Key": "wrong-key-0123456789"},
            "the request shows a key that is not the task app's ENVIRONMENT_API_KEY; "
            "send it as X-API-Key or Authorization: Bearer",
        ),
    ],
)
def test_a_refusal_tells_no_part_of_any_key(headers: dict[str, str], message: str) -> None:
    answer = TaskCaller(create_local_api(toy_config())).request("GET", "/health", headers=headers)
    assert answer.json() == {"detail": {"error": {"code": "unauthorised", "message": message}}}


def test_an_app_without_a_key_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENVIRONMENT_API_KEY", " ")
    answer = TaskCaller(create_local_api(toy_config())).get("/health")
    assert answer.status_code == 503
    error = answer.json()["detail"]["error"]
    assert error["code"] == "missing_environment_api_key"
    assert error["message"].startswith("the task app has no ENVIRONMENT_API_KEY in its environment; set")


def test_the_key_is_read_at_each_request(monkeypatch: pytest.MonkeyPatch) -> None:
    caller = TaskCaller(create_local_api(toy_config()))
    monkeypatch.setenv("ENVIRONMENT_API_KEY", "renewed-0123456789")
    assert caller.get("/health").status_code == 400
    assert caller.get("/health", headers={"X-API-Key": "renewed-0123456789"}).status_code == 200


def test_the_development_key_serves_where_there_is_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    caller = TaskCaller(create_local_api(toy_config()))
    monkeypatch.setenv("DEV_ENVIRONMENT_API_KEY", "dev-key-0123456789")
    dev = {"X-API-Key": "dev-key-0123456789"}
    assert caller.get("/health", headers=dev).status_code == 400
    monkeypatch.delenv("ENVIRONMENT_API_KEY")
    assert caller.get("/health", headers=dev).status_code == 200


def test_an_app_that_requires_no_key_is_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ENVIRONMENT_API_KEY")
    caller = TaskCaller(create_local_api(toy_config(require_api_key=False)))
    answer = caller.get("/health", headers={})
    assert answer.json() == {"healthy": True, "auth": {"required": False}}
    assert caller.request("POST", "/rollout", json=rollout_body(), headers={}).status_code == 200


def test_health_and_debug_show_that_keys_are_set_and_nothing_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret-0123456789")
    monkeypatch.delenv("GROQ_API_KEY", raising=False)
    caller = TaskCaller(create_local_api(toy_config()))
    assert caller.get("/health").json() == {"healthy": True, "auth": {"required": True}}
    assert caller.get("/debug/env").json() == {
        "has_ENVIRONMENT_API_KEY": True,
        "OPENAI_API_KEY_prefix": "***",
        "GROQ_API_KEY_prefix": "",
    }


def test_debug_env_can_be_left_out() -> None:
    caller = TaskCaller(create_local_api(toy_config(expose_debug_env=False)))
    assert caller.get("/debug/env").status_code == 404
