"""Our client against our backend, over real loopback HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from pytest_synth import EvalJob, EvalJobConfig, EvalResult, SynthClient, create_local_api
from pytest_synth._serving import ServerThread
from pytest_synth.backend import BackendSettings, RunningBackend, start
from pytest_synth.client import StdlibTransport
from pytest_synth.errors import AuthenticationError, InvalidRequestError, JobTimeout, NotFoundError
from pytest_synth.localapi import LocalAPIConfig, RolloutMetrics, RolloutRequest, RolloutResponse

ENV_KEY = "env-key-of-the-contract-tests"


@pytest.fixture(scope="module")
def backend() -> Iterator[RunningBackend]:
    with start(BackendSettings(environ={})) as running:
        yield running


@pytest.fixture(scope="module")
def app_url() -> Iterator[str]:
    async def rollout(request: RolloutRequest, fastapi_request: Any) -> RolloutResponse:
        seed = request.env.seed
        if seed == 13:
            raise ValueError("unlucky")
        if seed is not None and seed >= 1000:
            await asyncio.sleep(3600)
        return RolloutResponse(
            trace_correlation_id=request.trace_correlation_id,
            reward_info=RolloutMetrics(outcome_reward=float(bool(seed))),
        )

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ENVIRONMENT_API_KEY", ENV_KEY)
        app = create_local_api(
            LocalAPIConfig(
                app_id="a",
                name="A",
                description="",
                provide_taskset_description=lambda: {"splits": ["test"]},
                provide_task_instances=lambda seeds: [],
                rollout=rollout,
            )
        )
        with ServerThread(app) as server:
            yield server.url


@pytest.fixture(params=["httpx", "http.client"])
def client(request: pytest.FixtureRequest, backend: RunningBackend) -> SynthClient:
    transport = StdlibTransport() if request.param == "http.client" else None
    return SynthClient(f"{backend.url}/api", backend.key, transport=transport)


def new(client: SynthClient, app_url: str, seeds: Any, **more: Any) -> EvalJob:
    config = EvalJobConfig(
        local_api_url=app_url,
        local_api_key=ENV_KEY,
        api_key=client.api_key,
        backend_url=client.base_url,
        seeds=seeds,
        policy_config={"provider": "offline", "model": "lexical"},
        env_config={"split": "test"},
        **more,
    )
    return EvalJob(config, client=client)


def check(result: EvalResult) -> None:
    assert (result.status.value, result.num_completed, result.num_total) == ("completed", 3, 3)
    assert [(row.seed, row.score, row.split) for row in sorted(result.rows, key=lambda row: row.seed)] == [
        (0, 0.0, "test"),
        (1, 1.0, "test"),
        (13, None, "test"),
    ]
    failed = next(row for row in result.rows if row.seed == 13)
    assert failed.error is not None
    assert "unlucky" in failed.error


def test_the_backend_is_up(client: SynthClient) -> None:
    assert client.health()["status"] == "ok"


def test_a_job_runs_from_submission_to_rows(client: SynthClient, app_url: str) -> None:
    job = new(client, app_url, [0, 1, 13])
    job.submit()
    check(job.poll_until_complete(timeout=30.0, interval=0.02))


def test_a_job_runs_asynchronously(client: SynthClient, app_url: str) -> None:
    async def run() -> EvalResult:
        job = new(client, app_url, [0, 1, 13])
        await job.asubmit()
        return await job.apoll_until_complete(timeout=30.0, interval=0.02)

    check(asyncio.run(run()))


@pytest.mark.parametrize("way", ["sync", "async"])
def test_each_event_of_a_job_comes_once_and_in_order(client: SynthClient, app_url: str, way: str) -> None:
    job = new(client, app_url, [0, 1, 13], concurrency=1)
    job.submit()
    events: list[dict[str, Any]] = []
    if way == "sync":
        result = job.stream_until_complete(timeout=30.0, interval=0.05, on_event=events.append)
    else:
        following = job.astream_until_complete(timeout=30.0, interval=0.05, on_event=events.append)
        result = asyncio.run(following)
    check(result)
    numbers = [event["seq"] for event in events]
    assert numbers == sorted(set(numbers))
    assert events == client.eval_events(result.job_id)
    assert (events[0]["type"], events[-1]["type"]) == ("eval.policy.job.started", "eval.policy.job.completed")


def test_a_job_that_takes_too_long_times_out_and_can_be_cancelled(client: SynthClient, app_url: str) -> None:
    job = new(client, app_url, [1000, 1001])
    job.submit()
    with pytest.raises(JobTimeout) as caught:
        job.poll_until_complete(timeout=0.1, interval=0.05)
    assert caught.value.document["results"]["total"] == 2
    assert job.cancel(reason="enough")["status"] == "succeeded"
    assert job.cancel()["status"] == "succeeded"
    result = job.poll_until_complete(timeout=10.0, interval=0.02)
    assert (result.status.value, result.is_terminal) == ("cancelled", True)
    assert sorted(row.seed for row in result.rows) == [1000, 1001]


def test_a_job_is_taken_up_by_its_id(backend: RunningBackend, client: SynthClient, app_url: str) -> None:
    job_id = new(client, app_url, [0, 1, 13]).submit()
    again = EvalJob.from_job_id(job_id, backend.url, backend.key)
    check(again.poll_until_complete(timeout=30.0, interval=0.02))


def test_a_wrong_key_and_an_unknown_job_end_a_poll_at_once(backend: RunningBackend) -> None:
    with pytest.raises(AuthenticationError, match="answered 401"):
        EvalJob.from_job_id("eval-1", backend.url, "wrong").poll_until_complete()
    with pytest.raises(NotFoundError, match="no eval job 'eval-1'"):
        EvalJob.from_job_id("eval-1", backend.url, backend.key).poll_until_complete()


def test_a_refused_field_is_named(client: SynthClient) -> None:
    with pytest.raises(InvalidRequestError, match="seeds"):
        client.submit_eval({"task_app_url": "http://127.0.0.1:1", "seeds": []})
    with pytest.raises(InvalidRequestError, match=r"verifier_config:? is not supported"):
        client.submit_eval({"task_app_url": "http://127.0.0.1:1", "seeds": [1], "verifier_config": {}})
