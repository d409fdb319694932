"""Baseline files: one small reviewed text for each test, beside it under `__synth__/`."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from pytest_synth.errors import ConfigError
from pytest_synth.evals.files import write_whole
from pytest_synth.gates import Baseline

FOLDER = "__synth__"
_LONGEST = 120  # characters of a file's name; file systems stop at 255 bytes
_SAFE = re.compile(r"[A-Za-z0-9_.\[\]-]+")


def baseline_file(test_file: Path, name: str) -> Path:
    """Where the baseline of a test is: `__synth__/<module>/<test>.json` beside the test's file.

    Args:
        name: The test within its file, as in `TestIntents.test_refunds[gpt]`.
    """
    return test_file.parent / FOLDER / test_file.stem / f"{file_name(name)}.json"


def file_name(name: str) -> str:
    """A name of a test as the name of a file, one to one.

    Other characters than letters, digits and `_.-[]` are left out, long names are cut, and a short hash keeps
    such names apart.
    """
    if _SAFE.fullmatch(name) and len(name) <= _LONGEST:
        return name
    slug = "".join(_SAFE.findall(name))[:80]
    return f"{slug}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def read_baseline(file: Path) -> Baseline | None:
    """Read a baseline; None if there is none.

    Raises:
        ConfigError: If the file is there and cannot be read; it names the file.
    """
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read the baseline {str(file)!r}: {error}") from error
    try:
        return Baseline.from_text(text)
    except ConfigError as error:
        raise ConfigError(f"{str(file)!r}: {error}") from error


def write_baseline(file: Path, baseline: Baseline) -> None:
    """Write a baseline, whole or not at all.

    Raises:
        ConfigError: If it cannot be written; the old file is still there.
    """
    try:
        write_whole(file, baseline.to_text())
    except OSError as error:
        raise ConfigError(f"cannot write the baseline {str(file)!r}: {error.strerror or error}") from error
