"""What a task app says when something goes wrong: one JSON shape, the place in the user's code, no keys."""

from __future__ import annotations

import json
import os
import sysconfig
import traceback
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from fastapi import HTTPException

from pytest_synth.localapi.answers import InvalidAnswer, encode

_LONGEST = 2000  # characters of an exception's text that are passed on
_SHORTEST_SECRET = 8  # shorter values are words rather than keys; blanking them would garble messages
_OURS = str(Path(__file__).parent.parent) + os.sep
_LIBRARIES = tuple(
    {
        _OURS,
        *(sysconfig.get_path(name) + os.sep for name in ("stdlib", "platstdlib", "purelib", "platlib")),
    }
)


def failure(status: int, code: str, message: str, **more: Any) -> HTTPException:
    """Make the exception that FastAPI answers as `{"detail": {"error": {"code", "message", ...}}}`."""
    return HTTPException(status, {"error": {"code": code, "message": message, **more}})


def raised(code: str, error: BaseException, secrets: Iterable[str]) -> HTTPException:
    """Make the answer to an exception of the user's code: 500, its type, text and place."""
    leaf = _leaf(error)
    name, text, where = type(leaf).__name__, _text(leaf), place(leaf)
    if len(text) > _LONGEST:
        text = text[:_LONGEST] + " ..."
    message = f"{name}: {text}" if text else name
    more = {"exception": name}
    if where is not None:
        message, more["place"] = f"{message} ({where})", where
    return failure(500, code, redact(message, secrets), **more)


def place(error: BaseException) -> str | None:
    """Say where an exception was raised: the innermost frame of the user's own files, else of a library."""
    frames = traceback.extract_tb(error.__traceback__)
    if not frames:
        return None
    own = [frame for frame in frames if not _is_library(frame.filename)]
    frame = (own or list(frames))[-1]
    if frame.filename.startswith(_OURS):
        return None  # no place that would help anybody
    return f"{_short(frame.filename)}:{frame.lineno} in {frame.name}"


def redact(text: str, secrets: Iterable[str]) -> str:
    """Blank every secret in a text, longest first; what cannot be sent as UTF-8 becomes "?"."""
    for secret in sorted(set(secrets), key=len, reverse=True):
        if len(secret) >= _SHORTEST_SECRET:
            text = text.replace(secret, "***")
    return text.encode("utf-8", "replace").decode()


def redact_detail(detail: object, secrets: Iterable[str]) -> Any:
    """Blank every secret in the detail of a user's `HTTPException`; it comes back as plain JSON values."""
    try:
        text = encode(detail).decode()
    except InvalidAnswer:
        return redact(str(detail), secrets)
    return json.loads(redact(text, secrets))


def environment_secrets() -> list[str]:
    """Values of all environment variables whose name says that they hold an API key."""
    return [
        part.strip()
        for name, value in os.environ.items()
        if name.upper().endswith(("API_KEY", "API_KEYS", "API_KEY_ALIASES"))
        for part in value.split(",")
        if part.strip()
    ]


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # the user's own class may do anything
        return "(its text cannot be read)"


def _leaf(error: BaseException) -> BaseException:
    """The first exception inside a group: a group's own text does not say what happened."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _is_library(filename: str) -> bool:
    return (
        filename.startswith((*_LIBRARIES, "<"))
        or f"{os.sep}site-packages{os.sep}" in filename
        or f"{os.sep}dist-packages{os.sep}" in filename
    )


def _short(filename: str) -> str:
    path = Path(filename)
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else filename
