"""Events of jobs: numbered from 1 within a job, never changed, in the order in which they happened."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Literal

from pytest_synth.backend.store.database import Database
from pytest_synth.backend.store.encoding import decode, encode

Level = Literal["info", "warn", "error"]


def timestamp(seconds: float) -> str:
    """Write a time as the wire has it: ISO 8601, UTC, milliseconds."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class EventTable:
    """The events of all jobs. Listeners hear of each new event, in the thread that writes."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._listeners: list[Callable[[int], None]] = []

    def listen(self, listener: Callable[[int], None]) -> None:
        """Call `listener(job number)` after each new event."""
        self._listeners.append(listener)

    def add(
        self,
        job: int,
        kind: str,
        data: Mapping[str, Any],
        *,
        message: str = "",
        level: Level = "info",
        now: float | None = None,
    ) -> int:
        """Append an event; returns its number."""
        now = time.time() if now is None else now
        last = self._database.row("SELECT coalesce(max(seq), 0) FROM events WHERE job = ?", (job,))
        assert last is not None
        seq = int(last[0]) + 1
        self._database.execute(
            "INSERT INTO events (job, seq, type, level, message, data, created_at)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)",
            (job, seq, kind, level, encode(message), encode(dict(data)), now),
        )
        for listener in self._listeners:
            listener(job)
        return seq

    def count(self, job: int, *, without: str) -> int:
        """Count the events of a job, those of one type apart."""
        found = self._database.row("SELECT count(*) FROM events WHERE job = ? AND type <> ?", (job, without))
        assert found is not None
        return int(found[0])

    def after(self, job: int, job_id: str, *, since_seq: int = 0, limit: int = 5000) -> list[dict[str, Any]]:
        """Return the wire documents of the events after number `since_seq`, at most `limit`."""
        found = self._database.rows(
            "SELECT seq, type, level, message, data, created_at FROM events"
            " WHERE job = ? AND seq > ? ORDER BY seq LIMIT ?",
            (job, since_seq, limit),
        )
        return [
            {
                "seq": seq,
                "type": kind,
                "job_id": job_id,
                "level": level,
                "message": decode(message),
                "data": decode(data),
                "created_at": timestamp(created_at),
                "ts": timestamp(created_at),
                "timestamp_ms": int(created_at * 1000),
            }
            for seq, kind, level, message, data, created_at in found
        ]
