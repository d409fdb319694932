"""Reads the YAML that workflows are written in: mappings, lists, folded texts, and plain values as texts."""

from __future__ import annotations

from typing import Any

Line = tuple[int, str]  # indentation and text


def read_yaml(text: str) -> Any:
    """Read a document.

    Raises:
        ValueError: At the first line that is none of the above, or has a tab in front.
    """
    lines: list[Line] = []
    for number, line in enumerate(text.splitlines(), start=1):
        body = line.strip()
        if line[: len(line) - len(line.lstrip())].strip(" "):
            raise ValueError(f"line {number} is indented by tabs")
        if body and not body.startswith("#"):
            lines.append((len(line) - len(line.lstrip()), body))
    value, rest = _block(lines, 0)
    if rest:
        raise ValueError(f"what is {rest[0][1]!r}?")
    return value


def _block(lines: list[Line], least: int) -> tuple[Any, list[Line]]:
    if not lines or lines[0][0] < least:
        return None, lines
    indent, first = lines[0]
    return (_list if first.startswith("- ") else _mapping)(lines, indent)


def _list(lines: list[Line], indent: int) -> tuple[list[Any], list[Line]]:
    found = []
    while lines and lines[0][0] == indent and lines[0][1].startswith("- "):
        body = lines[0][1][2:]
        if ": " in body and not body.startswith(('"', "'")):
            value, lines = _mapping([(indent + 2, body), *lines[1:]], indent + 2)
        else:
            value, lines = _scalar(body), lines[1:]
        found.append(value)
    return found, lines


def _mapping(lines: list[Line], indent: int) -> tuple[dict[str, Any], list[Line]]:
    found: dict[str, Any] = {}
    while lines and lines[0][0] == indent and not lines[0][1].startswith("- "):
        key, colon, body = lines[0][1].partition(":")
        if not colon or (body and not body.startswith(" ")) or key in found:
            raise ValueError(f"what is {lines[0][1]!r}?")
        lines = lines[1:]
        if body.strip() == ">-":
            folded = []
            while lines and lines[0][0] > indent:
                folded.append(lines[0][1])
                lines = lines[1:]
            found[key] = " ".join(folded)
        elif body.strip():
            found[key] = _scalar(body.strip())
        else:
            found[key], lines = _block(lines, indent + 1)
    return found, lines


def _scalar(text: str) -> Any:
    if text.startswith("[") and text.endswith("]"):
        return [part.strip() for part in text[1:-1].split(",")]
    if text[0] in "\"'" and text[-1] == text[0]:
        return text[1:-1]
    return text
