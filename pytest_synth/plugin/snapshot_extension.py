"""The snapshot extension for prompts. It imports syrupy: loaded when a test asks for `synth_snapshot`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from syrupy.extensions.single_file import SingleFileSnapshotExtension, WriteMode

from pytest_synth.evals.files import write_whole
from pytest_synth.plugin.snapshots import snapshot_name
from pytest_synth.prompt_files import SUFFIX
from pytest_synth.prompts import Prompt, StoredPrompt

if TYPE_CHECKING:
    from syrupy.location import PyTestLocation
    from syrupy.types import SerializableData, SerializedData, SnapshotIndex


class PromptSnapshotExtension(SingleFileSnapshotExtension):
    """One readable file for each prompt; the messages alone are compared."""

    file_extension = SUFFIX.removeprefix(".")
    _write_mode = WriteMode.BINARY  # text mode would translate line ends

    def serialize(self, data: SerializableData, **_: Any) -> SerializedData:
        """Write a `StoredPrompt`, or whatever makes a `Prompt`."""
        stored = data if isinstance(data, StoredPrompt) else StoredPrompt(Prompt.parse(data))
        return stored.to_text().encode()

    def matches(self, *, serialized_data: SerializedData, snapshot_data: SerializedData) -> bool:
        return _read(serialized_data).prompt == _read(snapshot_data).prompt

    def diff_lines(self, serialized_data: SerializedData, snapshot_data: SerializedData) -> Iterator[str]:
        return super().diff_lines(_messages(serialized_data), _messages(snapshot_data))

    @classmethod
    def get_snapshot_name(cls, *, test_location: PyTestLocation, index: SnapshotIndex = 0) -> str:
        shown = f"[{index}]" if isinstance(index, str) else f".{index}"
        return snapshot_name(test_location.item, shown if index else "")

    @classmethod
    def write_snapshot(
        cls,
        *,
        snapshot_location: str,
        snapshots: list[tuple[SerializedData, PyTestLocation, SnapshotIndex]],
        **_: Any,
    ) -> None:
        """Replace a file in one step.

        Overridden although syrupy asks not to: before version 7 it warns here about every name that is not
        the test's own, such as those with a hash, and offers no other place to say that it fits.
        """
        (data, _location, _index) = snapshots[-1]
        assert isinstance(data, bytes)
        write_whole(Path(snapshot_location), data.decode())


def _read(data: SerializedData) -> StoredPrompt:
    return StoredPrompt.from_text(data.decode() if isinstance(data, bytes) else data)


def _messages(data: SerializedData) -> str:
    """The part of a file that is compared; nothing where there is no file yet."""
    return StoredPrompt(_read(data).prompt).to_text() if data else ""
