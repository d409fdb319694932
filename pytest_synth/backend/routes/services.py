"""What the routes work with, and how a route gets at it."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends, HTTPException, Request, Security
from fastapi.routing import APIRoute
from fastapi.security import APIKeyHeader, HTTPBearer
from starlette.responses import Response

from pytest_synth.backend.jobs.evals import EvalJobs
from pytest_synth.backend.jobs.feeds import Feeds
from pytest_synth.backend.jobs.prompt_jobs import PromptJobs
from pytest_synth.backend.store import Store, Tenants


@dataclass(frozen=True)
class Services:
    """The parts of a running backend that routes use."""

    store: Store
    tenants: Tenants
    evals: EvalJobs
    prompts: PromptJobs
    feeds: Feeds


def services(request: Request) -> Services:
    found: Services = request.app.state.services
    return found


def tenant(request: Request) -> str:
    """Name the tenant of a request.

    Raises:
        HTTPException: 401 if there is no valid key.
    """
    found = services(request).tenants.authorize(request.headers)
    if found is None:
        raise HTTPException(
            401,
            "missing or unknown API key; send it as 'Authorization: Bearer KEY' or 'X-API-Key: KEY'",
            headers={"WWW-Authenticate": "Bearer"},
        )
    return found


class KeyedRoute(APIRoute):
    """A route that asks for the key before it reads the body: who has none is told so, and stores nothing."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handle_known(request: Request) -> Response:
            tenant(request)
            return await handle(request)

        return handle_known


# For the OpenAPI document only; `tenant` reads the headers itself.
_SCHEMES = [
    Security(HTTPBearer(auto_error=False, scheme_name="bearer")),
    Security(APIKeyHeader(name="X-API-Key", auto_error=False, scheme_name="apiKey")),
]

ServicesOf = Annotated[Services, Depends(services)]
TenantOf = Annotated[str, Depends(tenant)]
AUTHENTICATED = [*_SCHEMES, Depends(tenant)]
