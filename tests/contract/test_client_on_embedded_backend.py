"""Our client against our backend, over real loopback HTTP."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pytest_synth import (
    EvalJob,
    EvalJobConfig,
    EvalResult,
    JobsClient,
    SynthClient,
    create_local_api,
    mint_demo_api_key,
    setup_environment_api_key,
)
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
    start = time.monotonic()
    if way == "sync":
        result = job.stream_until_complete(timeout=30.0, interval=1.0, on_event=events.append)
    else:
        following = job.astream_until_complete(timeout=30.0, interval=1.0, on_event=events.append)
        result = asyncio.run(following)
    took_s = time.monotonic() - start
    check(result)
    assert took_s < 2.5, "the stream is kept open for published clients, and our client waited for its end"
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
        client.submit_eval(
            {"task_app_url": "http://127.0.0.1:1", "seeds": [1], "verifier_config": {"name": "v"}}
        )


def test_traces_are_downloaded_and_name_their_seeds(
    client: SynthClient, app_url: str, tmp_path: Path
) -> None:
    job = new(client, app_url, [0, 1], save_trace=True)
    job.submit()
    assert job.poll_until_complete(timeout=30.0, interval=0.02).succeeded
    folder = job.download_traces(tmp_path / "traces")
    texts = [path.read_text(encoding="utf-8") for path in folder.rglob("*.json")]
    assert sorted(json.loads(text)["seed"] for text in texts) == [0, 1]
    assert not any(ENV_KEY in text for text in texts)


def test_a_workflow_state_is_read(client: SynthClient, app_url: str) -> None:
    job = new(client, app_url, [1])
    job_id = job.submit()
    assert job.poll_until_complete(timeout=30.0, interval=0.02).succeeded
    state = job.query_workflow_state()
    assert (state["job_id"], state["workflow_state"]["status"]) == (job_id, "completed")
    assert client.workflow_state("eval-unknown")["error"].startswith("HTTP 404: no job 'eval-unknown'")


def test_an_uploaded_key_is_the_one_that_rollouts_are_sent_with(
    backend: RunningBackend, app_url: str
) -> None:
    demo_key = mint_demo_api_key(backend.url, ttl_hours=1)
    assert setup_environment_api_key(backend.url, demo_key, token=ENV_KEY)["stored"] is True
    client = SynthClient(backend.url, demo_key)
    body = {
        "task_app_url": app_url,
        "seeds": [1],
        "policy": {"provider": "offline", "model": "lexical"},
    }
    job = EvalJob.from_job_id(client.submit_eval(body), backend.url, demo_key)
    assert [row.score for row in job.poll_until_complete(timeout=30.0, interval=0.02).rows] == [1.0]


def test_files_are_listed(backend: RunningBackend) -> None:
    async def ask() -> Any:
        async with JobsClient(base_url=backend.url, api_key=backend.key) as client:
            return await client.files.list(limit=5)

    assert asyncio.run(ask()) == {"object": "list", "data": [], "has_more": False}
