"""One line of the report of `pytest-synth doctor`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Status = Literal["ok", "failed", "warning", "skipped"]


@dataclass(frozen=True)
class Check:
    """One line of the report.

    Attributes:
        status: Only `failed` makes the command fail.
        remedy: What to do; None if there is nothing to be done.
    """

    name: str
    status: Status
    checked: str
    result: str
    remedy: str | None = None
