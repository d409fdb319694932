"""HTML and SVG as text that is escaped unless it was made here.

Every element is made by `element`, which escapes what it is given; only `Markup`, which nothing but these
functions should make, is taken as it is.
"""

from __future__ import annotations

import html
from collections.abc import Iterable

from pytest_synth.report.text import printable

Child = object
"""`Markup`, a list of children, None (nothing), or anything else, which is escaped as text."""

_EMPTY = {"meta", "br", "input", "line", "rect", "circle", "path"}


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


def element(name: str, /, *children: Child, **attributes: object) -> Markup:
    """Make an element.

    Args:
        name: Of the element; never foreign text.
        attributes: None and False are left out, True is an attribute without a value. A trailing underscore
            is dropped (`class_`, `for_`), others become hyphens (`aria_label`).
    """
    head = f"<{name}{''.join(_attribute(key, value) for key, value in attributes.items())}"
    if name in _EMPTY and not children:
        return Markup(f"{head}>" if name in ("meta", "br", "input") else f"{head}/>")
    return Markup(f"{head}>{join(children)}</{name}>")


def join(children: Iterable[Child]) -> Markup:
    """Put children one after the other; text is escaped."""
    return Markup("".join(_render(child) for child in children))


def escape(text: object) -> Markup:
    """Foreign text as HTML: control characters and direction marks as escapes, line breaks as they are."""
    lines = str(text).replace("\r\n", "\n").replace("\t", "    ").split("\n")
    return Markup(html.escape("\n".join(printable(line) for line in lines), quote=True))


def _render(child: Child) -> str:
    if child is None:
        return ""
    if isinstance(child, Markup):
        return child
    if isinstance(child, list | tuple):
        return join(child)
    return escape(child)


def _attribute(key: str, value: object) -> str:
    if value is None or value is False:
        return ""
    name = key.rstrip("_").replace("_", "-")
    return f" {name}" if value is True else f' {name}="{escape(value)}"'
