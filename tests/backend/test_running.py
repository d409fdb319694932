"""Starting and stopping a backend: nothing is left, and what cannot start says why."""

from __future__ import annotations

import asyncio
import socket
import sqlite3
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from fakes.backend_api import Api, wait_until
from fakes.rollout_app import RolloutApp, reward_answer

from pytest_synth._serving import ServerThread, bind_loopback
from pytest_synth.backend import BackendSettings, start
from pytest_synth.errors import ConfigError

MESSAGES = [{"role": "user", "content": "hello"}]
Serve = Callable[[RolloutApp], str]


def test_a_stop_leaves_no_thread_port_or_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, serve: Serve
) -> None:
    async def ask_model(body: dict[str, Any]) -> dict[str, Any]:
        url = body["policy"]["config"]["inference_url"] + "/chat/completions"
        async with httpx.AsyncClient(timeout=60) as client:
            answers.append((await client.post(url, json={"model": "m", "messages": MESSAGES})).status_code)
        return reward_answer(body)

    async def hanging_model(scope: Any, receive: Any, send: Any) -> None:
        asked.append(scope["path"])
        await asyncio.sleep(60)

    asked: list[str] = []
    answers: list[int] = []
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    url = serve(RolloutApp(ask_model))
    with ServerThread(hanging_model) as model:
        threads = set(threading.enumerate())
        backend = start(BackendSettings(environ={"OPENAI_BASE_URL": model.url + "/v1"}))
        with httpx.Client(base_url=backend.url, headers={"X-API-Key": backend.key}) as http:
            Api(backend, http).submit(url, range(8), policy={"provider": "openai", "model": "m"})
            wait_until(lambda: len(asked) == 5)
        assert list(tmp_path.iterdir()) == []  # the database has no name that could be left behind
        started = time.monotonic()
        backend.stop()

        assert time.monotonic() - started < 0.8
        assert not list(tmp_path.iterdir())
        assert set(threading.enumerate()) == threads
        with socket.socket() as sock, pytest.raises(ConnectionRefusedError):
            sock.connect(("127.0.0.1", int(backend.url.rpartition(":")[2])))
        backend.stop()
    wait_until(lambda: len(answers) == 5)  # the task app's calls were answered, not left hanging
    assert all(status >= 400 for status in answers)


def test_the_key_is_random_unless_it_is_given() -> None:
    with start(BackendSettings(environ={})) as one, start(BackendSettings(environ={})) as other:
        assert one.key != other.key
        assert len(one.key) > 32
        for key, status in ((one.key, 404), (other.key, 401), ("", 401)):
            headers = {"Authorization": f"Bearer {key}"} if key else {}
            assert httpx.get(f"{one.url}/api/eval/jobs/x", headers=headers).status_code == status


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        pytest.param({"Authorization": "Bearer {}"}, 404, id="bearer"),
        pytest.param({"authorization": "bearer {}"}, 404, id="lower-case bearer"),
        pytest.param({"X-API-Key": "{}"}, 404, id="X-API-Key"),
        pytest.param({"Authorization": "Bearer wrong", "X-API-Key": "{}"}, 404, id="one of two is right"),
        pytest.param({"Authorization": "{}"}, 401, id="no scheme"),
        pytest.param({"Authorization": "Basic {}"}, 401, id="other scheme"),
        pytest.param({"Authorization": "Bearer"}, 401, id="empty"),
        pytest.param({"X-API-Key": "{}x"}, 401, id="wrong"),
        pytest.param({}, 401, id="none"),
    ],
)
def test_both_header_forms_carry_the_key(api: Api, headers: dict[str, str], status: int) -> None:
    filled = {name: value.format(api.backend.key) for name, value in headers.items()}
    answer = httpx.get(f"{api.backend.url}/api/eval/jobs/x", headers=filled)
    assert answer.status_code == status
    if status == 401:
        assert answer.json()["detail"].startswith("missing or unknown API key; send it as")


