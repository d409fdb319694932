"""Bodies that providers answer with: read, or refused with what they say."""

from __future__ import annotations

import json
from typing import Any, Final

from pytest_synth.backend.gateway.dialect import count
from pytest_synth.backend.gateway.providers import Access
from pytest_synth.backend.gateway.refusals import CallRefused
from pytest_synth.backend.gateway.upstream import hide_key, read_error

# What reading an answer raises whose fields are of other types than its API has.
MALFORMED: Final = (TypeError, ValueError, KeyError, AttributeError)


def read_object(name: str, answer: bytes, reach: Access) -> dict[str, Any]:
    """Read the body of an answer with status 200.

    Args:
        name: The provider's.

    Raises:
        CallRefused: If it is no JSON object, or an error all the same.
    """
    try:
        value = json.loads(answer)
    except ValueError as error:
        raise CallRefused(
            502, f"{name} answered 200 with no JSON: {_shown(answer, reach)}", kind="upstream_error"
        ) from error
    if not isinstance(value, dict):
        raise CallRefused(
            502, f"{name} answered 200 with no object: {_shown(answer, reach)}", kind="upstream_error"
        )
    message, kind, _ = read_error(value)
    if message is not None:  # as OpenRouter does when its own upstream fails
        status = count(value["error"].get("code")) if isinstance(value["error"], dict) else 0
        raise CallRefused(
            status if 400 <= status < 600 else 502,
            f"{name} answered: {hide_key(message, reach)}",
            kind=kind or "upstream_error",
        )
    return value


def unreadable(name: str, operation: str, answer: bytes, reach: Access) -> CallRefused:
    """The refusal of a body or an event that is `MALFORMED`."""
    message = f"{name} answered with what /{operation} does not know: {_shown(answer, reach)}"
    return CallRefused(502, message, kind="upstream_error")


def _shown(answer: bytes, reach: Access) -> str:
    return repr(hide_key(answer.decode(errors="replace"), reach)[:200])
