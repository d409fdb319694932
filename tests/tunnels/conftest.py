"""A task app on loopback, and the executable that behaves like cloudflared on PATH."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from fakes.cloudflared import CA_FILE, FakeCloudflared
from fakes.cloudflared_task_app import TaskApp

from pytest_synth._serving import ServerThread


@pytest.fixture(autouse=True)
def _edge_is_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(CA_FILE))


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    left = [t for t in set(threading.enumerate()) - before if not t.name.startswith("asyncio_")]
    for thread in left:
        thread.join(5)  # the workers of a loop that has ended end a moment after it
    assert [thread.name for thread in left if thread.is_alive()] == []


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeCloudflared]:
    """The fake as `cloudflared` on PATH; none of its processes is left at the end."""
    fake = FakeCloudflared(tmp_path)
    monkeypatch.delenv("SYNTH_CLOUDFLARED", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    yield fake
    assert fake.left_behind() == []


@pytest.fixture
def app() -> TaskApp:
    return TaskApp()


@pytest.fixture
def port(app: TaskApp) -> Iterator[int]:
    with ServerThread(app) as server:
        yield server.port
