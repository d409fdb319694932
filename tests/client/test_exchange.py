from __future__ import annotations

from typing import Any

import httpx
import pytest
from fakes.scripted_backend import KEY, FakeTime, ScriptedBackend, client_of, ok

from pytest_synth.client import SynthClient
from pytest_synth.errors import (
    ApiError,
    AuthenticationError,
    BackendUnreachable,
    ConfigError,
    InvalidRequestError,
    NotFoundError,
    RateLimitError,
    ServerError,
    UnexpectedAnswer,
)

STATUS = "/api/eval/jobs/e1"


@pytest.fixture
def backend() -> ScriptedBackend:
    return ScriptedBackend()


@pytest.fixture
def time() -> FakeTime:
    return FakeTime()


def test_both_forms_of_the_key_go_along(backend: ScriptedBackend) -> None:
    backend.on("GET", STATUS, ok(status="running"))
    client_of(backend).eval_status("e1")
    headers = backend.requests[0].headers
    assert (headers["authorization"], headers["x-api-key"]) == (f"Bearer {KEY}", KEY)


def test_health_needs_no_key(backend: ScriptedBackend) -> None:
    backend.on("GET", "/api/health", ok(status="ok"))
    assert SynthClient("http://backend.test", transport=backend).health() == {"status": "ok"}
    assert "authorization" not in backend.requests[0].headers


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (307, ApiError),
        (400, InvalidRequestError),
        (401, AuthenticationError),
        (403, AuthenticationError),
        (404, NotFoundError),
        (409, ApiError),
        (422, InvalidRequestError),
        (429, RateLimitError),
        (500, ServerError),
        (501, ServerError),
        (503, ServerError),
    ],
)
def test_each_status_has_its_error(backend: ScriptedBackend, code: int, kind: type[ApiError]) -> None:
    backend.on("GET", STATUS, httpx.Response(code, json={"detail": "because"}))
    with pytest.raises(ApiError) as caught:
        client_of(backend).eval_status("e1")
    assert type(caught.value) is kind
    assert str(caught.value) == f"GET http://backend.test{STATUS} answered {code}: because"
    assert (caught.value.status_code, caught.value.detail) == (code, "because")


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        pytest.param({"detail": "no such job"}, "no such job", id="fastapi"),
        pytest.param(
            {
                "detail": [
                    {"loc": ["body", "seeds", 0], "msg": "not an integer", "input": {"api_key": "k"}},
                    {"loc": ["body"], "msg": "bad"},
                    {"loc": ["body", "policy"], "msg": "policy: no model"},
                ]
            },
            "seeds.0: not an integer; bad; policy: no model",
            id="fastapi 422",
        ),
        pytest.param({"error": {"message": "no model", "type": "x"}}, "no model", id="openai"),
        pytest.param({"detail": {"error": {"code": "c", "message": "m"}}}, "m", id="nested"),
        pytest.param({"strange": 1}, '{"strange":1}', id="unknown shape"),
        pytest.param("just text", "just text", id="text"),
        pytest.param([], "[]", id="empty list"),
    ],
)
def test_the_detail_is_dug_out_of_the_body(backend: ScriptedBackend, body: Any, detail: str) -> None:
    backend.on("POST", "/api/eval/jobs", httpx.Response(422, json=body))
    with pytest.raises(InvalidRequestError) as caught:
        client_of(backend).submit_eval({})
    assert caught.value.detail == detail


def test_no_key_shows_up_in_a_message_even_if_the_backend_repeats_it(backend: ScriptedBackend) -> None:
    body = {"task_app_api_key": "env-key-1", "policy": {"nested": [{"api_key": "sk-model-2"}]}}
    backend.on(
        "POST",
        "/api/eval/jobs",
        lambda request: httpx.Response(400, content=request.content + KEY.encode()),
    )
    with pytest.raises(InvalidRequestError) as caught:
        client_of(backend).submit_eval(body)
    assert "***" in str(caught.value)
    for secret in (KEY, "env-key-1", "sk-model-2"):
        assert secret not in f"{caught.value!s} {caught.value!r} {caught.value.detail}"


def test_a_long_body_is_shortened(backend: ScriptedBackend) -> None:
    backend.on("POST", "/api/eval/jobs", httpx.Response(400, text="x" * 10_000))
    with pytest.raises(InvalidRequestError) as caught:
        client_of(backend).submit_eval({})
    assert caught.value.detail == "x" * 500


def test_reading_survives_three_bad_answers(backend: ScriptedBackend, time: FakeTime) -> None:
    backend.on(
        "GET", STATUS, httpx.Response(503), httpx.ConnectError("refused"), httpx.Response(500), ok(status="x")
    )
    assert client_of(backend, time).eval_status("e1") == {"status": "x"}
    assert time.slept == [0.25, 0.5, 1.0]


def test_reading_gives_up_after_four_tries(backend: ScriptedBackend, time: FakeTime) -> None:
    backend.on("GET", STATUS, httpx.Response(503, text="down"))
    with pytest.raises(ServerError, match="answered 503: down"):
        client_of(backend, time).eval_status("e1")
    assert backend.count("GET", STATUS) == 4


