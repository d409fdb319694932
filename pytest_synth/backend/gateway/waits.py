"""How long a provider asks to wait, read from the headers of its answers."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Final

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_SECONDS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
# Names of remaining, limit and reset, for requests and for tokens: OpenAI's and Groq's, then Anthropic's.
_REQUESTS: Final = (
    ("x-ratelimit-remaining-requests", "x-ratelimit-limit-requests", "x-ratelimit-reset-requests"),
    (
        "anthropic-ratelimit-requests-remaining",
        "anthropic-ratelimit-requests-limit",
        "anthropic-ratelimit-requests-reset",
    ),
)
_TOKENS: Final = tuple(
    (a.replace("requests", "tokens"), b.replace("requests", "tokens"), c.replace("requests", "tokens"))
    for a, b, c in _REQUESTS
)


def retry_after(headers: Mapping[str, str], *, now: float | None = None) -> float | None:
    """Seconds until a refused call may be repeated (`retry-after-ms`, `Retry-After`); None if not told.

    Args:
        now: Seconds since the epoch, for dates; default: the clock's.
    """
    exact = _number(headers.get("retry-after-ms"))
    if exact is not None:
        return exact / 1000
    told = headers.get("retry-after")
    if told is None:
        return None
    seconds = _number(told)
    if seconds is not None:
        return seconds
    try:
        return max(0.0, parsedate_to_datetime(told).timestamp() - (time.time() if now is None else now))
    except ValueError:
        return None


def pause(headers: Mapping[str, str], tokens: int, *, now: float | None = None) -> float:
    """Seconds until the provider takes one more call like the last; 0 if it takes one now.

    `reset` is when the whole limit is there again, so one call's share comes back sooner.

    Args:
        tokens: Tokens of a call, roughly.
    """
    waits = [0.0]
    for names, need in ((_REQUESTS, 1), (_TOKENS, tokens)):
        for remaining_name, limit_name, reset_name in names:
            remaining, limit = _number(headers.get(remaining_name)), _number(headers.get(limit_name))
            reset = _reset(headers.get(reset_name), time.time() if now is None else now)
            if remaining is None or not limit or reset is None or remaining >= need:
                continue
            waits.append(reset * min(1.0, (need - remaining) / max(1.0, limit - remaining)))
    return max(waits)


def _reset(text: str | None, now: float) -> float | None:
    if text is None:
        return None
    seconds = _number(text)
    if seconds is not None:
        return seconds
    parts = _DURATION.findall(text)
    if parts and "".join(number + unit for number, unit in parts) == text:
        return sum(float(number) * _SECONDS[unit] for number, unit in parts)
    try:
        return max(0.0, datetime.fromisoformat(text).timestamp() - now)
    except ValueError:
        return None


def _number(text: str | None) -> float | None:
    try:
        value = float(text) if text is not None else None
    except ValueError:
        return None
    return value if value is not None and 0 <= value < float("inf") else None
