"""A backend that is killed goes on, where it is started with `resume`, from the finished seeds."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from fakes import resume_driver
from fakes.backend_api import Api, wait_until
from fakes.rollout_app import RolloutApp, reward_answer

from pytest_synth.backend import BackendSettings, start
from pytest_synth.backend.store import secrets as store_secrets

Serve = Callable[[RolloutApp], str]
SEEDS = 500


@contextmanager
def backend_process(db: Path) -> Iterator[tuple[subprocess.Popen[str], httpx.Client]]:
    process = subprocess.Popen(
        [sys.executable, str(resume_driver.__file__), str(db)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        told = json.loads(process.stdout.readline())
        headers = {"Authorization": f"Bearer {told['key']}"}
        with httpx.Client(base_url=told["url"], headers=headers, timeout=30) as http:
            yield process, http
    finally:
        process.kill()
        process.communicate()


def test_a_killed_backend_loses_nothing_and_runs_no_finished_seed_again(tmp_path: Path, serve: Serve) -> None:
    async def behave(body: dict[str, Any]) -> dict[str, Any]:
        await asyncio.sleep(0.01)
        return reward_answer(body, body["env"]["seed"] / SEEDS)

    app, db = RolloutApp(behave), tmp_path / "backend.sqlite"
    submission = {
        "task_app_url": serve(app),
        "task_app_api_key": "env-key-1",
        "seeds": list(range(SEEDS)),
        "policy": {"provider": "offline", "model": "lexical"},
        "max_concurrent": 16,
    }
    with backend_process(db) as (process, http):
        job_url = f"/api/eval/jobs/{http.post('/api/eval/jobs', json=submission).json()['job_id']}"
        wait_until(lambda: http.get(job_url).json()["results"]["completed"] >= 150)
        process.kill()
        process.wait()
    ran_before = dict(app.runs)
    assert len(ran_before) < SEEDS

    with backend_process(db) as (_, http):
        wait_until(lambda: http.get(job_url).json()["status"] == "completed")
        results = http.get(job_url + "/results").json()
        events = http.get(job_url + "/events").json()["events"]

    assert [row["seed"] for row in results["results"]] == list(range(SEEDS))
    assert [row["score"] for row in results["results"]] == [seed / SEEDS for seed in range(SEEDS)]
    assert set(app.runs) == set(range(SEEDS))
    repeated = [seed for seed, count in app.runs.items() if count > 1]
    assert len(repeated) <= 16  # what was in flight when it was killed
    assert [event["data"]["seed"] for event in events if event["type"].endswith("seed.completed")].count(
        repeated[0] if repeated else 0
    ) == 1
    assert [event["type"] for event in events].count("eval.policy.job.started") == 1
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))


def open_on(db: Path, **settings: Any) -> Iterator[Api]:
    with (
        start(BackendSettings(db=db, environ={}, **settings)) as backend,
        httpx.Client(base_url=backend.url, headers={"X-API-Key": backend.key}, timeout=30) as http,
    ):
        yield Api(backend, http)


on_db = contextmanager(open_on)


def stuck_app() -> tuple[RolloutApp, list[bool]]:
    """A task app whose rollouts wait until the test lets them go."""
    release: list[bool] = []

    async def behave(body: dict[str, Any]) -> dict[str, Any]:
        while not release:
            await asyncio.sleep(0.002)
        return reward_answer(body)

    return RolloutApp(behave), release


def test_a_stopped_backend_leaves_its_jobs_to_the_next_one(tmp_path: Path, serve: Serve) -> None:
    (app, release), db = stuck_app(), tmp_path / "b.sqlite"
    with on_db(db, resume=True) as api:
        job_id = api.submit(serve(app), range(3))
        wait_until(lambda: app.in_flight == 3)
        key = api.backend.key
    release.append(True)
    with on_db(db, resume=True) as api:
        assert api.backend.key == key
        assert api.wait(job_id)["mean_reward"] == 1.0


def test_without_resume_an_old_job_rests_and_can_be_cancelled(tmp_path: Path, serve: Serve) -> None:
    (app, release), db = stuck_app(), tmp_path / "b.sqlite"
    with on_db(db) as api:
        job_id = api.submit(serve(app), range(3))
        wait_until(lambda: app.in_flight == 3)
    release.append(True)
    with on_db(db) as api:
        assert api.status(job_id)["status"] == "running"
        api.http.post(f"/api/eval/jobs/{job_id}/cancel", json={})
        assert api.status(job_id)["status"] == "cancelled"
        assert {row["error"] for row in api.results(job_id)["results"]} == {"cancelled"}


def test_secrets_are_sealed_in_the_file_and_the_key_file_is_private(tmp_path: Path, serve: Serve) -> None:
    (app, _), db = stuck_app(), tmp_path / "b.sqlite"
    with on_db(db) as api:
        policy = {"provider": "offline", "model": "lexical", "api_key": "sk-planted-policy"}
        deep = {
            "config": {"Api_Key": "sk-planted-deep"},
            "headers": {"Authorization": "Bearer sk-planted-auth"},
        }
        job_id = api.submit(serve(app), policy={**policy, **deep, "max_tokens": 9})
        assert api.status(job_id)["config"]["policy"] == {
            "provider": "offline", "model": "lexical", "config": {}, "headers": {}, "max_tokens": 9
        }  # fmt: skip
        files = {path: path.read_bytes() for path in tmp_path.iterdir()}
        planted = (b"env-key-1", b"sk-planted", api.backend.key.encode())
    assert db.with_name("b.sqlite.key") in files
    for path, content in files.items():
        assert not [key for key in planted if key in content], path
    assert (tmp_path / "b.sqlite.key").stat().st_mode & 0o777 == 0o600


@pytest.fixture
def no_pynacl(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_secrets, "secret_box", lambda _: None)


@pytest.mark.usefixtures("no_pynacl")
def test_without_pynacl_a_lost_key_falls_back_to_the_environment(tmp_path: Path, serve: Serve) -> None:
    (app, release), db = stuck_app(), tmp_path / "b.sqlite"
    with on_db(db) as api:
        job_id = api.submit(serve(app), range(2))
        wait_until(lambda: app.in_flight == 2)
        assert b"env-key-1" not in b"".join(path.read_bytes() for path in tmp_path.iterdir())
    release.append(True)
    settings = BackendSettings(db=db, resume=True, environ={"ENVIRONMENT_API_KEY": "env-key-1"})
    with (
        start(settings) as backend,
        httpx.Client(base_url=backend.url, headers={"X-API-Key": backend.key}) as http,
    ):
        assert Api(backend, http).wait(job_id)["status"] == "completed"


@pytest.mark.usefixtures("no_pynacl")
def test_without_pynacl_a_lost_key_is_told_with_the_remedy(tmp_path: Path, serve: Serve) -> None:
    (app, _), db = stuck_app(), tmp_path / "b.sqlite"
    with on_db(db) as api:
        job_id = api.submit(serve(app), range(2))
        wait_until(lambda: app.in_flight == 2)
    with on_db(db, resume=True) as api:
        results = api.wait(job_id)
    assert results["status"] == "failed"
    assert results["error"] == (
        "the job's task_app_api_key was kept in memory only and is lost; install PyNaCl"
        " (pip install 'pytest-synth[hosted]') so that it is sealed beside the database,"
        " or set ENVIRONMENT_API_KEY for the backend"
    )
