"""Texts of prompts, out of the shapes in which services send them.

The shapes: `messages` with `pattern` (or `content`), `sections` or `prompt_sections` with `content` (or
`pattern`), `text_replacements` with `new_text`; and any of these below `data`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pytest_synth.client.flows import Json


def system_text_of(prompt: object) -> str | None:
    """Return the system text of a prompt; a string is one itself. None if there is none."""
    if isinstance(prompt, str):
        return prompt or None
    if not isinstance(prompt, Mapping):
        return None
    for message in _list(prompt, "messages"):
        if message.get("role") == "system":
            return message.get("pattern") or message.get("content")
    for section in _list(prompt, "sections"):
        if section.get("role") == "system":
            return section.get("content") or section.get("pattern")
    for replacement in _list(prompt, "text_replacements"):
        if replacement.get("apply_to_role") == "system":
            return replacement.get("new_text")
    return None


def messages_of(prompt: object) -> Json | None:
    """Return a prompt as `{"messages": [...]}`; None if it holds neither messages nor sections."""
    for place in _places(prompt):
        if messages := _list(place, "messages"):
            return {**place, "messages": messages}
        messages = [
            {
                "role": section.get("role", section.get("name", "system")),
                "name": section.get("name"),
                "content": section["content"],
            }
            for section in _sections(place)
            if section.get("content")
        ]
        if messages:
            return {"messages": messages}
    return None


def full_text_of(prompt: object) -> str | None:
    """Return the text of all messages, each below a line `[role | name]`; None if there are none."""
    for place in _places(prompt):
        parts = [(_head(m), m.get("pattern") or m.get("content") or "") for m in _list(place, "messages")]
        parts = parts or [(_head(s), s.get("content", "")) for s in _sections(place)]
        parts = parts or [
            (str(r.get("apply_to_role", "system")), r["new_text"])
            for r in _list(place, "text_replacements")
            if r.get("new_text")
        ]
        if parts:
            return "\n\n".join(f"[{head}]\n{text}" for head, text in parts)
    return None


def _head(part: Mapping[str, Any]) -> str:
    return f"{part.get('role') or ''} | {part.get('name') or ''}"


def _places(prompt: object) -> list[Mapping[str, Any]]:
    """The objects of a prompt that may hold its text: what lies below `data` comes first."""
    if not isinstance(prompt, Mapping):
        return []
    data = prompt.get("data")
    return [data, prompt] if isinstance(data, Mapping) else [prompt]


def _sections(place: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return _list(place, "sections") or _list(place, "prompt_sections")


def _list(place: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    value = place.get(name)
    return [item for item in value if isinstance(item, Mapping)] if isinstance(value, list) else []
