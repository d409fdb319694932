"""What is tried again when a task app is called, and how long is waited."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from fakes.rollout_app import RolloutApp, reward_answer
from starlette.responses import PlainTextResponse, Response

from pytest_synth._serving import bind_loopback
from pytest_synth.backend.jobs.retry import wait_s
from pytest_synth.backend.jobs.task_apps import Answer, TaskApp, TaskAppCaller, Unreachable

Serve = Callable[[RolloutApp], str]


class Scripted(RolloutApp):
    """Answers with the given statuses in turn, then well."""

    def __init__(self, *statuses: int, headers: dict[str, str] | None = None) -> None:
        super().__init__(self._next, key=None)
        self._statuses = list(statuses)
        self._extra = headers or {}

    async def _next(self, body: dict[str, Any]) -> Response | dict[str, Any]:
        if self._statuses:
            return PlainTextResponse("not now", self._statuses.pop(0), headers=self._extra)
        return reward_answer(body)


def post(url: str, *, timeout_s: float = 60.0) -> tuple[Answer | Exception, list[float]]:
    """Post one rollout with a clock that does not wait; returns the outcome and the waits."""
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    async def scene() -> Answer:
        caller = TaskAppCaller(sleep=sleep, luck=lambda: 0.0)
        caller.open()
        try:
            body = {"trace_correlation_id": "trace_1", "env": {"seed": 0}}
            return await caller.post(TaskApp(url), "/rollout", body, timeout_s=timeout_s)
        finally:
            await caller.close()

    try:
        return asyncio.run(scene()), waits
    except (Unreachable, TimeoutError) as error:
        return error, waits


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_a_busy_status_is_tried_again_with_growing_waits(serve: Serve, status: int) -> None:
    answer, waits = post(serve(Scripted(status, status, status)))
    assert isinstance(answer, Answer)
    assert answer.status == 200
    assert waits == [0.125, 0.25, 0.5]


def test_after_the_last_attempt_the_answer_is_given_as_it_is(serve: Serve) -> None:
    app = Scripted(503, 503, 503, 503, 503)
    answer, waits = post(serve(app))
    assert isinstance(answer, Answer)
    assert (answer.status, answer.text, app.runs[0], len(waits)) == (503, "not now", 4, 3)


@pytest.mark.parametrize("status", [400, 401, 404, 409, 422, 500])
def test_other_errors_are_not_tried_again(serve: Serve, status: int) -> None:
    app = Scripted(status)
    answer, waits = post(serve(app))
    assert isinstance(answer, Answer)
    assert (answer.status, app.runs[0], waits) == (status, 1, [])


def test_a_refused_connection_is_tried_again_and_named() -> None:
    with bind_loopback() as sock:
        url = f"http://127.0.0.1:{sock.getsockname()[1]}"
    error, waits = post(url)
    assert isinstance(error, Unreachable)
    assert str(error) == f"POST {url}/rollout: connection refused"
    assert len(waits) == 3


def test_an_unknown_host_is_named() -> None:
    error, _ = post("http://no-such-host.invalid:80")
    assert str(error).endswith("/rollout: the host 'no-such-host.invalid' is not known")


def test_a_password_in_the_url_is_not_shown() -> None:
    with bind_loopback() as sock:
        port = sock.getsockname()[1]
    error, _ = post(f"http://user:hunter22@127.0.0.1:{port}")
    assert str(error) == f"POST http://127.0.0.1:{port}/rollout: connection refused"


def test_retry_after_is_honoured(serve: Serve) -> None:
    _, waits = post(serve(Scripted(429, headers={"Retry-After": "7"})))
    assert waits == [7.0]


def test_a_wait_beyond_the_deadline_is_not_begun(serve: Serve) -> None:
    app = Scripted(429, headers={"Retry-After": "3600"})
    answer, waits = post(serve(app), timeout_s=30)
    assert isinstance(answer, Answer)
    assert (answer.status, app.runs[0], waits) == (429, 1, [])


def test_no_answer_within_the_deadline_is_a_time_out(serve: Serve) -> None:
    async def hang(body: dict[str, Any]) -> dict[str, Any]:
        await asyncio.sleep(60)
        return reward_answer(body)

    error, _ = post(serve(RolloutApp(hang, key=None)), timeout_s=0.2)
    assert isinstance(error, TimeoutError)


NOW = 1_700_000_000.0  # Tue, 14 Nov 2023 22:13:20 GMT


@pytest.mark.parametrize(
    ("attempt", "retry_after", "luck", "expected"),
    [
        pytest.param(1, None, 0.0, 0.125, id="first, least"),
        pytest.param(1, None, 1.0, 0.25, id="first, most"),
        pytest.param(3, None, 1.0, 1.0, id="third"),
        pytest.param(20, None, 1.0, 8.0, id="capped"),
        pytest.param(1, "2.5", 0.0, 2.5, id="seconds"),
        pytest.param(3, "0", 1.0, 1.0, id="never shorter than the own wait"),
        pytest.param(1, "Tue, 14 Nov 2023 22:13:30 GMT", 0.0, 10.0, id="date"),
        pytest.param(1, "Tue, 14 Nov 2023 22:13:10 GMT", 0.0, 0.125, id="date that is past"),
        pytest.param(1, "soon", 0.0, 0.125, id="nonsense"),
        pytest.param(1, "-3", 0.0, 0.125, id="negative"),
        pytest.param(1, "nan", 0.0, 0.125, id="not a number"),
    ],
)
def test_waits(attempt: int, retry_after: str | None, luck: float, expected: float) -> None:
    headers = {} if retry_after is None else {"Retry-After": retry_after}
    assert wait_s(attempt, headers, luck=luck, now=NOW) == expected


def test_a_task_app_shows_no_key() -> None:
    app = TaskApp("http://user:pw@host:1/base/", ("secret-key",))
    assert "secret-key" not in repr(app)
    assert app.shown == "http://host:1/base"
