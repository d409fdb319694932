"""The runs that are remembered: the last one's whole report, and the figures of the last fifty.

They live in pytest's own cache folder; nothing else of the project knows of them.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from pytest_synth.errors import ConfigError, SynthError
from pytest_synth.evals.files import write_whole
from pytest_synth.report import RunReport
from pytest_synth.report.entries import Interval, Outcome
from pytest_synth.report.json import from_json, to_json

FOLDER = "synth"
KEPT = 50  # runs; about 300 bytes for each eval of a run


class PastEval(BaseModel):
    """What is remembered of one eval."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    node_id: str
    outcome: Outcome
    expected_failure: bool = False
    mean_reward: float | None = None
    interval: Interval | None = None
    threshold: float | None = None
    seeds_asked: int = 0
    seeds_done: int = 0
    model: str | None = None
    prompt_fingerprint: str | None = None
    cost_usd: float | None = None

    @property
    def told_outcome(self) -> str:
        return f"{self.outcome} (expected)" if self.expected_failure else self.outcome


class PastRun(BaseModel):
    """What is remembered of one run."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    created_at: str | None
    evals: tuple[PastEval, ...]


class RememberedRuns:
    """The runs that are kept in a folder, which is made when the first one is."""

    def __init__(self, folder: Path) -> None:
        self._last = folder / "last.json"
        self._runs = folder / "runs"

    def remember(self, report: RunReport) -> None:
        """Keep a run, and forget those before the last `KEPT`.

        Raises:
            SynthError: If the folder cannot be written.
        """
        fields = set(PastEval.model_fields)
        run = PastRun(
            created_at=report.created_at,
            evals=tuple(PastEval(**entry.model_dump(include=fields)) for entry in report.evals),
        )
        name = f"{time.time_ns():020d}-{os.getpid()}.json"
        try:
            write_whole(self._last, to_json(report))
            write_whole(self._runs / name, run.model_dump_json(exclude_defaults=True))
            for old in self._files()[:-KEPT]:
                old.unlink(missing_ok=True)
        except OSError as error:
            raise SynthError(
                f"cannot keep this run in {str(self._runs)!r}: {error.strerror or error}"
            ) from error

    def last(self) -> RunReport | None:
        """The report of the last run; None if there is none.

        Raises:
            ConfigError: If it was written by another version.
        """
        try:
            text = self._last.read_text(encoding="utf-8")
        except FileNotFoundError:
            return None
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"cannot read {str(self._last)!r}: {error}") from error
        return from_json(text, name=str(self._last))

    def past(self) -> list[PastRun]:
        """All runs that are remembered, oldest first; those of other versions are left out."""
        found = []
        for file in self._files():
            try:
                found.append(PastRun.model_validate_json(file.read_bytes()))
            except (OSError, ValidationError):
                continue  # another run has just forgotten it, or another version wrote it
        return found

    def _files(self) -> list[Path]:
        return sorted(self._runs.glob("*.json"))
