"""One SQLite connection: opened, locked, brought to the present tables, and written in transactions."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pytest_synth.backend.store.migrations import MIGRATIONS
from pytest_synth.errors import ConfigError

_LOCK_S = 1.0  # how long to wait for the file; a backend that was just killed frees it at once

Row = tuple[Any, ...]  # columns of many types; each table reads its own


class Database:
    """The connection of the one writer.

    Without a path it is a temporary file without a name, which goes with the connection, a crash included.
    It may be opened and closed in another thread than the one that uses it, never used in two at once.
    Commits reach the operating system at once (WAL, synchronous=NORMAL): they survive a `kill -9` of
    this process; the last ones may be lost when the machine loses power.

    Raises:
        ConfigError: If the file cannot be opened, is no database of ours, is newer, or is in use.
    """

    def __init__(self, path: Path | None) -> None:
        self._depth = 0
        try:
            self._connection = sqlite3.connect(
                path or "", timeout=_LOCK_S, isolation_level=None, check_same_thread=False
            )
        except sqlite3.Error as error:
            raise ConfigError(f"cannot open the database {str(path)!r}: {error}") from error
        try:
            self._open(path)
        except BaseException:
            self._connection.close()
            raise

    def _open(self, path: Path | None) -> None:
        try:
            # Exclusive: two backends on one file would run the same seeds twice. The kernel frees the lock
            # when the process dies.
            self._connection.execute("PRAGMA locking_mode = EXCLUSIVE")
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = NORMAL")
            self._connection.execute("PRAGMA foreign_keys = ON")
            self._migrate(path)
        except sqlite3.OperationalError as error:
            if "locked" in str(error):
                raise ConfigError(
                    f"the database {str(path)!r} is in use by another backend; stop it or name another file"
                ) from error
            raise ConfigError(f"cannot open the database {str(path)!r}: {error}") from error
        except sqlite3.DatabaseError as error:
            raise ConfigError(f"{str(path)!r} is not a database of pytest-synth: {error}") from error

    def _migrate(self, path: Path | None) -> None:
        with self.transaction():
            self.execute("CREATE TABLE IF NOT EXISTS migrations (name TEXT PRIMARY KEY, applied_at REAL)")
            applied = {name for (name,) in self.rows("SELECT name FROM migrations")}
            unknown = applied - {name for name, _ in MIGRATIONS}
            if unknown:
                raise ConfigError(
                    f"the database {str(path)!r} was written by a newer pytest-synth"
                    f" (unknown change {sorted(unknown)[0]!r}); update pytest-synth or name another file"
                )
            for name, script in MIGRATIONS:
                if name not in applied:
                    for statement in script.split(";"):
                        if statement.strip():
                            self.execute(statement)
                    self.execute("INSERT INTO migrations VALUES (?, ?)", (name, time.time()))

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Write all that happens inside, or nothing. A nested one joins the outer one."""
        if self._depth:
            yield
            return
        self._connection.execute("BEGIN IMMEDIATE")
        self._depth = 1
        try:
            yield
        except BaseException:
            self._connection.execute("ROLLBACK")
            raise
        else:
            self._connection.execute("COMMIT")
        finally:
            self._depth = 0

    def execute(self, statement: str, values: Sequence[object] = ()) -> int:
        """Run a statement; returns the number of rows that it changed."""
        return self._connection.execute(statement, values).rowcount

    def insert(self, statement: str, values: Sequence[object]) -> int:
        """Run an INSERT; returns the row's number."""
        number = self._connection.execute(statement, values).lastrowid
        assert number is not None
        return number

    def execute_many(self, statement: str, values: Iterable[Sequence[object]]) -> None:
        with self.transaction():
            self._connection.executemany(statement, values)

    def rows(self, query: str, values: Sequence[object] = ()) -> list[Row]:
        return self._connection.execute(query, values).fetchall()

    def row(self, query: str, values: Sequence[object] = ()) -> Row | None:
        found: Row | None = self._connection.execute(query, values).fetchone()
        return found

    def close(self) -> None:
        self._connection.close()
