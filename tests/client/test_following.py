from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from fakes.event_server import Script, numbered, serve_events
from fakes.scripted_backend import FakeTime, ScriptedBackend, client_of, ok

from pytest_synth.client import EvalJob, EvalResult, StdlibTransport, SynthClient
from pytest_synth.client.following import is_end
from pytest_synth.errors import (
    AuthenticationError,
    BackendUnreachable,
    ConfigError,
    JobTimeout,
    NotFoundError,
    UnexpectedAnswer,
)

RUNNING = {"status": "running", "results": {"completed": 1, "total": 4}}
COMPLETED = {"status": "completed"}

Follow = Callable[..., EvalResult]


@pytest.fixture(params=["sync", "sync, own transport", "async", "async, own transport"])
def follow(request: pytest.FixtureRequest) -> Follow:
    """Follow a job of the script's server, in each of the four ways."""

    def run(script: Script, **arguments: Any) -> EvalResult:
        transport = StdlibTransport() if "own" in request.param else None
        with serve_events(script) as base:
            job = EvalJob(None, "e1", client=SynthClient(base, "key", transport=transport))
            if "async" in request.param:
                return asyncio.run(job.astream_until_complete(**arguments))
            return job.stream_until_complete(**arguments)

    return run


def seqs(events: list[dict[str, Any]]) -> list[int]:
    return [event["seq"] for event in events]


@pytest.mark.parametrize("replays", [False, True], ids=["by cursor", "replayed from the start"])
def test_a_thousand_events_over_a_connection_cut_three_times_come_once_and_in_order(
    follow: Follow, replays: bool
) -> None:
    script = Script(
        numbered(1000),
        [RUNNING] * 4 + [COMPLETED],
        results={"status": "completed", "mean_reward": 0.0, "results": [{"seed": 1, "score": 0}]},
        cuts=[100, 550 if replays else 450, 990 if replays else 440],
        replays=replays,
    )
    events: list[dict[str, Any]] = []
    result = follow(script, on_event=events.append)
    assert events == script.events
    assert [opened.rpartition("=")[2] for opened in script.opened] == ["0", "100", "550", "990"]
    assert (result.status.value, result.mean_reward, len(result.rows)) == ("completed", 0.0, 1)


def test_nothing_is_printed_while_a_stream_is_read(follow: Follow, capfd: pytest.CaptureFixture[str]) -> None:
    follow(Script(numbered(3), [RUNNING, COMPLETED]))
    assert capfd.readouterr() == ("", "")


def test_line_ends_of_other_servers_are_read(follow: Follow) -> None:
    script = Script(numbered(3), [RUNNING, COMPLETED], newline=b"\r\n")
    events: list[dict[str, Any]] = []
    follow(script, on_event=events.append)
    assert events == script.events


@pytest.mark.parametrize("code", [404, 405, 501])
def test_where_there_is_no_stream_the_events_are_polled(follow: Follow, code: int) -> None:
    script = Script(numbered(1000), [RUNNING, RUNNING, COMPLETED], stream_status=code)
    events: list[dict[str, Any]] = []
    follow(script, on_event=events.append, interval=0.01)
    assert (events, len(script.opened)) == (script.events, 1)


def test_a_stream_that_never_ends_does_not_outlast_the_timeout(follow: Follow) -> None:
    script = Script(numbered(2, end=None), [RUNNING], end="comments")
    start = time.monotonic()
    with pytest.raises(JobTimeout, match=r"job e1 still 'running' after 0\.4 s \(1 of 4 rollouts done\)"):
        follow(script, timeout=0.4, interval=10.0)
    assert 0.4 <= time.monotonic() - start < 5


@pytest.mark.parametrize("end", ["silence", "comments"])
def test_a_job_that_ends_without_an_event_ends_by_its_status(follow: Follow, end: str) -> None:
    script = Script(numbered(2, end=None), [RUNNING, RUNNING, {"status": "cancelled"}], end=end)
    events: list[dict[str, Any]] = []
    start = time.monotonic()
    result = follow(script, timeout=60.0, interval=0.1, on_event=events.append)
    assert (result.status.value, seqs(events)) == ("cancelled", [1, 2])
    assert time.monotonic() - start < 20


def test_events_that_came_after_the_status_turned_are_read_from_the_list(follow: Follow) -> None:
    script = Script(numbered(700), [COMPLETED])
    events: list[dict[str, Any]] = []
    follow(script, on_event=events.append)
    assert (events, script.opened) == (script.events, [])


# With a clock that only sleeping moves on.

STATUS = "/api/eval/jobs/e1"
STREAM = f"{STATUS}/events/stream"


@pytest.fixture
def backend() -> ScriptedBackend:
    scripted = ScriptedBackend()
    scripted.on("GET", f"{STATUS}/results", ok(status="completed"))
    scripted.on("GET", f"{STATUS}/events", ok(events=[]))
    return scripted


@pytest.fixture
def clock() -> FakeTime:
    return FakeTime()


@pytest.fixture
def job(backend: ScriptedBackend, clock: FakeTime) -> EvalJob:
    return EvalJob(None, "e1", client=client_of(backend, clock))


def streamed(*events: str) -> httpx.Response:
    return httpx.Response(200, text="".join(f"data: {event}\n\n" for event in events))


