"""The one rule of what is tried again, and how long to wait before."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

ATTEMPTS = 4
RETRIED_STATUSES = frozenset({429, 502, 503, 504})
_BASE_S = 0.25  # waits of about 0.25, 0.5 and 1 s: a restarted task app is back, a dead one costs 2 s
_CAP_S = 8.0


def wait_s(attempt: int, headers: Mapping[str, str], *, luck: float, now: float) -> float:
    """Say how long to wait after a failed attempt.

    Args:
        attempt: Number of the attempt that failed, from 1.
        headers: Of the answer; its `Retry-After` (seconds or a date) decides where it is longer.
        luck: In [0, 1), for the jitter: half of the wait is fixed, half is drawn.
        now: Seconds since the epoch.
    """
    step = min(_CAP_S, _BASE_S * 2.0 ** (attempt - 1))
    return max(step * (0.5 + 0.5 * luck), _retry_after_s(headers.get("Retry-After"), now))


def _retry_after_s(text: str | None, now: float) -> float:
    if not text:
        return 0.0
    try:
        return max(0.0, float(text))
    except ValueError:
        pass
    try:
        when = parsedate_to_datetime(text)
    except ValueError:
        return 0.0
    if when.tzinfo is None:
        when = when.replace(tzinfo=UTC)
    return max(0.0, (when - datetime.fromtimestamp(now, UTC)).total_seconds())
