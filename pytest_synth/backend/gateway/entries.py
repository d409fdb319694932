"""One recorded call: what makes it the same call, and how it stands in a cassette's lines."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

# These change how an answer is delivered or booked, not what it is.
IGNORED: Final = frozenset(
    {"model", "stream", "stream_options", "user", "metadata", "store", "service_tier", "safety_identifier"}
    | {"prompt_cache_key", "prompt_cache_retention"}
)
SHARED: Final = (
    200  # characters; longer parts of requests stand once in a cassette, however many calls have them
)
_LISTS: Final = ("messages", "input")
_DATA_URL = re.compile(r"data:[\w/+.-]+;base64,[A-Za-z0-9+/=]{64,}")
_KEY_AT = len('{"key": "')
KEY_DIGITS: Final = 32

Redact = Callable[[str], str]


@dataclass(frozen=True)
class Identity:
    """What a recorded answer is the answer to.

    Attributes:
        request: The body as sent, without `IGNORED`, redacted.
        sample: Repetition of the seed, from 0.
        repeat: How often the same rollout had the same call before.
        seed: Of the call's rollout, where something in `request` is redacted: what tells it from the calls of
            other seeds may be just that. None: nothing is.
    """

    operation: str
    provider: str
    model: str
    request: Mapping[str, Any]
    sample: int
    repeat: int = 0
    seed: int | None = None

    @cached_property
    def call_key(self) -> str:
        """The key but for `repeat`."""
        parts = [self.operation, self.provider, self.model, self.request, self.sample]
        return _digest(parts if self.seed is None else [*parts, self.seed])

    @property
    def key(self) -> str:
        """Equal for equal calls, whatever the order of their fields."""
        return _digest([self.call_key, self.repeat])


@dataclass(frozen=True)
class Entry:
    """A recorded answer.

    Attributes:
        response: The answer's body; a stream's is put together.
        latency_ms, cost_usd: Of the recorded call; what a replay saves.
    """

    identity: Identity
    response: dict[str, Any]
    latency_ms: float
    cost_usd: float | None


def request_of(body: Mapping[str, Any], redact: Redact | None) -> dict[str, Any]:
    """The part of a body that identifies its call: no nulls, whole floats as integers, images as hashes."""
    request = {
        name: int(value) if isinstance(value, float) and value.is_integer() else value
        for name, value in body.items()
        if name not in IGNORED and value is not None
    }
    if "data:" in json.dumps(request, ensure_ascii=False):
        request = map_texts(request, lambda text: _DATA_URL.sub(_hashed, text))
    return request if redact is None else map_texts(request, redact)


def map_texts(value: Any, change: Redact) -> Any:
    """Copy a JSON value with every text in it changed, but for names."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {name: map_texts(inner, change) for name, inner in value.items()}
    if isinstance(value, list):
        return [map_texts(inner, change) for inner in value]
    return value


def redactor(patterns: Sequence[re.Pattern[str]], secrets: Sequence[str]) -> Redact | None:
    """Make a function that blots patterns and secrets out of a text; None if there are none."""
    known = [re.compile(re.escape(secret)) for secret in secrets if len(secret) >= 8]
    if not patterns and not known:
        return None

    def redact(text: str) -> str:
        for pattern in (*known, *patterns):
            text = pattern.sub("[redacted]", text)
        return text

    return redact


def write_entry(entry: Entry) -> tuple[bytes, dict[str, Any]]:
    """Write an entry as a line, and give the shared parts that it names."""
    parts: dict[str, Any] = {}
    identity = entry.identity
    line = {
        "key": identity.key,
        "operation": identity.operation,
        "provider": identity.provider,
        "model": identity.model,
        "sample": identity.sample,
        "repeat": identity.repeat,
        **({} if identity.seed is None else {"seed": identity.seed}),
        "request": {name: _split(name, value, parts) for name, value in identity.request.items()},
        "response": entry.response,
        "latency_ms": round(entry.latency_ms, 1),
        "cost_usd": entry.cost_usd,
    }
    return json.dumps(line, ensure_ascii=False).encode(), parts


def read_key(line: bytes) -> str | None:
    """The key of an entry's line, without parsing it; None if it is not an entry's."""
    if not line.startswith(b'{"key": "'):
        return None
    return line[_KEY_AT : _KEY_AT + KEY_DIGITS].decode("ascii", "replace")


def read_entry(line: bytes, parts: Mapping[str, Any]) -> Entry:
    """Read an entry's line.

    Raises:
        ValueError, KeyError, TypeError: If it is not what `write_entry` wrote.
    """
    value = json.loads(line)
    request = {name: _join(name, given, parts) for name, given in value["request"].items()}
    identity = Identity(
        value["operation"],
        value["provider"],
        value["model"],
        request,
        int(value["sample"]),
        int(value["repeat"]),
        int(value["seed"]) if "seed" in value else None,
    )
    if not isinstance(value["response"], dict):
        raise TypeError("response is no object")
    cost = value["cost_usd"]
    return Entry(
        identity, value["response"], float(value["latency_ms"]), None if cost is None else float(cost)
    )


def parts_named(line: bytes) -> Iterator[str]:
    """Ids of the shared parts that an entry's line names."""
    return (match[1].decode() for match in re.finditer(rb'\{"\$part": "([0-9a-f]{16})"\}', line))


def _split(name: str, value: Any, parts: dict[str, Any]) -> Any:
    if name in _LISTS and isinstance(value, list):
        return [_shared(item, parts) for item in value]
    return _shared(value, parts)


def _shared(value: Any, parts: dict[str, Any]) -> Any:
    text = json.dumps(value, ensure_ascii=False)
    if len(text) <= SHARED and "$part" not in text:
        return value
    part = _digest(value)[:16]
    parts[part] = value
    return {"$part": part}


def _join(name: str, value: Any, parts: Mapping[str, Any]) -> Any:
    if name in _LISTS and isinstance(value, list):
        return [_resolved(item, parts) for item in value]
    return _resolved(value, parts)


def _resolved(value: Any, parts: Mapping[str, Any]) -> Any:
    return parts[value["$part"]] if isinstance(value, dict) and value.keys() == {"$part"} else value


def _digest(value: object) -> str:
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:KEY_DIGITS]


def _hashed(match: re.Match[str]) -> str:
    head, _, data = match[0].partition(",")
    return f"{head},sha256:{hashlib.sha256(data.encode()).hexdigest()}"
