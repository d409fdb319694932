"""Secrets at rest: sealed with a key file beside the database, or, without PyNaCl, kept in memory only."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_synth.backend.store.database import Database
from pytest_synth.errors import ConfigError

if TYPE_CHECKING:
    from nacl.secret import SecretBox

_BYTES = 32


@dataclass(frozen=True)
class RootSecret:
    """The one secret of a database; the local API key and all other keys of the backend follow from it."""

    material: bytes = field(repr=False)

    @classmethod
    def random(cls) -> RootSecret:
        return cls(secrets.token_bytes(_BYTES))

    @classmethod
    def beside(cls, database: Path) -> RootSecret:
        """Read the key file of a database (`<database>.key`, mode 0600); make it if it is not there.

        Raises:
            ConfigError: If others may read the file, or it does not hold what it should.
        """
        path = database.with_name(database.name + ".key")
        try:
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            return cls._read(path)
        except OSError as error:
            raise ConfigError(f"cannot make the key file {str(path)!r}: {error.strerror}") from error
        root = cls.random()
        with os.fdopen(handle, "w", encoding="ascii") as file:
            file.write(root.material.hex() + "\n")
        return root

    @classmethod
    def _read(cls, path: Path) -> RootSecret:
        if os.name == "posix" and stat.S_IMODE(path.stat().st_mode) & 0o077:
            raise ConfigError(f"the key file {str(path)!r} can be read by others; run: chmod 600 {path}")
        try:
            material = bytes.fromhex(path.read_text(encoding="ascii").strip())
        except (OSError, ValueError) as error:
            raise ConfigError(f"cannot read the key file {str(path)!r}") from error
        if len(material) != _BYTES:
            raise ConfigError(
                f"the key file {str(path)!r} holds {len(material)} bytes instead of {_BYTES};"
                " put the right one back, or remove it together with its database"
            )
        return cls(material)

    def derive(self, purpose: str) -> bytes:
        """Make a key of 32 bytes for one purpose (HMAC-SHA256 of the purpose's name)."""
        return hmac.new(self.material, purpose.encode(), hashlib.sha256).digest()

    @property
    def local_key(self) -> str:
        """The API key of the machine's own user; the same for the same database."""
        return f"synth_local_{self.derive('local api key').hex()}"


def secret_box(key: bytes) -> SecretBox | None:
    """Make the box that seals with a key; None where PyNaCl is not installed."""
    try:
        from nacl.secret import SecretBox
    except ImportError:
        return None
    return SecretBox(key)


class SecretTable:
    """Named secrets; what is written to the file is sealed, and without PyNaCl nothing is written."""

    def __init__(self, database: Database, root: RootSecret) -> None:
        self._database = database
        self._box = secret_box(root.derive("secrets at rest"))
        self._memory: dict[str, str] = {}

    def put(self, name: str, text: str) -> None:
        if self._box is None:
            self._memory[name] = text
            return
        sealed = bytes(self._box.encrypt(text.encode()))
        self._database.execute(
            "INSERT INTO secrets VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET sealed = excluded.sealed",
            (name, sealed),
        )

    def get(self, name: str) -> str | None:
        """Return a secret; None if it was never put or was lost with the process that had it."""
        if self._box is None:
            return self._memory.get(name)
        found = self._database.row("SELECT sealed FROM secrets WHERE name = ?", (name,))
        return None if found is None else self._open(name, found[0])

    def drop(self, name: str) -> None:
        self._memory.pop(name, None)
        self._database.execute("DELETE FROM secrets WHERE name = ?", (name,))

    def _open(self, name: str, sealed: bytes) -> str:
        from nacl.exceptions import CryptoError

        assert self._box is not None
        try:
            return self._box.decrypt(sealed).decode()
        except CryptoError as error:
            raise ConfigError(
                f"the secret {name!r} was sealed with another key file; put the database's own one back"
            ) from error