def test_a_stream_that_always_breaks_is_given_up_for_polling(
    backend: ScriptedBackend, job: EvalJob, clock: FakeTime
) -> None:
    backend.on("GET", STREAM, httpx.ReadError("reset"))
    backend.on("GET", f"{STATUS}/events", ok(events=[{"seq": 1, "type": "x"}]))
    backend.on("GET", STATUS, *[ok(status="running")] * 6, ok(status="completed"))
    events: list[dict[str, Any]] = []
    job.stream_until_complete(interval=7.0, on_event=events.append)
    assert (backend.count("GET", STREAM), seqs(events)) == (3, [1])
    assert clock.slept == [0.5, 1.0, 2.0, 7.0, 7.0, 7.0]


def test_a_stream_that_ends_at_once_is_not_asked_for_all_the_time(
    backend: ScriptedBackend, job: EvalJob, clock: FakeTime
) -> None:
    backend.on("GET", STREAM, streamed())
    backend.on("GET", STATUS, ok(status="running"))
    with pytest.raises(JobTimeout):
        job.stream_until_complete(timeout=60.0, interval=10.0)
    assert backend.count("GET", STREAM) == 3
    assert sum(clock.slept) == 60.0


def test_the_status_may_turn_later_than_the_last_event(
    backend: ScriptedBackend, job: EvalJob, clock: FakeTime
) -> None:
    backend.on("GET", STREAM, streamed('{"seq": 1, "type": "eval.policy.job.completed"}'))
    backend.on("GET", STATUS, *[ok(status="running")] * 3, ok(status="completed"))
    assert job.stream_until_complete().succeeded
    assert (backend.count("GET", STREAM), clock.slept) == (1, [0.25, 0.25])


def test_events_without_a_number_are_known_by_their_content(backend: ScriptedBackend, job: EvalJob) -> None:
    backend.on(
        "GET", STREAM, streamed('{"type": "a"}'), streamed('{"type": "a"}', '{"type": "b"}'), streamed()
    )
    backend.on("GET", STATUS, *[ok(status="running")] * 3, ok(status="completed"))
    events: list[dict[str, Any]] = []
    job.stream_until_complete(on_event=events.append)
    assert events == [{"type": "a"}, {"type": "b"}]


@pytest.mark.parametrize(
    ("path", "code", "kind"),
    [
        (STREAM, 401, AuthenticationError),
        (STREAM, 403, AuthenticationError),
        (STATUS, 401, AuthenticationError),
        (STATUS, 404, NotFoundError),
    ],
)
def test_an_error_that_waiting_does_not_mend_ends_it_at_once(
    backend: ScriptedBackend, job: EvalJob, clock: FakeTime, path: str, code: int, kind: type[Exception]
) -> None:
    backend.on("GET", STREAM, streamed())
    backend.on("GET", STATUS, ok(status="running"))
    backend.on("GET", path, httpx.Response(code))
    with pytest.raises(kind):
        job.stream_until_complete()
    assert clock.slept == []


def test_a_status_that_cannot_be_read_is_given_up_after_five_failures(
    backend: ScriptedBackend, job: EvalJob
) -> None:
    backend.on("GET", STREAM, httpx.ConnectError("refused"))
    backend.on("GET", STATUS, httpx.ConnectError("refused"))
    with pytest.raises(BackendUnreachable, match="refused"):
        job.stream_until_complete()
    assert backend.count("GET", STATUS) == 5


def test_an_unknown_status_is_reported(backend: ScriptedBackend, job: EvalJob) -> None:
    backend.on("GET", STATUS, ok(status="paused"))
    with pytest.raises(UnexpectedAnswer, match="unknown status 'paused'"):
        job.stream_until_complete()


def test_a_service_without_a_list_of_events_will_do(backend: ScriptedBackend, job: EvalJob) -> None:
    backend.on("GET", STREAM, httpx.Response(404))
    backend.on("GET", f"{STATUS}/events", httpx.Response(404))
    backend.on("GET", STATUS, ok(status="running"), ok(status="running"), ok(status="completed"))
    assert job.stream_until_complete().succeeded
    assert backend.count("GET", f"{STATUS}/events") == 1


def test_an_error_of_the_callback_reaches_the_caller(backend: ScriptedBackend, job: EvalJob) -> None:
    backend.on("GET", STREAM, streamed('{"seq": 1, "type": "x"}'))
    backend.on("GET", STATUS, ok(status="running"))

    def refuse(event: dict[str, Any]) -> None:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        job.stream_until_complete(on_event=refuse)


def test_a_wait_that_makes_no_sense_is_refused(job: EvalJob) -> None:
    with pytest.raises(ConfigError, match=r"interval is -1\.0; it must be 0 seconds or more"):
        job.stream_until_complete(interval=-1.0)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("eval.policy.job.completed", True),
        ("eval.policy.job.failed", True),
        ("learning.policy.gepa.job.completed", True),
        ("learning.policy.gepa.job.cancelled", True),
        ("learning.policy.gepa.validation.completed", False),
        ("learning.policy.gepa.rollout.completed", False),
        ("learning.policy.gepa.generation.completed", False),
        ("learning.policy.gepa.validation.failed", False),
        ("eval.policy.job.progress", False),
    ],
)
def test_only_a_jobs_own_end_is_the_end(kind: str, expected: bool) -> None:
    assert is_end({"type": kind}) is expected
