from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import httpx
import pytest
import respx
from fakes.scripted_backend import KEY, FakeTime, ScriptedBackend, client_of, ok

from pytest_synth.client import EvalJob, EvalJobConfig, EvalResult, SynthClient
from pytest_synth.errors import (
    AuthenticationError,
    BackendUnreachable,
    ConfigError,
    InvalidRequestError,
    JobTimeout,
    NotFoundError,
    ServerError,
    SynthError,
    UnexpectedAnswer,
)

STATUS = "/api/eval/jobs/e1"
RUNNING = ok(job_id="e1", status="running", results={"completed": 2, "total": 4})
DONE = ok(job_id="e1", status="completed")
RESULTS = ok(
    job_id="e1",
    status="completed",
    summary={"mean_reward": 0.0},
    results=[{"seed": 0, "score": 0.0}],
)

Poll = Callable[..., EvalResult]


@pytest.fixture
def backend() -> ScriptedBackend:
    scripted = ScriptedBackend()
    scripted.on("POST", "/api/eval/jobs", httpx.Response(201, json={"job_id": "e1", "status": "running"}))
    scripted.on("GET", f"{STATUS}/results", RESULTS)
    return scripted


@pytest.fixture
def time() -> FakeTime:
    return FakeTime()


def config(**changes: Any) -> EvalJobConfig:
    given = {"task_app_url": "http://app", "api_key": KEY, "seeds": [0], "backend_url": "http://backend.test"}
    return EvalJobConfig(**(given | changes))


@pytest.fixture
def job(backend: ScriptedBackend, time: FakeTime) -> EvalJob:
    return EvalJob(None, "e1", client=client_of(backend, time))


@pytest.fixture(params=["sync", "async", "sync inside a running loop"])
def poll(request: pytest.FixtureRequest, job: EvalJob) -> Poll:
    """The three ways to poll."""

    async def inside(**arguments: Any) -> EvalResult:
        return job.poll_until_complete(**arguments)

    if request.param == "sync":
        return job.poll_until_complete
    if request.param == "async":
        return lambda **arguments: asyncio.run(job.apoll_until_complete(**arguments))
    return lambda **arguments: asyncio.run(inside(**arguments))


def test_a_job_is_submitted_once(backend: ScriptedBackend, time: FakeTime) -> None:
    job = EvalJob(config(), client=client_of(backend, time))
    assert job.job_id is None
    assert job.submit() == job.job_id == "e1"
    assert backend.body()["seeds"] == [0]
    with pytest.raises(SynthError, match="was submitted already, as e1; make a new EvalJob"):
        job.submit()
    assert backend.count("POST", "/api/eval/jobs") == 1


def test_a_refused_submission_leaves_the_job_unsubmitted(backend: ScriptedBackend) -> None:
    backend.on("POST", "/api/eval/jobs", httpx.Response(422, json={"detail": "seeds"}), ok(job_id="e2"))
    job = EvalJob(config(), client=client_of(backend))
    with pytest.raises(InvalidRequestError):
        job.submit()
    assert job.job_id is None
    assert job.submit() == "e2"


@pytest.mark.parametrize("method", ["get_status", "get_results", "cancel", "poll_until_complete"])
def test_a_job_must_be_submitted_first(backend: ScriptedBackend, method: str) -> None:
    job = EvalJob(config(), client=client_of(backend))
    with pytest.raises(SynthError, match=r"not been submitted yet; call submit\(\) first"):
        getattr(job, method)()
    assert backend.requests == []


def test_a_job_needs_a_config_or_an_id() -> None:
    with pytest.raises(ConfigError, match="needs a config, or the id"):
        EvalJob(None)


def test_a_poll_waits_and_brings_the_results(backend: ScriptedBackend, poll: Poll, time: FakeTime) -> None:
    backend.on("GET", STATUS, ok(status="queued"), RUNNING, RUNNING, DONE)
    result = poll(interval=2.0, timeout=60.0)
    assert (result.status.value, result.mean_reward, [r.score for r in result.rows]) == (
        "completed",
        0.0,
        [0.0],
    )
    assert time.slept == [2.0, 2.0, 2.0]


