"""Texts that can be sent: JSON values come from people's programs, which cut strings anywhere."""

from __future__ import annotations

from typing import Any


def without_halves(value: Any) -> Any:
    """Make halves of surrogate pairs "?" in all texts of a JSON value; UTF-8 cannot hold them."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, dict):
        return {without_halves(key): without_halves(entry) for key, entry in value.items()}
    return [without_halves(entry) for entry in value] if isinstance(value, list) else value
