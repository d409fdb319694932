"""A cassette: the file of recorded calls, one to a line; texts that they share stand once."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from pytest_synth.backend.gateway.dialect import text_of
from pytest_synth.backend.gateway.entries import Entry, parts_named, read_entry, read_key, write_entry
from pytest_synth.errors import SynthError

HEADER: Final = {"cassette": 1}  # the format's version
LOCK_S: Final = 30.0  # another process writes for some milliseconds
_LOCK_STEP_S: Final = 0.01
_MERGE: Final = (b"<<<<<<<", b"|||||||", b"=======", b">>>>>>>")
_ANEW: Final = "remove it and record again with --synth-record-mode=once"


class CassetteError(SynthError):
    """A cassette that cannot be read or written; the message names file and line."""


class Cassette:
    """The entries of a file, by key. Lines are parsed when they are needed.

    Not for several threads, but for `save`, which works on a copy.

    Raises:
        CassetteError: If the file is there and is no cassette.
    """

    def __init__(self, path: Path, name: str) -> None:
        self.path = path
        self.name = name
        self.existed = path.exists()
        self.lines, self.parts = _read(path) if self.existed else ({}, {})
        self.used: set[str] = set()
        self._new: set[str] = set()

    def __len__(self) -> int:
        return len(self.lines)

    def find(self, key: str) -> Entry | None:
        """The entry of a key, which counts as used from now on."""
        line = self.lines.get(key)
        if line is None:
            return None
        self.used.add(key)
        return self._entry(line)

    def add(self, entry: Entry) -> None:
        """Add an entry, or put it in the place of the one with its key; `save` writes it."""
        line, parts = write_entry(entry)
        key = entry.identity.key
        self.lines[key] = line
        self.parts.update(parts)
        self.used.add(key)
        self._new.add(key)

    def entries(self) -> Iterator[Entry]:
        return (self._entry(line) for line in self.lines.values())

    @property
    def is_dirty(self) -> bool:
        return bool(self._new)

    @property
    def unused(self) -> list[str]:
        """Keys of the entries that were neither found nor added, in file order."""
        return [key for key in self.lines if key not in self.used]

    def drop_unused(self) -> int:
        """Forget the unused entries, here and at the next `save` in the file; say how many there were."""
        unused = self.unused
        for key in unused:
            del self.lines[key]
        return len(unused)

    def snapshot(self) -> Snapshot:
        """What `write` needs, so that it may run in another thread. The entries count as saved."""
        snapshot = Snapshot(self.path, dict(self.lines), dict(self.parts), frozenset(self._new))
        self._new.clear()
        return snapshot

    def _entry(self, line: bytes) -> Entry:
        try:
            return read_entry(line, self.parts)
        except (ValueError, KeyError, TypeError) as error:
            raise CassetteError(
                f"cassette {self.path}: the entry of key {read_key(line)} cannot be read "
                f"({type(error).__name__}: {error}); restore the file, or record it again with "
                "--synth-record-mode=rewrite"
            ) from error

    def unsave(self, snapshot: Snapshot) -> None:
        """The snapshot could not be written: its new entries are new still."""
        self._new |= snapshot.new


class Snapshot:
    """Entries on their way into a file."""

    def __init__(
        self, path: Path, lines: Mapping[str, bytes], parts: Mapping[str, Any], new: frozenset[str]
    ) -> None:
        self._path = path
        self._lines = lines
        self._parts = parts
        self.new = new

    def write(self, *, drop_others: bool = False) -> None:
        """Put the file in place in one step. Entries that other processes have added meanwhile stay.

        Args:
            drop_others: Entries of the file that are not in this snapshot go.

        Raises:
            CassetteError: If the folder cannot be written, or another process holds it for `LOCK_S`.
        """
        folder = self._path.parent
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with _locked(folder):
                lines, parts = dict(self._lines), dict(self._parts)
                if not drop_others and self._path.exists():
                    others, their_parts = _read(self._path)
                    lines = {**others, **{key: self._lines[key] for key in self.new}}
                    parts = {**their_parts, **parts}
                _replace(self._path, _text(lines, parts))
        except OSError as error:
            raise CassetteError(
                f"cannot write the cassette {self._path}: {error.strerror or error}"
            ) from error


def _read(path: Path) -> tuple[dict[str, bytes], dict[str, Any]]:
    lines: dict[str, bytes] = {}
    parts: dict[str, Any] = {}
    try:
        with path.open("rb") as file:
            for number, raw in enumerate(file, 1):
                line = raw.rstrip(b"\r\n")
                key = read_key(line)
                if key is not None:
                    lines[key] = line
                elif number == 1:
                    _check_header(path, line)
                elif line:
                    _read_part(path, number, line, parts)
    except OSError as error:
        raise CassetteError(f"cannot read the cassette {path}: {error.strerror or error}") from error
    return lines, parts


def _check_header(path: Path, line: bytes) -> None:
    try:
        version = json.loads(line)["cassette"]
    except (ValueError, KeyError, TypeError):
        raise CassetteError(
            f"{path} is no cassette: its first line is not {json.dumps(HEADER)}; restore the file, or {_ANEW}"
        ) from None
    if version != HEADER["cassette"]:
        raise CassetteError(
            f"cassette {path} has format {version!r}, this version reads {HEADER['cassette']}; restore the "
            f"file, or {_ANEW}"
        )


def _read_part(path: Path, number: int, line: bytes, parts: dict[str, Any]) -> None:
    try:
        value = json.loads(line)
        parts[value["part"]] = value["value"]
    except (ValueError, KeyError, TypeError):
        where, shown = f"cassette {path}, line {number}", line[:40].decode(errors="replace")
        if line.startswith(_MERGE):
            raise CassetteError(
                f"{where}: {shown!r} is left of a merge; keep the lines of both sides and take the markers "
                f"out, or {_ANEW}"
            ) from None
        raise CassetteError(
            f"{where}: neither an entry nor a part: {shown!r}; restore the file, or {_ANEW}"
        ) from None


def _text(lines: Mapping[str, bytes], parts: Mapping[str, Any]) -> bytes:
    """Header, parts, entries; in an order that does not change with the keys, so that diffs stay small."""
    named = {part for line in lines.values() for part in parts_named(line)}
    texts = sorted((json.dumps(parts[part], ensure_ascii=False), part) for part in named if part in parts)
    out = [json.dumps(HEADER).encode()]
    out += [f'{{"part": "{part}", "value": {text}}}'.encode() for text, part in texts]
    out += sorted(lines.values(), key=lambda line: _place(line, parts))
    return b"\n".join(out) + b"\n"


def _place(line: bytes, parts: Mapping[str, Any]) -> tuple[str, str, int, int, str]:
    try:
        identity = read_entry(line, parts).identity
    except (ValueError, KeyError, TypeError):
        return "", "", 0, 0, line.decode(errors="replace")
    return query_of(identity.request), identity.model, identity.sample, identity.repeat, identity.key


def query_of(request: Mapping[str, Any]) -> str:
    """Text of a request's last user message, whichever API it is of."""
    given = request.get("messages", request.get("input"))
    if isinstance(given, str):
        return given
    for message in reversed(given if isinstance(given, list) else []):
        if isinstance(message, dict) and message.get("role") == "user":
            return text_of(message.get("content")) or ""
    return ""


def _replace(path: Path, text: bytes) -> None:
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(text)
        Path(name).chmod(0o644)  # mkstemp makes it 0600; a cassette is committed
        os.replace(name, path)  # noqa: PTH105 - the word for the one atomic step
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)  # noqa: PTH108
        raise


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Keep other processes from writing into a folder. The lock ends with its process, and leaves no file."""
    if os.name != "posix":
        with _lock_file(folder / ".cassettes.lock"):
            yield
        return
    import fcntl

    handle = os.open(folder, os.O_RDONLY)
    try:
        deadline = time.monotonic() + LOCK_S
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise OSError(f"another process holds {folder} for {LOCK_S:.0f} s") from None
                time.sleep(_LOCK_STEP_S)
        yield
    finally:
        os.close(handle)


@contextlib.contextmanager
def _lock_file(path: Path) -> Iterator[None]:
    """Where folders cannot be locked (Windows): a file that only one process can make."""
    deadline = time.monotonic() + LOCK_S
    while True:
        try:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL))
            break
        except FileExistsError:
            if time.monotonic() > deadline:
                raise OSError(
                    f"another process holds {path} for {LOCK_S:.0f} s; if none runs, remove it"
                ) from None
            time.sleep(_LOCK_STEP_S)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
