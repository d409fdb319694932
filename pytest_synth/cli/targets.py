"""The task app that a TOML file names by `app`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_synth.errors import ConfigError

if TYPE_CHECKING:
    from pytest_synth.evals.resources import AppReference

_FORM = re.compile(r"[\w.]+:[\w.]+")


def read_app(file: Path, section: str, target: object) -> AppReference:
    """Read `app = "module:attribute"`; the module is looked for beside the file.

    Raises:
        ConfigError: If it is of another form; it names file, section and value.
    """
    from pytest_synth.evals.resources import AppReference

    if not isinstance(target, str) or not _FORM.fullmatch(target):
        raise ConfigError(f"{str(file)!r}: [{section}] app is {target!r}; use 'module:attribute'")
    return AppReference(target, file.resolve().parent)
