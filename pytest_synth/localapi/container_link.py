"""Requests to a container: its ASGI app in this process, or its URL."""

from __future__ import annotations

import json
from contextlib import AsyncExitStack
from typing import Any

import aiohttp
from starlette.types import ASGIApp

from pytest_synth.errors import TaskAppError
from pytest_synth.localapi import asgi
from pytest_synth.localapi.failures import failure
from pytest_synth.localapi.inference import Sessions

_NOT_THERE = frozenset({404, 405, 501})  # how a container says that it has no such route
_PASSED_ON = frozenset({429, 502, 503, 504})  # the caller may try again
_QUOTED = 500  # characters of an error answer that are passed on


class ContainerLink:
    """Sends requests to one container and reads its JSON answers.

    Args:
        target: An ASGI app, or the base URL of a container that runs.
    """

    def __init__(self, target: str | ASGIApp) -> None:
        self._target = target.rstrip("/") if isinstance(target, str) else target
        self._sessions = Sessions()
        self._stack = AsyncExitStack()

    async def open(self) -> None:
        if isinstance(self._target, str):
            await self._sessions.open()
        else:
            await self._stack.enter_async_context(asgi.lifespan(self._target))

    async def close(self) -> None:
        await self._sessions.close()
        await self._stack.aclose()

    async def ask(self, method: str, path: str, body: object = None) -> dict[str, Any] | None:
        """Send a request; None if the container has no such route.

        Raises:
            HTTPException: If the container answers with an error.
            TaskAppError: If it does not answer, or with no JSON object.
        """
        status, answer = await self.exchange(method, path, body)
        return None if status in _NOT_THERE else self.read(method, path, status, answer)

    def read(self, method: str, path: str, status: int, answer: object) -> dict[str, Any]:
        """The answer, if it is a success and an object; raises as `ask` does."""
        if not 200 <= status < 300:
            raise failure(
                status if status in _PASSED_ON else 500,
                "container_failed",
                f"the container answered {method} {path} with {status}: {_problem(answer)}",
            )
        if not isinstance(answer, dict):
            raise TaskAppError(
                f"the container answered {method} {path} with no JSON object: {_problem(answer)}"
            )
        return answer

    async def exchange(self, method: str, path: str, body: object = None) -> tuple[int, Any]:
        """Send a request; status and JSON of the answer, or its text where it is no JSON."""
        sent = b"" if body is None else json.dumps(body).encode()
        try:
            if isinstance(self._target, str):
                status, received = await self._over_http(method, f"{self._target}{path}", sent)
            else:
                status, received = await asgi.send(self._target, method, path, sent)
        except aiohttp.ClientError as error:
            raise TaskAppError(
                f"the container at {self._target} did not answer {method} {path}: "
                f"{type(error).__name__}: {error}"
            ) from error
        try:
            return status, json.loads(received)
        except ValueError:
            return status, received.decode("utf-8", "replace")

    async def _over_http(self, method: str, url: str, sent: bytes) -> tuple[int, bytes]:
        headers = {"Content-Type": "application/json"}
        no_limit = aiohttp.ClientTimeout(
            total=None, sock_connect=10
        )  # the caller ends a rollout that is too long
        async with (
            self._sessions.lease() as session,
            session.request(method, url, data=sent or None, headers=headers, timeout=no_limit) as response,
        ):
            return response.status, await response.read()


def _problem(answer: object) -> str:
    found = answer.get("detail", answer) if isinstance(answer, dict) else answer
    text = found if isinstance(found, str) else json.dumps(found, ensure_ascii=False)
    return text[:_QUOTED] or "no message"
