"""Changes of the database's tables, in order. A released step is never edited; new ones are added."""

from __future__ import annotations

MIGRATIONS: tuple[tuple[str, str], ...] = (
    (
        "keys",
        """
        CREATE TABLE api_keys (
            hash TEXT PRIMARY KEY,
            kind TEXT NOT NULL,
            created_at REAL NOT NULL,
            expires_at REAL
        ) WITHOUT ROWID;
        CREATE TABLE env_keys (
            number INTEGER PRIMARY KEY AUTOINCREMENT,
            id TEXT NOT NULL UNIQUE,
            tenant TEXT NOT NULL,
            name TEXT NOT NULL,
            digest TEXT NOT NULL,
            updated_at REAL NOT NULL,
            UNIQUE (tenant, name, digest)
        );
        CREATE TABLE secrets (
            name TEXT PRIMARY KEY,
            sealed BLOB NOT NULL
        ) WITHOUT ROWID;
        """,
    ),
    (
        "jobs",
        """
        CREATE TABLE jobs (
            number INTEGER PRIMARY KEY AUTOINCREMENT,
            id TEXT NOT NULL UNIQUE,
            tenant TEXT NOT NULL,
            kind TEXT NOT NULL,
            status TEXT NOT NULL,
            position INTEGER NOT NULL,
            same_as TEXT,
            body TEXT NOT NULL,
            error TEXT,
            document TEXT NOT NULL DEFAULT '{}',
            created_at REAL NOT NULL,
            started_at REAL,
            completed_at REAL
        );
        CREATE UNIQUE INDEX jobs_same ON jobs (tenant, same_as) WHERE same_as IS NOT NULL;
        CREATE INDEX jobs_open ON jobs (number) WHERE completed_at IS NULL;
        CREATE TABLE rollouts (
            job INTEGER NOT NULL REFERENCES jobs (number) ON DELETE CASCADE,
            place INTEGER NOT NULL,
            seed INTEGER NOT NULL,
            sample INTEGER NOT NULL,
            reward REAL,
            tokens INTEGER,
            cost_usd REAL,
            row TEXT,
            trace TEXT,
            PRIMARY KEY (job, place)
        );
        CREATE TABLE events (
            job INTEGER NOT NULL REFERENCES jobs (number) ON DELETE CASCADE,
            seq INTEGER NOT NULL,
            type TEXT NOT NULL,
            level TEXT NOT NULL,
            message TEXT NOT NULL,
            data TEXT NOT NULL,
            created_at REAL NOT NULL,
            PRIMARY KEY (job, seq)
        ) WITHOUT ROWID;
        """,
    ),
    (
        "ledger",
        """
        CREATE TABLE ledger (
            job INTEGER NOT NULL REFERENCES jobs (number) ON DELETE CASCADE,
            kind TEXT NOT NULL,
            key TEXT NOT NULL,
            entry TEXT NOT NULL,
            PRIMARY KEY (job, kind, key)
        ) WITHOUT ROWID;
        """,
    ),
)
