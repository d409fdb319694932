"""What the backend remembers, in one SQLite file: keys, jobs, rows, events, ledgers, sealed secrets.

One process writes, from one thread; a second backend on the same file is refused. Nothing is deleted
from a file that a user has named but expired demo keys, all but the newest environment keys, and the
secrets of jobs that have ended; a temporary file goes with its backend.
"""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pytest_synth.backend.store.database import Database
from pytest_synth.backend.store.events import EventTable
from pytest_synth.backend.store.jobs import JobRecord, JobTable, Progress, RolloutPlace
from pytest_synth.backend.store.keys import ApiKeyTable, EnvKeyTable, Tenants
from pytest_synth.backend.store.ledger import LedgerTable
from pytest_synth.backend.store.secrets import RootSecret, SecretTable
from pytest_synth.backend.store.uploads import UploadBox

__all__ = ["JobRecord", "Progress", "RolloutPlace", "RootSecret", "Store", "Tenants"]


class Store:
    """All tables over one database; without a path it is gone when it is closed.

    Raises:
        ConfigError: If the file is no database of ours, is newer than this version, or is in use.
    """

    def __init__(self, path: Path | None, root: RootSecret) -> None:
        self.database = Database(path)
        self.secrets = SecretTable(self.database, root)
        self.api_keys = ApiKeyTable(self.database)
        self.env_keys = EnvKeyTable(self.database, self.secrets)
        self.uploads = UploadBox(root)
        self.jobs = JobTable(self.database)
        self.events = EventTable(self.database)
        self.ledger = LedgerTable(self.database)

    def close(self) -> None:
        self.database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
