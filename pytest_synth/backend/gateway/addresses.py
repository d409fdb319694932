"""Interceptor addresses: which rollout and which operation a URL means, in every form that clients make."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import parse_qs, unquote

PREFIX = "/api/interceptor/v1"
_CID_NAMES = ("cid", "trace_correlation_id", "trace")
_OPERATION = re.compile(r"(?:/v1)*/(chat/completions|responses|messages)/*$")


@dataclass(frozen=True)
class Address:
    """Rollout and operation (`chat/completions`, `responses`, `messages`); None where the URL names none."""

    trial_id: str
    correlation_id: str | None
    operation: str | None


def parse_address(rest: str, query: str) -> Address:
    """Read an address below `PREFIX`.

    Understood: `{trial}/{cid}/chat/completions`, `{trial}/chat/completions?cid={cid}`, `/v1` before the
    operation, and a path glued behind the query (`{trial}?cid={cid}/chat/completions`), which plain OpenAI
    clients make of a base URL with a query.

    Args:
        rest: The decoded path behind `PREFIX`.
        query: The raw query string.
    """
    path, operation = _split_operation("/" + rest.strip("/"))
    query, glued = _split_operation(unquote(query))
    segments = [segment for segment in path.split("/") if segment]
    while len(segments) > 1 and segments[-1] == "v1":
        segments.pop()
    trial_id = segments[0] if segments else ""
    correlation_id = segments[1] if len(segments) == 2 else None
    if len(segments) > 2:
        return Address(trial_id, None, None)
    if correlation_id is None:
        values = parse_qs(query)
        found = [values[name][0] for name in _CID_NAMES if name in values]
        correlation_id = found[0] if found else None
    return Address(trial_id, correlation_id, operation or glued)


def _split_operation(text: str) -> tuple[str, str | None]:
    match = _OPERATION.search(text)
    return (text[: match.start()], match[1]) if match else (text, None)
