from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import httpx
import pytest
from fakes.backend_api import LOCAL_KEY, Api
from fakes.rollout_app import AppStage, RolloutApp

from pytest_synth._serving import ServerThread
from pytest_synth.backend import BackendSettings, start


@contextmanager
def _open(settings: dict[str, Any]) -> Iterator[Api]:
    with start(BackendSettings(**{"environ": {}, "local_key": LOCAL_KEY, **settings})) as backend:
        headers = {"Authorization": f"Bearer {backend.key}"}
        with httpx.Client(base_url=backend.url, headers=headers, timeout=30) as http:
            yield Api(backend, http)


@pytest.fixture
def open_api() -> Iterator[Callable[..., Api]]:
    """Start a backend with given settings; all are stopped at the end."""
    with ExitStack() as stack:
        yield lambda **settings: stack.enter_context(_open(settings))


@pytest.fixture(scope="session")
def api() -> Iterator[Api]:
    """One backend for all tests that only submit jobs to it."""
    with _open({}) as api:
        yield api


@pytest.fixture(scope="session")
def stage() -> Iterator[tuple[AppStage, str]]:
    stage = AppStage()
    with ServerThread(stage, name="fake-task-apps") as server:
        yield stage, server.url


@pytest.fixture
def serve(stage: tuple[AppStage, str]) -> Callable[[RolloutApp], str]:
    """Serve a fake task app; gives its URL."""
    return lambda app: stage[1] + stage[0].add(app)
