"""What the SDK's tests share: the backend, its provider, and the drivers' runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fakes.model_provider import FakeProvider
from processes import Served, Story, intents_model, run_driver, sdk_python, served_backend

from pytest_synth._serving import ServerThread


@pytest.fixture(scope="session")
def provider() -> FakeProvider:
    return intents_model()


@pytest.fixture(scope="session")
def served(provider: FakeProvider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with (
        ServerThread(provider.app) as upstream,
        served_backend(tmp_path_factory.mktemp("backend"), f"{upstream.url}/v1") as backend,
    ):
        yield backend


@pytest.fixture(scope="session")
def drive(served: Served, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Story]:
    """Run a driver against the backend, at home in a folder of its own."""

    def run(script: str, **environ: str) -> Story:
        home: Path = tmp_path_factory.mktemp(script.removesuffix(".py"))
        return run_driver(sdk_python(), script, home, **{"SYNTH_BACKEND_URL": served.url, **environ})

    return run
