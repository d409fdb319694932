"""Fingerprints of a task's rows and of its scorer, so that a baseline is compared with its like only."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

from pydantic_core import PydanticSerializationError, to_jsonable_python

from pytest_synth.prompts import fingerprint


def of_rows(rows: Sequence[Any]) -> str | None:
    """Fingerprint of the rows of a split, in order; None if a row has no JSON form."""
    try:
        return fingerprint(to_jsonable_python(list(rows)))
    except (PydanticSerializationError, ValueError, TypeError):
        return None


def of_scorer(score: Callable[..., Any]) -> str | None:
    """Fingerprint of the source of the score function itself, not of what it calls; None if unknown."""
    try:
        return fingerprint(inspect.getsource(score))
    except (OSError, TypeError):
        return None
