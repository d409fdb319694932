"""JSON as it is stored and sent: ASCII only, compact, without NaN and infinities."""

from __future__ import annotations

import json
import math
from typing import Any


def encode(value: object) -> str:
    """Encode a value as one line of ASCII JSON; numbers that JSON has no word for become null."""
    try:
        return json.dumps(value, separators=(",", ":"), allow_nan=False)
    except ValueError:
        return json.dumps(_finite(value), separators=(",", ":"), allow_nan=False)


def decode(text: str) -> Any:  # the shape belongs to who stored it
    return json.loads(text)


def _finite(value: object) -> object:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {name: _finite(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
