r"""The file format of stored prompts: where a prompt came from, then each message under its role.

    ---
    format: pytest-synth prompt 1
    reward: 0.86
    ...
    ---
    === system ===
    You sort messages.
    === end ===

A message is what stands between its heading and the line break before the next one, so that any text comes
back as it was. A line of a text that looks like a heading, or like a mark that git leaves in a conflict,
gets a backslash before it. Nothing here depends on the time or the machine: a diff shows what has changed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Final

from pytest_synth.errors import ConfigError

ROLES: Final = ("system", "developer", "user", "assistant")
SUFFIX: Final = ".prompt"  # of stored prompts; formatters of Markdown would rewrite an `.md`

_FORMAT: Final = "pytest-synth prompt 1"
_FENCE: Final = "---"
_HEAD: Final = f"{_FENCE}\nformat: "
_END: Final = "=== end ==="
_CONFLICT: Final = r"<{7} |\|{7} |>{7} |={7}$"
_SPECIAL: Final = re.compile(rf"(\\*)(?:=== ({'|'.join(ROLES)}|end) ===$|{_CONFLICT})")
_KEY: Final = re.compile(r"([a-z_]+):(?: (.*))?")


@dataclass(frozen=True)
class PromptRecord:
    """Where a stored prompt came from, and how well it did.

    Attributes:
        reward: Mean reward on seeds that the search had not seen.
        interval: Of the paired difference to the baseline on those seeds.
        baseline_reward: Of the prompt that the search started from, on the same seeds.
        n: How many seeds that were.
        model: Provider and model, `openai/gpt-4.1-nano`.
        seeds: Which seeds, for people: `test 0-63`.
        candidate, parent: Ids of the prompt and of the one that it was made of, in its search.
        baseline_fingerprint: Of the prompt that the search started from; when the code's prompt is
            another one by now, the stored prompt is stale.
    """

    reward: float | None = None
    interval: tuple[float, float] | None = None
    baseline_reward: float | None = None
    n: int | None = None
    model: str | None = None
    seeds: str | None = None
    candidate: str | None = None
    parent: str | None = None
    baseline_fingerprint: str | None = None


_FIELDS: Final = tuple(field.name for field in fields(PromptRecord))
_NUMBERS: Final = ("reward", "baseline_reward")


def is_prompt_file(text: str) -> bool:
    """Say whether a text is in this format, or was before somebody damaged it."""
    return text.replace("\r\n", "\n", 2).startswith(_HEAD)


def format_prompt_file(messages: Sequence[tuple[str, str]], record: PromptRecord) -> str:
    """Write messages (role, text) and their record.

    Raises:
        ConfigError: If a role has no heading, or a text is none that a file can hold.
    """
    lines = [_FENCE, f"format: {_FORMAT}", *_record_lines(record), _FENCE]
    for role, text in messages:
        if role not in ROLES:
            raise ConfigError(
                f"a prompt with the role {role!r} cannot be stored; allowed: {', '.join(ROLES)}"
            )
        lines.append(f"=== {role} ===")
        lines += [_escape(line) for line in text.split("\n")]
    whole = "\n".join([*lines, _END, ""])
    try:
        whole.encode()
    except UnicodeEncodeError as error:
        raise ConfigError(
            f"a prompt with {whole[error.start]!r} cannot be stored: half of a surrogate pair is no character"
        ) from error
    return whole


def parse_prompt_file(text: str) -> tuple[list[tuple[str, str]], PromptRecord]:
    """Read what `format_prompt_file` wrote; keys that are not known are left out.

    Line ends of a file that was checked out with other ones as a whole are put back.

    Raises:
        ConfigError: If the text is anything else; it names the line.
    """
    if text.startswith(f"{_FENCE}\r\n"):
        text = text.replace("\r\n", "\n")
    lines = text.split("\n")
    if not text.startswith(_HEAD):
        raise ConfigError(f"line 1 is {lines[0][:60]!r}, not the beginning of a stored prompt")
    if lines[1] != f"format: {_FORMAT}":
        raise ConfigError(f"line 2 is {lines[1][:60]!r}; this version reads {_FORMAT!r}")
    try:
        start = lines.index(_FENCE, 1)
    except ValueError:
        raise ConfigError(f"there is no second line {_FENCE!r}") from None
    return _read_messages(lines, start + 1), _read_record(lines[2:start])


def _record_lines(record: PromptRecord) -> list[str]:
    found = []
    for name in _FIELDS:
        value = getattr(record, name)
        if value is None:
            continue
        shown = value if isinstance(value, str) else json.dumps(value)
        if "\n" in shown or "\r" in shown:
            raise ConfigError(f"{name} is {value!r}; a line break in it cannot be stored")
        found.append(f"{name}: {shown}")
    return found


def _read_record(lines: Sequence[str]) -> PromptRecord:
    values: dict[str, Any] = {}
    for number, line in enumerate(lines, start=3):
        match = _KEY.fullmatch(line)
        if match is None:
            raise ConfigError(f"line {number} is {line[:60]!r}, not 'name: value'")
        name, value = match[1], match[2] or ""
        if name in values:
            raise ConfigError(f"line {number} gives {name} a second time")
        values[name] = value
    record: dict[str, Any] = {}
    for name in _FIELDS:
        if name in values:
            record[name] = _value(name, values[name])
    return PromptRecord(**record)


def _value(name: str, text: str) -> Any:
    if name in ("model", "seeds", "candidate", "parent", "baseline_fingerprint"):
        return text
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if name == "interval" and isinstance(value, list) and len(value) == 2 and all(map(_is_number, value)):
        return (float(value[0]), float(value[1]))
    if name == "n" and isinstance(value, int) and not isinstance(value, bool):
        return value
    if name in _NUMBERS and _is_number(value):
        return float(value)
    raise ConfigError(
        f"{name} is {text!r}, not {'two numbers in brackets' if name == 'interval' else 'a number'}"
    )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _escape(line: str) -> str:
    return "\\" + line if _SPECIAL.match(line.removesuffix("\r")) else line


def _read_messages(lines: Sequence[str], start: int) -> list[tuple[str, str]]:
    messages: list[tuple[str, list[str]]] = []
    for number, line in enumerate(lines[start:], start=start + 1):
        special = _SPECIAL.match(line.removesuffix("\r"))
        if special is not None and not special[1]:
            if special[2] is None:
                raise ConfigError(f"line {number} is {line[:60]!r}: a conflict of a merge is not resolved")
            if special[2] == "end":
                return _finished(messages, lines[number:])
            messages.append((special[2], []))
        elif not messages:
            raise ConfigError(f"line {number} is {line[:60]!r}, not a heading such as '=== system ==='")
        else:
            messages[-1][1].append(line[1:] if special is not None else line)
    raise ConfigError(f"the last line is not {_END!r}; the file has been cut")


def _finished(messages: Sequence[tuple[str, list[str]]], rest: Sequence[str]) -> list[tuple[str, str]]:
    if any(line.strip() for line in rest):
        raise ConfigError(f"there is text after {_END!r}")
    if not messages:
        raise ConfigError("there is no message")
    return [(role, "\n".join(lines)) for role, lines in messages]
