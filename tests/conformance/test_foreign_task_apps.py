"""Task apps that others wrote, each in an environment of its own, behind our backend and client.

SYNTH_SDK_PYTHON names a Python that has synth-ai 0.7.0, SYNTH_CONTAINERS_PYTHON one that has
synth-containers 0.4; without them these tests are skipped.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from pytest_synth import EvalJob, EvalJobConfig, EvalResult
from pytest_synth._serving import ServerThread, bind_loopback
from pytest_synth.backend import BackendSettings, RunningBackend, start
from pytest_synth.localapi.containers import container_app

HERE = Path(__file__).parent
KEY = "environment-key-0123456789"


@contextmanager
def served(python: str, script: str, home: Path) -> Iterator[str]:
    """Run a script of this folder, as if on a machine of its own: no home, no other keys."""
    sock = bind_loopback()
    port = sock.getsockname()[1]
    sock.close()
    environ = {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "ENVIRONMENT_API_KEY": KEY,
        "SYNTH_BACKEND_URL": "http://127.0.0.1:9",  # nothing listens there
    }
    process = subprocess.Popen(
        [python, str(HERE / script), str(port)], env=environ, stderr=subprocess.DEVNULL
    )
    try:
        wait_for(f"http://127.0.0.1:{port}/", process)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(10)


def wait_for(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while True:
        assert process.poll() is None, "the task app ended"
        assert time.monotonic() < deadline, "the task app does not answer"
        try:
            httpx.get(url, timeout=5)
        except httpx.TransportError:
            time.sleep(0.05)
        else:
            return


@pytest.fixture
def backend() -> Iterator[RunningBackend]:
    backend = start(BackendSettings(environ={}))
    try:
        yield backend
    finally:
        backend.stop()


def evaluate(backend: RunningBackend, url: str, seeds: list[int], key: str = KEY) -> EvalResult:
    job = EvalJob(
        EvalJobConfig(
            local_api_url=url,
            backend_url=backend.url,
            api_key=backend.key,
            task_app_api_key=key,
            env_name="intents",
            seeds=seeds,
            policy_config={"model": "lexical", "provider": "offline"},
            env_config={"split": "test"},
        )
    )
    job.submit()
    return job.poll_until_complete(timeout=60, interval=0.05)


def rows(result: EvalResult) -> list[tuple[int, float | None, str | None]]:
    return [(row.seed, row.outcome_reward, row.error) for row in result.rows]


needs_sdk = pytest.mark.skipif(
    "SYNTH_SDK_PYTHON" not in os.environ, reason="SYNTH_SDK_PYTHON names no Python with synth-ai 0.7.0"
)
needs_containers = pytest.mark.skipif(
    "SYNTH_CONTAINERS_PYTHON" not in os.environ,
    reason="SYNTH_CONTAINERS_PYTHON names no Python with synth-containers 0.4",
)


@needs_sdk
def test_a_task_app_of_the_published_sdk_answers_our_backend(tmp_path: Path, backend: RunningBackend) -> None:
    with served(os.environ["SYNTH_SDK_PYTHON"], "sdk_task_app.py", tmp_path) as url:
        result = evaluate(backend, url, [0, 1, 2, 3, 4])
    assert rows(result) == [
        (0, 1.0, None),
        (1, 1.0, None),
        (2, 1.0, None),
        (3, None, "task app answered 500: Internal Server Error"),
        (4, None, "the task app's answer has no reward_info"),
    ]
    first = result.rows[0]
    assert (first.query, first.calls) == ("When will my new card arrive?", 1)
    assert first.details == {"expected": "card_arrival"}


@needs_sdk
def test_a_wrong_key_is_told_apart_at_a_task_app_of_the_published_sdk(
    tmp_path: Path, backend: RunningBackend
) -> None:
    with served(os.environ["SYNTH_SDK_PYTHON"], "sdk_task_app.py", tmp_path) as url:
        ((_, reward, error),) = rows(evaluate(backend, url, [0], key="another-key-0123456789"))
    assert reward is None
    assert error is not None
    assert error.endswith("with 400; its ENVIRONMENT_API_KEY differs from the backend's")


@needs_containers
def test_a_container_answers_our_backend(
    tmp_path: Path, backend: RunningBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ENVIRONMENT_API_KEY", KEY)
    with (
        served(os.environ["SYNTH_CONTAINERS_PYTHON"], "synth_container.py", tmp_path) as url,
        ServerThread(container_app(url, name="intents")) as task_app,
    ):
        result = evaluate(backend, task_app.url, [0, 1, 2])
    assert [(row.seed, row.outcome_reward) for row in result.rows] == [(0, 1.0), (1, 1.0), (2, None)]
    assert result.rows[0].details["expected"] == "card_arrival"
    assert result.rows[0].details["predicted"] == "card_arrival"
    assert result.rows[2].error is not None
    assert "the container answered POST /rollouts with 500: Internal Server Error" in result.rows[2].error
