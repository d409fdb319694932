"""A prompt as data: its messages, where it is read from, and its fingerprint."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pytest_synth.errors import ConfigError
from pytest_synth.prompt_files import (
    ROLES,
    PromptRecord,
    format_prompt_file,
    is_prompt_file,
    parse_prompt_file,
)

HOLE = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")  # a `{wildcard}` in a pattern


@dataclass(frozen=True)
class Message:
    """One message of a prompt. `pattern` may hold `{wildcard}` holes."""

    role: str
    pattern: str


@dataclass(frozen=True)
class Prompt:
    """The messages of a prompt, in the order in which they are sent."""

    messages: tuple[Message, ...]

    @property
    def system(self) -> str | None:
        """Text of the first system message; None if there is none."""
        return next((m.pattern for m in self.messages if m.role in ("system", "developer")), None)

    @property
    def wildcards(self) -> frozenset[str]:
        """Names of the `{wildcard}` holes in all messages."""
        return frozenset(name for m in self.messages for name in HOLE.findall(m.pattern))

    @property
    def fingerprint(self) -> str:
        """12 hex digits of the SHA-256 over roles and patterns; equal prompts have equal ones."""
        return fingerprint([(m.role, m.pattern) for m in self.messages])

    def render(self, **wildcards: str) -> list[dict[str, str]]:
        """Fill the holes and return chat messages (`role`, `content`).

        Other braces than `{name}` of a known wildcard are left as they are, so that JSON in a prompt
        needs no escaping.

        Raises:
            ConfigError: If a wildcard that the prompt has is not given, or one that it has not is.
        """
        given, known = set(wildcards), self.wildcards
        if given - known:
            raise ConfigError(f"the prompt has no wildcard {_names(given - known)}; it has {_names(known)}")
        if known - given:
            raise ConfigError(f"no value for wildcard {_names(known - given)} of the prompt")
        return [
            {"role": m.role, "content": HOLE.sub(lambda hole: str(wildcards[hole[1]]), m.pattern)}
            for m in self.messages
        ]

    def to_wire(self) -> list[dict[str, Any]]:
        """Messages as the wire has them: `role`, `pattern`, `order`."""
        return [
            {"role": m.role, "pattern": m.pattern, "order": order} for order, m in enumerate(self.messages)
        ]

    @classmethod
    def parse(cls, value: object, *, base: Path | None = None) -> Prompt:
        """Make a prompt of what a user may write.

        Args:
            value: A `Prompt`; a string (the system message); a list of messages (mappings with `role`
                and `pattern`, or `content`, and an optional `order`); or a `Path` of a prompt file.
            base: Folder that a relative path starts from; default: the working directory.

        Raises:
            ConfigError: If it is none of these, or empty; it names the part that is wrong.
        """
        if isinstance(value, Prompt):
            return value
        if isinstance(value, str):
            if not value.strip():
                raise ConfigError("a prompt must not be empty")
            return cls((Message("system", value),))
        if isinstance(value, Path):
            return load_prompt(base / value if base is not None else value)
        if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray):
            return cls(_messages(value))
        raise ConfigError(
            f"a prompt is a string, a list of messages, a Path or a Prompt, not {type(value).__name__}"
        )


def fingerprint(value: object) -> str:
    """12 hex digits of the SHA-256 over the canonical JSON of a value."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


@dataclass(frozen=True)
class StoredPrompt:
    """A prompt with the record of where it came from, as a snapshot keeps it."""

    prompt: Prompt
    record: PromptRecord = field(default_factory=PromptRecord)

    def to_text(self) -> str:
        """Write it in the format of `prompt_files`.

        Raises:
            ConfigError: If it has no message, or a role or a text that cannot be stored.
        """
        Prompt.parse(self.prompt.to_wire())  # what could not be read again is not written
        return format_prompt_file([(m.role, m.pattern) for m in self.prompt.messages], self.record)

    @classmethod
    def from_text(cls, text: str) -> StoredPrompt:
        """Read what `to_text` wrote.

        Raises:
            ConfigError: If the text is anything else, or a message is empty.
        """
        messages, record = parse_prompt_file(text)
        return cls(Prompt.parse([{"role": role, "pattern": pattern} for role, pattern in messages]), record)


def load_prompt(path: str | Path) -> Prompt:
    """Read a prompt from a file: a stored one, or a text that is the system message as a whole.

    Raises:
        ConfigError: If the file cannot be read, is not UTF-8 or is empty, or is a stored prompt that
            somebody has damaged; it names the file.
    """
    file = Path(path)
    text = _read(file)
    if is_prompt_file(text):
        return load_stored_prompt(file).prompt
    if not text.strip():
        raise ConfigError(f"the prompt file {str(file)!r} is empty")
    return Prompt((Message("system", text.replace("\r\n", "\n").replace("\r", "\n")),))


def load_stored_prompt(file: Path) -> StoredPrompt:
    """Read a stored prompt with its record.

    Raises:
        ConfigError: If the file cannot be read or is none; it names the file.
    """
    text = _read(file)
    try:
        return StoredPrompt.from_text(text)
    except ConfigError as error:
        raise ConfigError(f"the stored prompt {str(file)!r} cannot be read: {error}") from error


def _read(file: Path) -> str:
    try:
        return file.read_bytes().decode("utf-8-sig")  # some editors begin a file with a byte order mark
    except OSError as error:
        raise ConfigError(f"cannot read the prompt file {str(file)!r}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"the prompt file {str(file)!r} is not UTF-8") from error


def _messages(values: Sequence[object]) -> tuple[Message, ...]:
    if not values:
        raise ConfigError("a prompt must have at least one message")
    placed: list[tuple[int, int, Message]] = []
    for index, value in enumerate(values):
        if isinstance(value, Message):
            placed.append((index, index, value))
            continue
        if not isinstance(value, Mapping):
            raise ConfigError(f"messages[{index}] of the prompt is {type(value).__name__}, not a mapping")
        role, pattern = value.get("role"), value.get("pattern", value.get("content"))
        if role not in ROLES:
            raise ConfigError(f"messages[{index}].role is {role!r}; allowed: {', '.join(ROLES)}")
        if not isinstance(pattern, str) or not pattern.strip():
            raise ConfigError(f"messages[{index}].pattern is {pattern!r}, not a text")
        order = value.get("order", index)
        if not isinstance(order, int):
            raise ConfigError(f"messages[{index}].order is {order!r}, not an integer")
        placed.append((order, index, Message(str(role), pattern)))
    return tuple(message for _, _, message in sorted(placed, key=lambda entry: entry[:2]))


def _names(names: set[str] | frozenset[str]) -> str:
    return ", ".join(repr(name) for name in sorted(names)) or "none"
