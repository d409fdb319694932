"""A backend that answers by script, as an httpx transport; it records what it was sent."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httpx

from pytest_synth.client import SynthClient, Timing

KEY = "sk_test_4711"

Scripted = httpx.Response | Exception | Callable[[httpx.Request], httpx.Response]


class ScriptedBackend(httpx.BaseTransport):
    """Answers each route by its script; the last entry of a script is repeated for ever.

    An entry is a response, an exception to raise, or a function of the request.
    """

    def __init__(self) -> None:
        self.requests: list[httpx.Request] = []
        self._scripts: dict[tuple[str, str], list[Scripted]] = {}
        self._position: dict[tuple[str, str], int] = defaultdict(int)

    def on(self, method: str, path: str, *answers: Scripted) -> None:
        self._scripts[method, path] = list(answers)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        request.read()
        self.requests.append(request)
        route = (request.method, request.url.path)
        script = self._scripts.get(route)
        if script is None:
            return httpx.Response(404, json={"detail": f"no route {route}"})
        entry = script[min(self._position[route], len(script) - 1)]
        self._position[route] += 1
        if isinstance(entry, Exception):
            raise entry
        if isinstance(entry, httpx.Response):
            # A response can be read once only.
            return httpx.Response(entry.status_code, headers=entry.headers, content=entry.content)
        return entry(request)

    def count(self, method: str, path: str) -> int:
        return sum((r.method, r.url.path) == (method, path) for r in self.requests)

    def body(self, index: int = -1) -> Any:
        return json.loads(self.requests[index].content)


@dataclass
class FakeTime:
    """A clock that only sleeping moves on."""

    now: float = 1000.0

    def __post_init__(self) -> None:
        self.slept: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds

    async def asleep(self, seconds: float) -> None:
        self.sleep(seconds)

    @property
    def timing(self) -> Timing:
        return Timing(clock=lambda: self.now, sleep=self.sleep, asleep=self.asleep)


def client_of(backend: ScriptedBackend, time: FakeTime | None = None) -> SynthClient:
    return SynthClient("http://backend.test", KEY, transport=backend, timing=(time or FakeTime()).timing)


def ok(**fields: Any) -> httpx.Response:
    return httpx.Response(200, json=fields)
