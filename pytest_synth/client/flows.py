"""Calls as generators: what to send and when to wait, without saying how.

A flow yields effects and is given their results; `driver.py` carries the effects out, synchronously or
asynchronously. So each call is written once, and both ways of use share every decision.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

Json = dict[str, Any]
"""A JSON object of the wire; its values have the types of JSON."""


@dataclass(frozen=True)
class Send:
    """Send one request; the result is an `Answer`. Raises BackendUnreachable in the flow.

    Attributes:
        path: Below the base URL, from its first slash on.
        body: Sent as JSON if not None.
        timeout_s: For connecting and for each read; None means the client's own.
        authenticated: Whether the API key goes along.
    """

    method: str
    path: str
    body: Mapping[str, Any] | None = None
    params: Mapping[str, str | int] = field(default_factory=dict)
    timeout_s: float | None = None
    authenticated: bool = True
    accept: str = "application/json"


@dataclass(frozen=True)
class OpenStream:
    """Send one request and keep its answer open; the result is an `Answer`.

    The answer's content is complete if the status is an error, else empty: it comes by `NextChunk`.
    """

    request: Send


@dataclass(frozen=True)
class NextChunk:
    """Wait for more of the open stream; the result is `bytes`, empty at its end.

    Raises BackendUnreachable in the flow when the connection breaks or stays silent for too long.
    """


@dataclass(frozen=True)
class Pause:
    """Do nothing for a while."""

    seconds: float


@dataclass(frozen=True)
class Answer:
    """What the backend answered to one request."""

    method: str
    url: str
    status_code: int
    content: bytes
    content_type: str = ""
    retry_after: str | None = None
    location: str | None = None
    secrets: frozenset[str] = field(default=frozenset(), repr=False)
    """Keys that went along with the request, and must not show up in a message about it."""


Effect = Send | OpenStream | NextChunk | Pause

T = TypeVar("T")

Flow = Generator[Effect, Any, T]
"""Any: each effect has a result type of its own, which a generator's type cannot say."""
