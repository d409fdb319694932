from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import httpx
import pytest
from fakes.backend_api import LOCAL_KEY, Api
from fakes.rollout_app import RolloutApp

from pytest_synth._serving import ServerThread
from pytest_synth.backend import BackendSettings, start


@pytest.fixture
def open_api() -> Iterator[Callable[..., Api]]:
    """Start a backend with given settings; all are stopped at the end."""
    with ExitStack() as stack:

        def open_one(**settings: Any) -> Api:
            settings = {"environ": {}, "local_key": LOCAL_KEY, **settings}
            backend = stack.enter_context(start(BackendSettings(**settings)))
            headers = {"Authorization": f"Bearer {backend.key}"}
            http = stack.enter_context(httpx.Client(base_url=backend.url, headers=headers, timeout=30))
            return Api(backend, http)

        yield open_one


@pytest.fixture
def api(open_api: Callable[..., Api]) -> Api:
    return open_api()


@pytest.fixture
def serve() -> Iterator[Callable[[RolloutApp], str]]:
    """Serve a fake task app; gives its URL."""
    with ExitStack() as stack:

        def serve_one(app: RolloutApp) -> str:
            return stack.enter_context(ServerThread(app.app, name="fake-task-app")).url

        yield serve_one