@pytest.mark.parametrize("code", [401, 403, 404, 400])
def test_an_error_that_waiting_does_not_mend_ends_the_poll_at_once(
    backend: ScriptedBackend, poll: Poll, time: FakeTime, code: int
) -> None:
    backend.on("GET", STATUS, RUNNING, httpx.Response(code))
    with pytest.raises((AuthenticationError, NotFoundError, InvalidRequestError), match=f"answered {code}"):
        poll(interval=1.0)
    assert (backend.count("GET", STATUS), time.slept) == (2, [1.0])


def test_three_times_503_and_then_success(backend: ScriptedBackend, poll: Poll, time: FakeTime) -> None:
    backend.on("GET", STATUS, *[httpx.Response(503)] * 3, DONE)
    assert poll(interval=0.1).succeeded
    assert time.slept == [0.5, 1.0, 2.0]


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (httpx.Response(503), ServerError),
        (httpx.ConnectError("refused"), BackendUnreachable),
    ],
)
def test_a_poll_gives_up_after_five_failures_in_a_row(
    backend: ScriptedBackend, poll: Poll, answer: Any, kind: type[Exception]
) -> None:
    backend.on("GET", STATUS, answer, answer, RUNNING, answer)
    with pytest.raises(kind):
        poll(interval=0.1, timeout=1000.0)
    assert backend.count("GET", STATUS) == 2 + 1 + 5


def test_a_poll_out_of_time_raises_with_the_last_document(
    backend: ScriptedBackend, poll: Poll, time: FakeTime
) -> None:
    backend.on("GET", STATUS, RUNNING)
    with pytest.raises(JobTimeout) as caught:
        poll(interval=4.0, timeout=10.0)
    assert str(caught.value) == (
        "job e1 still 'running' after 10 s (2 of 4 rollouts done); raise timeout, or cancel the job"
    )
    assert (caught.value.job_id, caught.value.document) == ("e1", RUNNING.json())
    assert time.slept == [4.0, 4.0, 2.0]  # and a last look at the deadline


def test_a_poll_out_of_time_names_the_last_failure(backend: ScriptedBackend, poll: Poll) -> None:
    backend.on("GET", STATUS, httpx.ReadTimeout("slow"))
    with pytest.raises(
        JobTimeout, match=r"gave no status within 0 s; the last poll failed: GET .* no answer"
    ):
        poll(timeout=0.0)


def test_one_request_of_a_poll_waits_no_longer_than_the_poll(
    backend: ScriptedBackend, job: EvalJob, time: FakeTime
) -> None:
    waits: list[float] = []

    def note(request: httpx.Request) -> httpx.Response:
        waits.append(request.extensions["timeout"]["read"])
        return RUNNING

    backend.on("GET", STATUS, note)
    with pytest.raises(JobTimeout):
        job.poll_until_complete(timeout=40.0, interval=15.0)
    assert waits == [30.0, 25.0, 10.0, 1.0]


def test_an_unknown_status_ends_the_poll_and_is_named(backend: ScriptedBackend, poll: Poll) -> None:
    backend.on("GET", STATUS, RUNNING, ok(status="exploded"))
    with pytest.raises(UnexpectedAnswer, match="job e1 has the unknown status 'exploded'"):
        poll(interval=0.0)


def test_a_failed_job_is_a_result_with_its_error_and_rows(backend: ScriptedBackend, poll: Poll) -> None:
    backend.on("GET", STATUS, ok(status="failed", error="task app is down"))
    backend.on(
        "GET", f"{STATUS}/results", ok(status="failed", error=None, results=[{"seed": 3, "error": "x"}])
    )
    result = poll()
    assert (result.failed, result.error, [r.seed for r in result.rows]) == (True, "task app is down", [3])


def test_a_failed_job_without_results_is_a_result_too(backend: ScriptedBackend, poll: Poll) -> None:
    backend.on("GET", STATUS, ok(status="failed", error="boom"))
    backend.on("GET", f"{STATUS}/results", httpx.Response(404))
    assert (poll().failed, poll().error) == (True, "boom")


def test_a_completed_job_without_results_is_an_error(backend: ScriptedBackend, poll: Poll) -> None:
    backend.on("GET", STATUS, DONE)
    backend.on("GET", f"{STATUS}/results", httpx.Response(404, json={"detail": "gone"}))
    with pytest.raises(NotFoundError, match=r"/results answered 404: gone"):
        poll()


def test_succeeded_counts_as_completed(backend: ScriptedBackend, poll: Poll) -> None:
    backend.on("GET", STATUS, ok(status="succeeded"))
    assert poll().succeeded


