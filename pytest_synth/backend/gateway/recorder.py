"""Record modes: whether a call is answered by its cassette, recorded, or refused."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path, PurePosixPath
from typing import Any, Final

from pytest_synth.backend.gateway.cassette import Cassette, CassetteError
from pytest_synth.backend.gateway.entries import Entry, Identity, Redact, map_texts, redactor, request_of
from pytest_synth.backend.gateway.misses import Misses
from pytest_synth.backend.gateway.refusals import CallRefused, PolicyRefused

SAVE_S: Final = 2.0  # between two writes while recording; a crash loses no more than that
FOLDER: Final = "cassettes"
SUFFIX: Final = ".jsonl"


class RecordMode(StrEnum):
    """What VCR's users know by these names.

    `off`: no cassette. `none`: replay only. `once`: record if there is no cassette yet, else replay only.
    `new_episodes`: replay what is recorded, record the rest. `all`: record everything anew. `rewrite`: as
    `all`, and what was not recorded anew goes.
    """

    OFF = "off"
    NONE = "none"
    ONCE = "once"
    NEW_EPISODES = "new_episodes"
    ALL = "all"
    REWRITE = "rewrite"


@dataclass(frozen=True)
class CassetteUse:
    """What became of a cassette in this process.

    Attributes:
        entries: Calls in it now.
        replayed, recorded: Entries that answered a call, and entries made.
        unused: Entries that did neither.
        dropped: Entries that `rewrite` has removed.
    """

    name: str
    entries: int
    replayed: int
    recorded: int
    unused: int
    dropped: int


@dataclass(frozen=True)
class CassetteSummary:
    """What a cassette holds: calls, and what they cost (None if that is not known of one of them)."""

    calls: int
    cost_usd: float | None


class Recorder:
    """One cassette, shared by all rollouts that name it. Lives as long as the gateway."""

    def __init__(self, cassette: Cassette) -> None:
        self.cassette = cassette
        self._mine: set[str] = set()
        self._running: dict[str, asyncio.Future[None]] = {}
        self._misses: Misses | None = None
        self._replayed: set[str] = set()
        self._writing = asyncio.Lock()

    async def find(self, identity: Identity, mode: RecordMode) -> Entry | None:
        """The entry that answers a call. None: it is to be made, and `add` or `abandon` must follow.

        A call that is being recorded for another rollout is waited for, so that equal calls have one answer.

        Raises:
            CallRefused: If the mode only replays, and the call is not recorded; or its entry is broken.
        """
        key = identity.key
        while key in self._running:
            await asyncio.shield(self._running[key])
        try:
            if key in self._mine or not self._makes_anew(mode):
                entry = self.cassette.find(key)
                if entry is not None:
                    self._replayed.add(key)
                    return entry
            if not self.may_record(mode):
                raise CallRefused(422, self._miss(identity), kind="replay_miss")
        except CassetteError as error:
            raise CallRefused(422, str(error), kind="replay_miss") from error
        self._running[key] = asyncio.get_running_loop().create_future()
        return None

    def add(self, entry: Entry) -> None:
        """Record the call that `find` gave None for."""
        self._mine.add(entry.identity.key)
        self.cassette.add(entry)
        self.abandon(entry.identity)

    def abandon(self, identity: Identity) -> None:
        """The call has no answer to record; the next one like it is made again."""
        running = self._running.pop(identity.key, None)
        if running is not None:
            running.set_result(None)

    def may_record(self, mode: RecordMode) -> bool:
        return (
            self._makes_anew(mode)
            or mode is RecordMode.NEW_EPISODES
            or (mode is RecordMode.ONCE and not self.cassette.existed)
        )

    async def save(self) -> None:
        """Write what is new, in a thread of its own.

        Raises:
            CassetteError: If it cannot be written; the next `save` tries again.
        """
        async with self._writing:
            if self.cassette.is_dirty:
                await self._write(drop_others=False)

    async def finish(self, *, rewrites: bool) -> CassetteUse:
        """Save, and say what became of the cassette; `rewrites`: drop what was not used."""
        dropped = 0
        async with self._writing:
            if rewrites and self._mine:
                dropped = self.cassette.drop_unused()
            if dropped or self.cassette.is_dirty:
                await self._write(drop_others=rewrites)
        return CassetteUse(
            name=self.cassette.name,
            entries=len(self.cassette),
            replayed=len(self._replayed),
            recorded=len(self._mine),
            unused=len(self.cassette.unused),
            dropped=dropped,
        )

    async def _write(self, *, drop_others: bool) -> None:
        snapshot = self.cassette.snapshot()
        try:
            await asyncio.to_thread(snapshot.write, drop_others=drop_others)
        except CassetteError:
            self.cassette.unsave(snapshot)
            raise

    @staticmethod
    def _makes_anew(mode: RecordMode) -> bool:
        return mode in (RecordMode.ALL, RecordMode.REWRITE)

    def _miss(self, identity: Identity) -> str:
        name = self.cassette.name
        if not self.cassette.existed and not len(self.cassette):
            return (
                f"replay has no cassette {name!r} (model {identity.model!r}); record it with "
                "--synth-record-mode=once"
            )
        if self._misses is None:
            self._misses = Misses(entry.identity for entry in self.cassette.entries())
        nearest = self._misses.explain(identity)
        return (
            f"replay has no answer for this request (model {identity.model!r}) in "
            f"{name!r}{'' if nearest is None else f'; the nearest recorded call differs: {nearest}'}; "
            "run with --synth-record-mode=new_episodes to add it"
        )


class Recorders:
    """The cassettes below one folder, each opened once.

    Args:
        root: Folder that cassette names start from; None: there are no cassettes here.
        patterns: Regular expressions of what must not get into a cassette.
        secrets: Texts that must not.
    """

    def __init__(
        self, root: Path | None, *, patterns: Sequence[str] = (), secrets: Sequence[str] = ()
    ) -> None:
        self._root = root
        self._redact: Redact | None = redactor([re.compile(pattern) for pattern in patterns], secrets)
        self._open: dict[Path, Recorder] = {}

    def open(self, name: str) -> Recorder:
        """Give the recorder of a cassette's name: a relative path with `/`, in a folder `cassettes`.

        Raises:
            PolicyRefused: If the name leaves the root or is not of that form, or the file is no cassette.
        """
        path = self._path(name)
        if path not in self._open:
            try:
                self._open[path] = Recorder(Cassette(path, name))
            except CassetteError as error:
                raise PolicyRefused(str(error)) from error
        return self._open[path]

    def exists(self, name: str) -> bool:
        return self._path(name).exists()

    def summary(self, name: str) -> CassetteSummary:
        """What a cassette holds; no calls if there is no such file."""
        if not self.exists(name):
            return CassetteSummary(0, 0.0)
        costs = [entry.cost_usd for entry in self.open(name).cassette.entries()]
        known = [cost for cost in costs if cost is not None]
        return CassetteSummary(len(costs), sum(known) if len(known) == len(costs) else None)

    def request_of(self, body: Mapping[str, Any]) -> tuple[dict[str, Any], bool]:
        """What identifies a call, redacted; and whether that has changed it."""
        request = request_of(body, self._redact)
        return request, self._redact is not None and request != request_of(body, None)

    def cleaned(self, response: dict[str, Any]) -> dict[str, Any]:
        """An answer as it may be recorded."""
        return response if self._redact is None else map_texts(response, self._redact)

    async def save(self) -> None:
        """Write what is new in all cassettes.

        Raises:
            CassetteError: The first, if some cannot be written; the others are.
        """
        found: CassetteError | None = None
        for recorder in list(self._open.values()):
            try:
                await recorder.save()
            except CassetteError as error:
                found = found or error
        if found is not None:
            raise found

    def _path(self, name: str) -> Path:
        if self._root is None:
            raise PolicyRefused("this backend has no folder for cassettes; use --synth-record-mode=off")
        pure = PurePosixPath(name)
        if (
            pure.is_absolute()
            or ".." in pure.parts
            or FOLDER not in pure.parts[:-1]
            or pure.suffix != SUFFIX
            or "\\" in name
            or "\0" in name
        ):
            raise PolicyRefused(
                f"cassette {name!r}: a name is a relative path with '/', in a folder {FOLDER!r}, "
                f"with the suffix {SUFFIX!r}"
            )
        path = Path(os.path.realpath(self._root / pure))
        if not path.is_relative_to(os.path.realpath(self._root)):
            raise PolicyRefused(f"cassette {name!r} lies outside of the folder of this backend's cassettes")
        return path
