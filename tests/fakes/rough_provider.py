"""A provider with a rate limit that sometimes refuses, hangs, and cuts a stream."""

from __future__ import annotations

import asyncio
import math
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
        retry_after_ms: What refused calls are told; None: whole seconds until a call is allowed again.
        hang, cut, refuse: Shares of the calls that get no answer, of the streams that break in the middle,
            and of the calls that are refused whatever their rate.
        calls, refused, whims, hung, cut_off: What happened; `whims` are those that `refuse` has refused.
    """

    rate: float = math.inf
    burst: float = 10.0
    latency_s: float = 0.02
    retry_after_ms: int | None = 100
    hang: float = 0.0
    cut: float = 0.0
    refuse: float = 0.0
    hang_s: float = 5.0
    dice: random.Random = field(default_factory=lambda: random.Random(3))
    calls: int = 0
    refused: int = 0
    whims: int = 0
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
        if self.dice.random() < self.refuse:
            self.whims += 1
            return self._refusal(1)
        if not self._takes():
            self.refused += 1
            assert self._saved is not None
            return self._refusal((1 - self._saved) / self.rate)
        if self.dice.random() < self.hang:
            self.hung += 1
            await asyncio.sleep(self.hang_s)
        await asyncio.sleep(self.latency_s)
        answer = completion(f"answer to {body['messages'][-1]['content']}")
        if not body.get("stream"):
            return JSONResponse(answer)
        is_cut = self.dice.random() < self.cut
        self.cut_off += is_cut
        return StreamingResponse(_streamed(answer, is_cut), media_type="text/event-stream")

    def _refusal(self, wait_s: float) -> Response:
        if self.retry_after_ms is None:
            headers = {"Retry-After": str(math.ceil(wait_s))}
        else:
            headers = {"retry-after-ms": str(self.retry_after_ms)}
        return JSONResponse({"error": {"message": "slow down"}}, 429, headers)

    def _takes(self) -> bool:
        now = time.monotonic()
        saved = self.burst if self._saved is None else self._saved
        self._saved = min(self.burst, saved + (now - self._at) * self.rate) if self.rate < math.inf else 1.0
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
