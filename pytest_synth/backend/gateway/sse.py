"""Server-sent events: cutting a byte stream into events, and writing them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from pytest_synth.backend.gateway.dialect import dump

DONE = b"data: [DONE]\n\n"
_END = re.compile(rb"\r?\n\r?\n")


class EventCutter:
    """Cuts chunks of a stream, wherever they were cut on the way, into whole events."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """Give the events that this chunk completes, as sent, with the blank line at their end."""
        self._rest += chunk
        start = 0
        for end in _END.finditer(self._rest):
            yield self._rest[start : end.end()]
            start = end.end()
        self._rest = self._rest[start:]

    @property
    def rest(self) -> bytes:
        """What is left of an event that has not ended."""
        return self._rest


def data_of(event: bytes) -> bytes:
    """The data of an event; empty for comments."""
    lines = [line[5:].lstrip() for line in event.splitlines() if line.startswith(b"data:")]
    return b"\n".join(lines)


def json_of(event: bytes) -> dict[str, Any] | None:
    """The JSON object that an event carries; None for comments, `[DONE]` and what is no object."""
    data = data_of(event)
    if not data.startswith(b"{"):
        return None
    try:
        value = json.loads(data)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def event(value: Mapping[str, Any]) -> bytes:
    """Write an event whose name is its own `type`, as Anthropic's and OpenAI's newer streams have it."""
    name = str(value["type"]).encode()
    return b"event: " + name + b"\ndata: " + dump(value) + b"\n\n"
