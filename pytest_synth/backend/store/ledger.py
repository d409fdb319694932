"""What a search has paid for, by key: a search that goes on after a crash finds it here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pytest_synth.backend.store.database import Database
from pytest_synth.backend.store.encoding import decode, encode


class LedgerTable:
    """Entries of jobs, by kind and key; an entry that is there is not changed."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def find(self, job: int, kind: str, key: str) -> dict[str, Any] | None:
        found = self._database.row(
            "SELECT entry FROM ledger WHERE job = ? AND kind = ? AND key = ?", (job, kind, key)
        )
        return None if found is None else dict(decode(found[0]))

    def add(self, job: int, kind: str, key: str, entry: Mapping[str, Any]) -> None:
        self._database.execute(
            "INSERT OR IGNORE INTO ledger VALUES (?, ?, ?, ?)", (job, kind, key, encode(dict(entry)))
        )

    def count(self, job: int, kind: str) -> int:
        found = self._database.row("SELECT count(*) FROM ledger WHERE job = ? AND kind = ?", (job, kind))
        assert found is not None
        return int(found[0])
