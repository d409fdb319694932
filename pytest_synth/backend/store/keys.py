"""API keys (hashes only) and the environment keys that a tenant has uploaded for its task apps."""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass

from pytest_synth.backend.store.database import Database
from pytest_synth.backend.store.secrets import SecretTable

RECENT_ENV_KEYS = 5
"""How many keys of one name are kept: clients replace the key that a running task app expects unasked."""


def hash_key(key: str) -> str:
    """SHA-256 of an API key; it is also the name of the key's tenant. Keys are random, so no salt."""
    return hashlib.sha256(key.encode(errors="surrogatepass")).hexdigest()


class ApiKeyTable:
    """Keys that were minted here. Expired ones are unknown."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def mint(self, kind: str, *, ttl_s: float, now: float | None = None) -> str:
        """Make a key that lives `ttl_s` seconds, and forget the expired ones."""
        now = time.time() if now is None else now
        key = f"synth_{kind}_{secrets.token_hex(24)}"
        with self._database.transaction():
            self._database.execute("DELETE FROM api_keys WHERE expires_at <= ?", (now,))
            self._database.execute(
                "INSERT INTO api_keys VALUES (?, ?, ?, ?)", (hash_key(key), kind, now, now + ttl_s)
            )
        return key

    def tenant(self, key: str, *, now: float | None = None) -> str | None:
        """Name the tenant of a key; None if the key is unknown or expired."""
        now = time.time() if now is None else now
        found = self._database.row(
            "SELECT hash FROM api_keys WHERE hash = ? AND (expires_at IS NULL OR expires_at > ?)",
            (hash_key(key), now),
        )
        return None if found is None else str(found[0])


class Tenants:
    """Who a request comes from: the machine's own user, by the local key, or a minted key's tenant."""

    def __init__(self, api_keys: ApiKeyTable, local_key: str) -> None:
        self._api_keys = api_keys
        self.local = hash_key(local_key)

    def authorize(self, headers: Mapping[str, str]) -> str | None:
        """Name the tenant of a request's headers (lower-case names); None if no key in them is valid.

        Published clients send the key as `Authorization: Bearer`, as `X-API-Key`, or as both.
        """
        scheme, _, token = headers.get("authorization", "").partition(" ")
        candidates = [token.strip() if scheme.lower() == "bearer" else "", headers.get("x-api-key", "")]
        for key in candidates:
            if not key:
                continue
            tenant = self.local if hash_key(key) == self.local else self._api_keys.tenant(key)
            if tenant is not None:
                return tenant
        return None


@dataclass(frozen=True)
class EnvKeyRecord:
    """What may be told of an environment key."""

    id: str
    name: str
    updated_at: float


class EnvKeyTable:
    """A tenant's environment keys, newest first; the last `RECENT_ENV_KEYS` of each name are kept."""

    def __init__(self, database: Database, secret_table: SecretTable) -> None:
        self._database = database
        self._secrets = secret_table

    def put(self, tenant: str, name: str, value: str, *, now: float | None = None) -> EnvKeyRecord:
        """Store a key as the newest; the same one again costs nothing more than a date."""
        now = time.time() if now is None else now
        digest = hash_key(value)
        with self._database.transaction():
            old = self._database.row(
                "SELECT id FROM env_keys WHERE tenant = ? AND name = ? AND digest = ?", (tenant, name, digest)
            )
            if old is not None:
                self._database.execute("DELETE FROM env_keys WHERE id = ?", (old[0],))
            key_id = f"env_{secrets.token_hex(8)}" if old is None else str(old[0])
            self._database.insert(
                "INSERT INTO env_keys (id, tenant, name, digest, updated_at) VALUES (?, ?, ?, ?, ?)",
                (key_id, tenant, name, digest, now),
            )
            self._secrets.put(f"env:{key_id}", value)
            for (stale,) in self._database.rows(
                "SELECT id FROM env_keys WHERE tenant = ? AND name = ?"
                " ORDER BY number DESC LIMIT -1 OFFSET ?",
                (tenant, name, RECENT_ENV_KEYS),
            ):
                self._database.execute("DELETE FROM env_keys WHERE id = ?", (stale,))
                self._secrets.drop(f"env:{stale}")
        return EnvKeyRecord(key_id, name, now)

    def values(self, tenant: str, name: str = "ENVIRONMENT_API_KEY") -> tuple[str, ...]:
        """Return the keys of a tenant, newest first."""
        ids = self._database.rows(
            "SELECT id FROM env_keys WHERE tenant = ? AND name = ? ORDER BY number DESC", (tenant, name)
        )
        values = (self._secrets.get(f"env:{key_id}") for (key_id,) in ids)
        return tuple(value for value in values if value is not None)
