"""JSON schemas of tools and structured answers: where they offer a choice, and how to fill them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

MAX_DEPTH = 12  # of nested objects; a schema that refers to itself ends here


@dataclass(frozen=True)
class Choice:
    """One value that a schema allows, and what the schema says about it."""

    value: Any  # any JSON value
    description: str = ""

    @property
    def name(self) -> str:
        return str(self.value)


class Schema:
    """A schema with its local references (`#/$defs/...`)."""

    def __init__(self, root: Mapping[str, Any]) -> None:
        self._root = root

    def has_choices(self) -> bool:
        """True if some value in it is to be chosen from a list."""
        return self._find(self._root, 0)

    def fill(self, choose: Callable[[Sequence[Choice]], Any], texts: Sequence[str]) -> Any:
        """Make a value that fits the schema.

        Args:
            choose: Picks the value of one of the choices.
            texts: For the free strings, in their order; those after them stay empty.
        """
        return _Filling(self, choose, [*texts]).value(self._root, 0)

    def choices(self, node: Mapping[str, Any]) -> list[Choice]:
        """The values that a node allows; empty if it is no choice."""
        node = self.resolve(node)
        if isinstance(node.get("enum"), Sequence):
            return [Choice(value) for value in node["enum"] if value is not None]
        options = [self.resolve(option) for option in node.get("oneOf") or node.get("anyOf") or ()]
        if options and all("const" in option or option.get("type") == "null" for option in options):
            return [
                Choice(option["const"], str(option.get("description") or option.get("title") or ""))
                for option in options
                if "const" in option
            ]
        return []

    def resolve(self, node: Any) -> Mapping[str, Any]:
        """Follow references, and take the first alternative that is not null."""
        for _ in range(MAX_DEPTH):
            if not isinstance(node, Mapping):
                return {}
            if isinstance(node.get("$ref"), str):
                node = self._target(node["$ref"])
            elif isinstance(node.get("allOf"), Sequence) and node["allOf"]:
                node = node["allOf"][0]
            else:
                return node
        return {}

    def _target(self, reference: str) -> Any:
        node: Any = self._root
        for piece in reference.removeprefix("#").strip("/").split("/"):
            node = node.get(piece) if isinstance(node, Mapping) else None
        return node

    def _find(self, node: Any, depth: int) -> bool:
        if depth > MAX_DEPTH:
            return False
        node = self.resolve(node)
        if self.choices(node):
            return True
        below = [*_properties(node).values(), *(node.get("anyOf") or ()), *(node.get("oneOf") or ())]
        return any(self._find(child, depth + 1) for child in [*below, node.get("items")] if child)


@dataclass
class _Filling:
    schema: Schema
    choose: Callable[[Sequence[Choice]], Any]
    texts: list[str]

    def value(self, node: Any, depth: int) -> Any:
        node = self.schema.resolve(node)
        if "const" in node:
            return node["const"]
        choices = self.schema.choices(node)
        if choices:
            return self.choose(choices)
        alternatives = node.get("anyOf") or node.get("oneOf")
        if alternatives and depth < MAX_DEPTH:
            kinds = [self.schema.resolve(alternative) for alternative in alternatives]
            return self.value(next((k for k in kinds if k.get("type") != "null"), {}), depth + 1)
        return self._plain(node, depth)

    def _plain(self, node: Mapping[str, Any], depth: int) -> Any:
        kind = node.get("type")
        if isinstance(kind, Sequence) and not isinstance(kind, str):
            kind = next((k for k in kind if k != "null"), None)
        if kind == "object" or _properties(node):
            if depth >= MAX_DEPTH:
                return {}
            return {name: self.value(child, depth + 1) for name, child in _properties(node).items()}
        if kind == "array":
            items = node.get("items")
            return [self.value(items, depth + 1)] if items and depth < MAX_DEPTH else []
        if kind == "string":
            return self.texts.pop(0) if self.texts else ""
        return {"integer": 0, "number": 0, "boolean": False}.get(str(kind))


def _properties(node: Mapping[str, Any]) -> Mapping[str, Any]:
    properties = node.get("properties")
    return properties if isinstance(properties, Mapping) else {}
