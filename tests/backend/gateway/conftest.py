from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
from fakes.gateway_server import KEY, GatewayUnderTest, Stage
from fakes.model_provider import FakeProvider

from pytest_synth._serving import ServerThread
from pytest_synth.backend.gateway import Gateway


@pytest.fixture(scope="session")
def provider_stage() -> Iterator[Stage]:
    """One server for all fake providers: starting and stopping one for each test takes 0.2 s."""
    stage = Stage()
    with ServerThread(stage) as server:
        stage.url = server.url
        yield stage


@pytest.fixture(scope="session")
def gateway_stage() -> Iterator[Stage]:
    stage = Stage()
    with ServerThread(stage) as server:
        stage.url = server.url
        yield stage


@pytest.fixture
def provider(provider_stage: Stage) -> FakeProvider:
    fake = FakeProvider()
    provider_stage.app = fake.app
    return fake


@pytest.fixture
def make_gateway(
    provider: FakeProvider, provider_stage: Stage, gateway_stage: Stage
) -> Iterator[Callable[..., GatewayUnderTest]]:
    """Serve a gateway over the fake provider; arguments go to `Gateway`."""
    made: list[GatewayUnderTest] = []

    def make(environ: Mapping[str, str] | None = None, **more: Any) -> GatewayUnderTest:
        settings = {"OPENAI_BASE_URL": f"{provider_stage.url}/v1", "OPENAI_API_KEY": KEY, **(environ or {})}
        sleeps: list[float] = []

        async def sleep(seconds: float) -> None:
            sleeps.append(seconds)

        gateway = Gateway(
            environ=settings,
            authorize=lambda headers: "local" if headers.get("authorization") == "Bearer good" else None,
            **{"sleep": sleep, **more},
        )
        gateway.base_url = gateway_stage.url
        gateway_stage.app = gateway_stage.starlette(gateway.routes())
        gateway_stage.run(gateway.startup())
        made.append(GatewayUnderTest(provider, settings, gateway, gateway_stage, provider_stage, sleeps))
        return made[-1]

    yield make
    for served in made:
        gateway_stage.run(served.gateway.shutdown())


@pytest.fixture
def served(make_gateway: Callable[..., GatewayUnderTest]) -> GatewayUnderTest:
    return make_gateway()
