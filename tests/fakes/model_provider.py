"""An OpenAI-compatible provider on loopback that answers as told and records what it got."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route


def completion(text: str = "ok", **more: Any) -> dict[str, Any]:
    """A chat completion of 11 tokens."""
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "fake-1",
        "choices": [
            {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"},
        ],
        "usage": {"prompt_tokens": 7, "completion_tokens": 4, "total_tokens": 11},
        **more,
    }


@dataclass(frozen=True)
class Seen:
    """A request as it arrived."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]


@dataclass
class FakeProvider:
    """Answers POSTs to any path by `reply(body)`; `script` comes first, one entry for each request.

    An entry is a dict (200 and this JSON), a (status, headers, text) triple, a list of SSE events
    (bytes), or a function of the request that gives a response.
    """

    reply: Callable[[dict[str, Any]], Any] = lambda body: completion()
    script: list[Any] = field(default_factory=list)
    seen: list[Seen] = field(default_factory=list)

    @property
    def app(self) -> Starlette:
        return Starlette(routes=[Route("/{path:path}", self._answer, methods=["POST"])])

    async def _answer(self, request: Request) -> Response:
        body = json.loads(await request.body())
        self.seen.append(Seen(request.url.path, dict(request.headers), body))
        answer = self.script.pop(0) if self.script else self.reply(body)
        if callable(answer):
            answer = await answer(request)
        if isinstance(answer, Response):
            return answer
        if isinstance(answer, dict):
            return JSONResponse(answer)
        if isinstance(answer, list):
            return StreamingResponse(_events(answer), media_type="text/event-stream")
        status, headers, text = answer
        return Response(text, status, headers)


async def _events(events: Iterable[bytes]) -> AsyncIterator[bytes]:
    for event in events:
        yield event


def events(*values: dict[str, Any], done: bool = True) -> list[bytes]:
    """JSON objects as SSE events, and `[DONE]`."""
    return [b"data: " + json.dumps(value).encode() + b"\n\n" for value in values] + (
        [b"data: [DONE]\n\n"] if done else []
    )
