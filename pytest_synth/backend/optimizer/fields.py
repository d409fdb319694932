"""Reads a section of a config field by field, and collects what is wrong under the field's path."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any, TypeVar

from pytest_synth.contracts.evals import MAX_INTEGER
from pytest_synth.errors import ConfigError

_SHOWN_CHARS = 60
D = TypeVar("D")


class GepaConfigError(ConfigError):
    """A prompt-learning config is refused.

    Attributes:
        problems: (path of the field, what is wrong with it), in the order of reading; all of them.
    """

    def __init__(self, problems: Sequence[tuple[str, str]]) -> None:
        super().__init__("; ".join(f"{path} {text}" for path, text in problems))
        self.problems = tuple(problems)

    def __reduce__(self) -> tuple[type[GepaConfigError], tuple[Sequence[tuple[str, str]]]]:
        return type(self), (self.problems,)


@dataclass
class Findings:
    """What reading a config brought up beside its values."""

    problems: list[tuple[str, str]] = field(default_factory=list)
    not_applied: list[str] = field(default_factory=list)


class Section:
    """A mapping of the config, read by naming its fields; a field that nobody names is refused.

    Each reader notes a problem instead of raising, and returns the default then, so that one refusal
    tells all that is wrong. An explicit null is the same as an absent field.
    """

    def __init__(self, value: object, path: str, findings: Findings) -> None:
        self.path = path
        self._findings = findings
        self._known: list[str] = []
        self._fields: Mapping[str, Any] = {}
        self.is_present = value is not None
        if isinstance(value, Mapping):
            self._fields = value
        elif value is not None:
            findings.problems.append((path, f"is {shown(value)}, not a section of fields"))

    def refuse(self, name: str, text: str) -> None:
        """Note that a field is wrong; the text goes on after its path."""
        self._findings.problems.append((f"{self.path}.{name}", text))

    def has(self, name: str) -> bool:
        return self._fields.get(name) is not None

    def get(self, name: str) -> Any:
        """The value as it stands; the caller judges it."""
        self._known.append(name)
        return self._fields.get(name)

    def section(self, name: str) -> Section:
        return Section(self.get(name), f"{self.path}.{name}", self._findings)

    def integer(self, name: str, default: D, *, at_least: int, at_most: int = MAX_INTEGER) -> int | D:
        value = self.get(name)
        if value is None:
            return default
        if not is_integer(value):
            self.refuse(name, f"is {shown(value)}, not an integer")
            return default
        if value < at_least:
            self.refuse(name, f"is {shown(value)}; it must be at least {at_least}")
            return default
        if value > at_most:
            self.refuse(name, f"is {shown(value)}; it must be at most {at_most}")
            return default
        return int(value)

    def number(
        self,
        name: str,
        default: D,
        *,
        low: float = 0.0,
        high: float | None = None,
        excludes_low: bool = False,
    ) -> float | D:
        value = self.get(name)
        if value is None:
            return default
        if not _is_number(value):
            self.refuse(name, f"is {shown(value)}, not a number")
            return default
        too_low = value <= low if excludes_low else value < low
        if too_low or (high is not None and value > high):
            bounds = f"more than {low:g}" if excludes_low else f"at least {low:g}"
            self.refuse(
                name, f"is {value:g}; it must be {bounds}" + (f" and at most {high:g}" if high else "")
            )
            return default
        return float(value)

    def text(self, name: str, *, allowed: Collection[str] = ()) -> str | None:
        value = self.get(name)
        if value is None:
            return None
        if not isinstance(value, str) or not value.strip():
            self.refuse(name, f"is {shown(value)}, not a text")
            return None
        if allowed and value not in allowed:
            self.refuse(name, f"is {shown(value)}; allowed: {', '.join(allowed)}")
            return None
        return value

    def flag(self, name: str, default: bool) -> bool:
        value = self.get(name)
        if value is None:
            return default
        if not isinstance(value, bool):
            self.refuse(name, f"is {shown(value)}, not true or false")
            return default
        return value

    def mapping(self, name: str) -> Mapping[str, Any]:
        """A mapping whose keys belong to the user."""
        value = self.get(name)
        if value is None:
            return {}
        if not isinstance(value, Mapping):
            self.refuse(name, f"is {shown(value)}, not a section of fields")
            return {}
        return value

    def not_applied(self, name: str, *defaults: object, reason: str) -> None:
        """Accept a field that this engine has no use for only at one of its usual values, and say so."""
        value = self.get(name)
        if value is None:
            return
        if value not in defaults or isinstance(value, bool) is not any(isinstance(d, bool) for d in defaults):
            usual = f"; only {' or '.join(shown(d) for d in defaults)} is accepted" if defaults else ""
            self.refuse(name, f"is {shown(value)}, but {reason}{usual}")
            return
        self._findings.not_applied.append(f"{self.path}.{name} = {shown(value)}: {reason}")

    def ignored(self, *names: str) -> None:
        """Accept fields that say nothing about the search."""
        self._known.extend(names)

    def close(self) -> None:
        """Refuse the fields that have not been named."""
        for name in self._fields:
            if name not in self._known:
                near = get_close_matches(str(name), self._known, n=1)
                hint = f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(self._known)}"
                self.refuse(str(name), f"is no field of this section{hint}")


def is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) <= MAX_INTEGER if isinstance(value, int) else math.isfinite(value)


def shown(value: object) -> str:
    """A value for a message, shortened."""
    text = repr(value)
    return text if len(text) <= _SHOWN_CHARS else f"{text[: _SHOWN_CHARS - 3]}..."
