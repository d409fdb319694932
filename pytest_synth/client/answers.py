"""Reading answers: the one place where a status becomes an error and a body becomes JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pytest_synth.client.flows import Answer, Json
from pytest_synth.errors import (
    ApiError,
    AuthenticationError,
    InvalidRequestError,
    NotFoundError,
    RateLimitError,
    ServerError,
    UnexpectedAnswer,
)

_DETAIL_LENGTH = 500
_SECRET_NAMES = ("api_key", "apikey", "token", "secret", "password", "authorization")


def error_of(answer: Answer) -> ApiError | None:
    """Return the error that an answer stands for; None if it is a success (2xx)."""
    status = answer.status_code
    if 200 <= status < 300:
        return None
    if status in (401, 403):
        kind: type[ApiError] = AuthenticationError
    elif status == 404:
        kind = NotFoundError
    elif status in (400, 422):
        kind = InvalidRequestError
    elif status == 429:
        kind = RateLimitError
    elif status >= 500:
        kind = ServerError
    else:
        kind = ApiError
    said = _detail(answer.content)
    if 300 <= status < 400 and answer.location is not None:
        # Not followed: the key would go along to wherever it leads.
        said = f"it redirects to {answer.location!r}; if that is the backend, give its base URL"
    detail = mask(said, answer.secrets)
    return kind(status, answer.method, answer.url, detail[:_DETAIL_LENGTH] or "no text")


def json_of(answer: Answer) -> Any:
    """Read the JSON body of a success.

    Raises:
        UnexpectedAnswer: If it is not JSON; the message shows how it starts.
    """
    try:
        return json.loads(answer.content)
    except (ValueError, RecursionError) as error:
        start = mask(answer.content.decode("utf-8", "replace"), answer.secrets)[:200]
        raise UnexpectedAnswer(
            f"{answer.method} {answer.url} answered {answer.status_code} with "
            f"{answer.content_type or 'no content type'} instead of JSON: {start!r}"
        ) from error


def object_of(answer: Answer) -> Json:
    """Read the JSON object of a success.

    Raises:
        UnexpectedAnswer: If it is no object.
    """
    value = json_of(answer)
    if not isinstance(value, dict):
        raise UnexpectedAnswer(
            f"{answer.method} {answer.url} answered with {type(value).__name__} instead of an object"
        )
    return value


def secrets_in(value: object) -> Iterator[str]:
    """Find the texts that stand under the name of a key or token, at any depth."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            if isinstance(inner, str) and str(name).lower().endswith(_SECRET_NAMES):
                yield inner
            else:
                yield from secrets_in(inner)
    elif isinstance(value, Sequence) and not isinstance(value, str | bytes):
        for inner in value:
            yield from secrets_in(inner)


def mask(text: str, secrets: frozenset[str]) -> str:
    """Replace every secret in a text; the longest first, as one may hold another."""
    for secret in sorted(secrets, key=len, reverse=True):
        if secret:
            text = text.replace(secret, "***")
    return text


def _detail(content: bytes) -> str:
    text = content.decode("utf-8", "replace").strip()
    try:
        return _said(json.loads(text)) or text
    except (ValueError, RecursionError):
        return text


def _said(body: object) -> str:
    """Dig out what a service says: FastAPI's `detail`, OpenAI's `error`, or a plain `message`."""
    if isinstance(body, str):
        return body
    if isinstance(body, list):
        return "; ".join(filter(None, map(_problem, body)))
    if isinstance(body, Mapping):
        for name in ("detail", "error", "message", "msg"):
            if said := _said(body.get(name)):
                return said
    return ""


def _problem(entry: object) -> str:
    """Say one entry of FastAPI's list of problems: the field and what is wrong with it."""
    if not isinstance(entry, Mapping) or not isinstance(entry.get("msg"), str):
        return _said(entry)
    place = ".".join(str(step) for step in entry.get("loc") or () if step != "body")
    said: str = entry["msg"]
    return said if said.startswith(place) else f"{place}: {said}"
