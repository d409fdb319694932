"""A provider with a rate limit that sometimes hangs, and sometimes cuts a stream."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from fakes.model_provider import completion
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from pytest_synth.backend.gateway.chat import events_of


@dataclass
class RoughProvider:
    """Answers `rate` calls a second (and `burst` at once), others with 429 and Retry-After.

    Attributes:
        hang, cut: Shares of the calls that get no answer, and of the streams that break in the middle.
        calls, refused, hung, cut_off: What happened.
    """

    rate: float
    burst: float = 10.0
    latency_s: float = 0.02
    retry_after_ms: int = 100
    hang: float = 0.0
    cut: float = 0.0
    dice: random.Random = field(default_factory=lambda: random.Random(3))
    calls: int = 0
    refused: int = 0
    hung: int = 0
    cut_off: int = 0
    _saved: float | None = None
    _at: float = 0.0

    @property
    def app(self) -> Starlette:
        return Starlette(routes=[Route("/{path:path}", self._answer, methods=["POST"])])

    async def _answer(self, request: Request) -> Response:
        body = await request.json()
        self.calls += 1
        if not self._takes():
            self.refused += 1
            headers = {"retry-after-ms": str(self.retry_after_ms)}
            return JSONResponse({"error": {"message": "slow down"}}, 429, headers)
        if self.dice.random() < self.hang:
            self.hung += 1
            await asyncio.sleep(5)
        await asyncio.sleep(self.latency_s)
        answer = completion(f"answer to {body['messages'][-1]['content']}")
        if not body.get("stream"):
            return JSONResponse(answer)
        is_cut = self.dice.random() < self.cut
        self.cut_off += is_cut
        return StreamingResponse(_streamed(answer, is_cut), media_type="text/event-stream")

    def _takes(self) -> bool:
        now = time.monotonic()
        saved = self.burst if self._saved is None else self._saved
        self._saved = min(self.burst, saved + (now - self._at) * self.rate)
        self._at = now
        if self._saved < 1:
            return False
        self._saved -= 1
        return True


async def _streamed(answer: dict[str, object], is_cut: bool) -> AsyncIterator[bytes]:
    for number, event in enumerate(events_of(answer, usage=True)):
        if is_cut and number == 2:
            raise ConnectionAbortedError
        yield event