@pytest.mark.parametrize(
    "path", ["/health", "/api/health", "/api/api/health", "//api/health", "/api//api/health"]
)
def test_health_needs_no_key(api: Api, path: str) -> None:
    answer = httpx.get(api.backend.url + path)
    assert (answer.status_code, answer.json()["status"]) == (200, "ok")
    assert answer.json()["service"] == "pytest-synth"


def test_health_tells_a_key_whether_its_jobs_may_have_extensions(api: Api) -> None:
    def told(key: str) -> bool:
        answer = httpx.get(f"{api.backend.url}/api/health", headers={"X-API-Key": key})
        found: bool = answer.json()["extensions"]
        return found

    demo = httpx.post(f"{api.backend.url}/api/demo/keys").json()["api_key"]
    assert [told(api.backend.key), told(demo), told("nobody's")] == [True, False, False]


def test_a_taken_port_is_told() -> None:
    with bind_loopback() as sock:
        port = sock.getsockname()[1]
        with pytest.raises(
            ConfigError, match=rf"cannot listen on 127.0.0.1:{port}: .*; port 0 takes a free one"
        ):
            start(BackendSettings(port=port, environ={}))


def test_a_failed_start_removes_its_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with bind_loopback() as sock, pytest.raises(ConfigError):
        start(BackendSettings(port=sock.getsockname()[1], environ={}))
    assert not list(tmp_path.iterdir())


def test_two_backends_on_one_database_are_refused(tmp_path: Path) -> None:
    db = tmp_path / "b.sqlite"
    with (
        start(BackendSettings(db=db, environ={})),
        pytest.raises(ConfigError, match=r"b\.sqlite' is in use by another backend"),
    ):
        start(BackendSettings(db=db, environ={}))


def test_a_file_that_is_no_database_is_told(tmp_path: Path) -> None:
    db = tmp_path / "b.sqlite"
    db.write_text("no database, but long enough to look like one might" * 10)
    with pytest.raises(ConfigError, match="is not a database of pytest-synth"):
        start(BackendSettings(db=db, environ={}))


def test_a_database_of_a_newer_version_is_not_touched(tmp_path: Path) -> None:
    db = tmp_path / "b.sqlite"
    with start(BackendSettings(db=db, environ={})):
        pass
    with sqlite3.connect(db) as connection:
        connection.execute("INSERT INTO migrations VALUES ('from the future', 0)")
    connection.close()
    with pytest.raises(
        ConfigError, match=r"written by a newer pytest-synth \(unknown change 'from the future'\)"
    ):
        start(BackendSettings(db=db, environ={}))


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot make the key file .*No such file"):
        start(BackendSettings(db=tmp_path / "none" / "b.sqlite", environ={}))


def test_a_key_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    db = tmp_path / "b.sqlite"
    with start(BackendSettings(db=db, environ={})):
        pass
    (tmp_path / "b.sqlite.key").chmod(0o644)
    with pytest.raises(ConfigError, match=r"b\.sqlite\.key' can be read by others; run: chmod 600"):
        start(BackendSettings(db=db, environ={}))


def test_a_broken_key_file_is_told(tmp_path: Path) -> None:
    key_file = tmp_path / "b.sqlite.key"
    key_file.write_text("abcd")
    key_file.chmod(0o600)
    with pytest.raises(ConfigError, match="holds 2 bytes instead of 32"):
        start(BackendSettings(db=tmp_path / "b.sqlite", environ={}))


@pytest.mark.parametrize(
    ("settings", "said"),
    [({"concurrency": 0}, "concurrency is 0"), ({"local_key": "short"}, "local_key is shorter than 16")],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        BackendSettings(**settings)


def test_no_setting_shows_a_key() -> None:
    settings = BackendSettings(local_key="local-key-of-the-tests", environ={"OPENAI_API_KEY": "sk-1"})
    assert "local-key" not in repr(settings)
    assert "sk-1" not in repr(settings)