def test_progress_is_one_line_for_each_change(
    backend: ScriptedBackend, poll: Poll, capsys: pytest.CaptureFixture[str]
) -> None:
    backend.on("GET", STATUS, ok(status="pending"), RUNNING, RUNNING, DONE)
    poll(interval=40.0, progress=True)
    assert capsys.readouterr().out.splitlines() == [
        "[00:00] pending",
        "[00:40] running | 2/4 completed",
        "[02:00] completed | mean_reward: 0.00",
    ]


def test_nothing_is_printed_unasked(
    backend: ScriptedBackend, poll: Poll, capfd: pytest.CaptureFixture[str]
) -> None:
    backend.on("GET", STATUS, RUNNING, DONE)
    poll(interval=0.0)
    assert capfd.readouterr() == ("", "")


def test_each_status_document_is_handed_on(backend: ScriptedBackend, poll: Poll) -> None:
    backend.on("GET", STATUS, RUNNING, DONE)
    seen: list[str] = []
    poll(interval=0.0, on_status=lambda document: seen.append(document["status"]))
    assert seen == ["running", "completed"]


@pytest.mark.parametrize("arguments", [{"timeout": -1.0}, {"interval": -0.5}, {"timeout": float("nan")}])
def test_a_wait_that_makes_no_sense_is_refused(job: EvalJob, arguments: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="must be 0 seconds or more"):
        job.poll_until_complete(**arguments)


async def _all_async(job: EvalJob) -> tuple[str, str, str, str]:
    return (
        await job.asubmit(),
        (await job.aget_status())["status"],
        (await job.aget_results())["status"],
        (await job.acancel(reason="enough"))["status"],
    )


@pytest.mark.parametrize("transport", ["httpx's own", "given"])
def test_asynchronous_calls_go_through_either_transport(backend: ScriptedBackend, transport: str) -> None:
    if transport == "given":
        backend.on("GET", STATUS, RUNNING)
        backend.on("POST", f"{STATUS}/cancel", ok(status="succeeded"))
        answers = asyncio.run(_all_async(EvalJob(config(), client=client_of(backend))))
    else:
        with respx.mock(base_url="http://backend.test/api") as router:
            router.post("/eval/jobs").respond(201, json={"job_id": "e1"})
            router.get("/eval/jobs/e1").respond(json={"status": "running"})
            router.get("/eval/jobs/e1/results").respond(json={"status": "completed"})
            router.post("/eval/jobs/e1/cancel", json={"reason": "enough"}).respond(
                json={"status": "succeeded"}
            )
            answers = asyncio.run(_all_async(EvalJob(config())))
    assert answers == ("e1", "running", "completed", "succeeded")


def test_synchronous_calls_go_through_httpx() -> None:
    with respx.mock(base_url="http://backend.test/api") as router:
        router.get("/eval/jobs/e1", headers={"Authorization": f"Bearer {KEY}"}).respond(
            json={"status": "completed"}
        )
        router.get("/eval/jobs/e1/results").respond(json={"status": "completed", "results": []})
        job = EvalJob.from_job_id("e1", backend_url="http://backend.test/api/", api_key=KEY)
        assert job.poll_until_complete().succeeded


def test_taking_up_a_job_by_its_id_calls_nothing(backend: ScriptedBackend) -> None:
    with respx.mock:  # any call would be an error
        job = EvalJob.from_job_id("e1", "http://backend.test", KEY)
    assert (job.job_id, job.config, repr(job)) == ("e1", None, "EvalJob(e1)")
    with pytest.raises(SynthError, match="submitted already"):
        job.submit()


def test_many_asynchronous_polls_share_a_loop() -> None:
    async def all_of_them() -> list[EvalResult]:
        client = SynthClient("http://backend.test", KEY)
        return await asyncio.gather(
            *(EvalJob(None, f"e{n}", client=client).apoll_until_complete(interval=0.001) for n in range(8))
        )

    with respx.mock(base_url="http://backend.test/api") as router:
        router.get(path__regex=r"/results$").respond(json={"status": "completed"})
        router.get(path__regex=r"/e\d$").side_effect = [
            *[httpx.Response(200, json={"status": "running"})] * 8,
            *[httpx.Response(200, json={"status": "completed"})] * 8,
        ]
        results = asyncio.run(all_of_them())
    assert [result.job_id for result in results] == [f"e{n}" for n in range(8)]
