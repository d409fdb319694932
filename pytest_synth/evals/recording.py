"""Which cassette a test's model calls are recorded in and replayed from, and in which mode."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pytest_synth.evals.baselines import file_name

FOLDER = "cassettes"


@dataclass(frozen=True)
class Recording:
    """A cassette and how it is used.

    Attributes:
        cassette: Its name: the path below the root folder of the tests, with `/`; None: there is none.
        mode: In VCR's words: off, none, once, new_episodes, all, rewrite.
    """

    cassette: str | None = None
    mode: str = "off"


def recording_of(
    mode: str | None, root: Path, test_file: Path, name: str, environ: Mapping[str, str] = os.environ
) -> Recording:
    """Find the cassette of a test: `cassettes/<module>/<test>.jsonl` beside its file.

    Args:
        mode: What the user asked for; None: `none` where CI is set and the cassette is there, else `off`.
        root: Folder that the names of cassettes start from; a test outside of it has none.
        name: The test within its file.
    """
    if mode == "off" or (mode is None and not environ.get("CI")):
        return Recording()
    file = test_file.parent / FOLDER / test_file.stem / f"{file_name(name)}.jsonl"
    if mode is None and not file.exists():
        return Recording()
    if not file.is_relative_to(root):
        return Recording()
    return Recording(file.relative_to(root).as_posix(), mode or "none")
