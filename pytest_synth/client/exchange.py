"""The one `send`: a request with retries of what is safe, and its answer or its error."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pytest_synth.client.answers import error_of
from pytest_synth.client.flows import Answer, Flow, Pause, Send
from pytest_synth.errors import ApiError, BackendUnreachable

BACKOFF_S = (0.25, 0.5, 1.0)
"""Waits before the second, third and fourth try; a backend that restarts is back within a second or two."""
LONGEST_RETRY_AFTER_S = 30.0


def exchange(
    method: str,
    path: str,
    *,
    body: Mapping[str, Any] | None = None,
    params: Mapping[str, str | int] | None = None,
    timeout_s: float | None = None,
    authenticated: bool = True,
    safe: bool | None = None,
) -> Flow[Answer]:
    """Send a request and return its answer, a 2xx.

    Args:
        safe: Whether sending it twice does no harm: then 429, 5xx (not 501) and lost connections are
            tried again, four times in all. Default: GET is safe, all else is not.

    Raises:
        ApiError: If the status of the last answer is none of 2xx.
        BackendUnreachable: If the last try brought no answer.
    """
    request = Send(method, path, body, params or {}, timeout_s, authenticated)
    waits = BACKOFF_S if (method == "GET" if safe is None else safe) else ()
    for wait in waits:
        try:
            answer: Answer = yield request
        except BackendUnreachable:
            yield Pause(wait)
            continue
        error = error_of(answer)
        if error is None:
            return answer
        if not _is_worth_retrying(error):
            raise error
        yield Pause(_asked_for(answer.retry_after, wait))
    answer = yield request
    if error := error_of(answer):
        raise error
    return answer


def _is_worth_retrying(error: ApiError) -> bool:
    return error.status_code == 429 or (error.status_code >= 500 and error.status_code != 501)


def _asked_for(retry_after: str | None, wait: float) -> float:
    """Read Retry-After in seconds; a date, or nothing, means our own wait."""
    if retry_after is None or not retry_after.strip().isdecimal():
        return wait
    return min(max(float(retry_after), wait), LONGEST_RETRY_AFTER_S)