def test_a_lost_connection_names_the_request_and_its_cause(backend: ScriptedBackend) -> None:
    backend.on("GET", STATUS, httpx.ReadError("connection reset"))
    with pytest.raises(BackendUnreachable, match=rf"GET .*{STATUS}: the connection .* \(connection reset\)"):
        client_of(backend).eval_status("e1")


def test_a_timeout_names_its_seconds(backend: ScriptedBackend, time: FakeTime) -> None:
    backend.on("POST", "/api/eval/jobs", httpx.ReadTimeout("slow"))
    client = SynthClient("http://backend.test", KEY, transport=backend, timing=time.timing, timeout=2.5)
    with pytest.raises(BackendUnreachable, match=r"no answer from the backend within 2\.5 s"):
        client.submit_eval({})


@pytest.mark.parametrize("answer", [httpx.Response(503), httpx.ReadTimeout("slow"), httpx.ConnectError("no")])
def test_a_submission_is_never_sent_twice(backend: ScriptedBackend, answer: Any) -> None:
    backend.on("POST", "/api/eval/jobs", answer)
    with pytest.raises((ServerError, BackendUnreachable)):
        client_of(backend).submit_eval({})
    assert backend.count("POST", "/api/eval/jobs") == 1


def test_cancelling_is_safe_to_repeat(backend: ScriptedBackend) -> None:
    backend.on("POST", f"{STATUS}/cancel", httpx.Response(502), ok(status="succeeded"))
    assert client_of(backend).cancel_eval("e1", "enough") == {"status": "succeeded"}
    assert backend.body() == {"reason": "enough"}


@pytest.mark.parametrize(
    ("asked", "waited"), [("3", 3.0), ("9999", 30.0), ("Wed, 21 Oct 2026", 0.25), ("²", 0.25)]
)
def test_retry_after_is_honoured_within_reason(
    backend: ScriptedBackend, time: FakeTime, asked: str, waited: float
) -> None:
    backend.on("GET", STATUS, httpx.Response(429, headers=[(b"Retry-After", asked.encode("latin-1"))]), ok())
    client_of(backend, time).eval_status("e1")
    assert time.slept == [waited]


@pytest.mark.parametrize("code", [400, 401, 404, 409, 501])
def test_what_waiting_does_not_mend_is_not_tried_again(backend: ScriptedBackend, code: int) -> None:
    backend.on("GET", STATUS, httpx.Response(code))
    with pytest.raises(ApiError):
        client_of(backend).eval_status("e1")
    assert backend.count("GET", STATUS) == 1


def test_an_answer_that_is_no_json_is_shown(backend: ScriptedBackend) -> None:
    backend.on("GET", STATUS, httpx.Response(200, html="<html>login</html>"))
    with pytest.raises(UnexpectedAnswer, match="with text/html; charset=utf-8 instead of JSON: '<html>login"):
        client_of(backend).eval_status("e1")


DEEP = b"[" * 100_000 + b"]" * 100_000


def test_an_answer_nested_too_deep_to_be_read_is_shown(backend: ScriptedBackend) -> None:
    backend.on("GET", STATUS, httpx.Response(200, content=DEEP), httpx.Response(400, content=DEEP))
    with pytest.raises(UnexpectedAnswer, match=r"instead of JSON: '\[\[\["):
        client_of(backend).eval_status("e1")
    with pytest.raises(InvalidRequestError, match=r"answered 400: \[\[\["):
        client_of(backend).eval_status("e1")


def test_a_redirect_is_not_followed_and_says_where_it_leads(backend: ScriptedBackend) -> None:
    headers = {"Location": f"https://other.test/api?key={KEY}"}
    backend.on("GET", STATUS, httpx.Response(301, headers=headers))
    with pytest.raises(ApiError) as refused:
        client_of(backend).eval_status("e1")
    assert refused.value.detail == (
        "it redirects to 'https://other.test/api?key=***'; if that is the backend, give its base URL"
    )
    assert len(backend.requests) == 1


def test_an_answer_that_is_no_object_is_refused(backend: ScriptedBackend) -> None:
    backend.on("GET", STATUS, httpx.Response(200, json=[1]))
    with pytest.raises(UnexpectedAnswer, match="answered with list instead of an object"):
        client_of(backend).eval_status("e1")


def test_a_submission_without_an_id_is_refused(backend: ScriptedBackend) -> None:
    backend.on("POST", "/api/eval/jobs", ok(job_id=""))
    with pytest.raises(UnexpectedAnswer, match="answered without a job_id"):
        client_of(backend).submit_eval({})


@pytest.mark.parametrize("value", [float("nan"), object()])
def test_a_body_that_is_no_json_is_refused(backend: ScriptedBackend, value: object) -> None:
    with pytest.raises(ConfigError, match="the body of POST /api/eval/jobs is not JSON"):
        client_of(backend).submit_eval({"x": value})


def test_a_job_id_cannot_leave_its_route(backend: ScriptedBackend) -> None:
    with pytest.raises(NotFoundError):
        client_of(backend).eval_status("../../files?x=")
    assert backend.requests[0].url.raw_path == b"/api/eval/jobs/..%2F..%2Ffiles%3Fx%3D"


@pytest.mark.parametrize("timeout", [0, -1.0, float("nan")])
def test_a_timeout_that_makes_no_sense_is_refused(timeout: float) -> None:
    with pytest.raises(ConfigError, match="must be more than 0 seconds"):
        SynthClient("http://host", timeout=timeout)
