"""A server between backend and task app that notes the rollouts passing through."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pytest_synth.tunnels.forwarding import METHODS, Forwarder

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response


@dataclass(frozen=True)
class SeenRollout:
    """One `POST /rollout` and its answer.

    Attributes:
        correlation_id, inference_url: Of the request; the rest of it may hold keys and is not kept.
        status, body: Of the answer.
    """

    correlation_id: str
    inference_url: str
    status: int
    body: bytes


class Tap:
    """Hands all requests on to a task app; `app` is what is served.

    Attributes:
        rollouts: What has passed, in order of the answers.
    """

    def __init__(self, target: str) -> None:
        self.rollouts: list[SeenRollout] = []
        self._forwarder = Forwarder(target)
        self.app = self._make_app()

    def _make_app(self) -> Starlette:
        from starlette.applications import Starlette
        from starlette.routing import Route

        async def forward(request: Request) -> Response:
            response = await self._forwarder(request)
            if request.method == "POST" and request.url.path == "/rollout":
                self.rollouts.append(_seen(json.loads(await request.body()), response))
            return response

        return Starlette(
            routes=[Route("/{path:path}", forward, methods=METHODS)], lifespan=self._forwarder.lifespan
        )


def _seen(sent: Any, response: Response) -> SeenRollout:
    return SeenRollout(
        correlation_id=sent["trace_correlation_id"],
        inference_url=sent["policy"]["config"]["inference_url"],
        status=response.status_code,
        body=bytes(response.body),
    )
