"""Who may call a task app: the holders of ENVIRONMENT_API_KEY. No part of a key is ever told."""

from __future__ import annotations

import hmac
import os
from collections.abc import Iterable
from hashlib import sha256

from starlette.requests import Request

from pytest_synth.localapi.failures import failure

_PRIMARY = ("ENVIRONMENT_API_KEY", "DEV_ENVIRONMENT_API_KEY", "dev_environment_api_key")
_ALIASES = "ENVIRONMENT_API_KEY_ALIASES"


def allowed_keys() -> list[str]:
    """Read the accepted keys from the environment, at each request, so that a key may be renewed."""
    primary = next((key for name in _PRIMARY if (key := os.environ.get(name, "").strip())), None)
    return [*([primary] if primary else []), *_split([os.environ.get(_ALIASES, "")])]


def presented_keys(request: Request) -> list[str]:
    """Read the keys that a request shows in `X-API-Key`, `X-API-Keys` and `Authorization: Bearer`."""
    headers = request.headers
    bearers = [
        value[len("bearer ") :]
        for value in headers.getlist("authorization")
        if value[: len("bearer ")].lower() == "bearer "
    ]
    return _split([*headers.getlist("x-api-key"), *headers.getlist("x-api-keys"), *bearers])


async def require_key(request: Request) -> None:
    """Let a request pass that shows an accepted key.

    Raises:
        HTTPException: 503 if the app has no key to compare with, 400 if the request shows no accepted one
            (400 and not 401, as callers of the published SDK expect).
    """
    allowed = allowed_keys()
    if not allowed:
        raise failure(
            503,
            "missing_environment_api_key",
            "the task app has no ENVIRONMENT_API_KEY in its environment; set the key that its caller sends",
        )
    presented = presented_keys(request)
    if not _any_equal(presented, allowed):
        shown = "a key that is not the task app's ENVIRONMENT_API_KEY" if presented else "no key"
        raise failure(
            400,
            "unauthorised",
            f"the request shows {shown}; send it as X-API-Key or Authorization: Bearer",
        )


def _any_equal(presented: Iterable[str], allowed: Iterable[str]) -> bool:
    """Compare all pairs, always, so that the time tells neither which key nor how much of it fits."""
    ours = [_digest(key) for key in allowed]
    found = False
    for key in presented:
        theirs = _digest(key)
        for own in ours:
            found |= hmac.compare_digest(theirs, own)
    return found


def _digest(key: str) -> bytes:
    return sha256(key.encode("utf-8", "surrogateescape")).digest()


def _split(values: Iterable[str]) -> list[str]:
    return [key for value in values for part in value.split(",") if (key := part.strip())]
