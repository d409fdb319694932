"""What differs between two prompts, word by word."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import zip_longest
from typing import Literal

from pytest_synth.contracts.evals import PromptMessage

Kind = Literal["same", "added", "removed"]

_PIECES = re.compile(r"[^\S\n]*\S+|\n|[^\S\n]+")  # a word with the space before it, a line break
_MOST_PIECES = 8_000  # of both texts; beyond it lines are compared, as words could take seconds


@dataclass(frozen=True)
class Piece:
    """A stretch of text that is in both texts, or in one of them."""

    kind: Kind
    text: str


def word_diff(old: str, new: str) -> list[Piece]:
    """Take `old` to `new`: same and removed pieces make up `old`, same and added ones `new`."""
    a, b = _PIECES.findall(old), _PIECES.findall(new)
    if len(a) + len(b) > _MOST_PIECES:
        a, b = old.splitlines(keepends=True), new.splitlines(keepends=True)
    pieces: list[Piece] = []
    for tag, i1, i2, j1, j2 in SequenceMatcher(None, a, b, autojunk=False).get_opcodes():
        if tag == "equal":
            pieces.append(Piece("same", "".join(a[i1:i2])))
            continue
        if i1 < i2:
            pieces.append(Piece("removed", "".join(a[i1:i2])))
        if j1 < j2:
            pieces.append(Piece("added", "".join(b[j1:j2])))
    return pieces


def prompt_diff(old: Sequence[PromptMessage], new: Sequence[PromptMessage]) -> list[tuple[str, list[Piece]]]:
    """Role and word diff of each message, paired by their place; a role that changed is `old → new`.

    Space at the end, which files have and models leave out, is told only if nothing else has changed.
    """
    found: list[tuple[str, list[Piece]]] = []
    for before, after in zip_longest(old, new):
        roles = [message.role for message in (before, after) if message is not None]
        role = roles[0] if len(set(roles)) == 1 else " → ".join(roles)
        was, now = before.pattern if before else "", after.pattern if after else ""
        if was.rstrip() != now.rstrip():
            was, now = was.rstrip(), now.rstrip()
        found.append((role, word_diff(was, now)))
    return found


def shorten(pieces: Sequence[Piece], around: int = 60) -> list[Piece]:
    """Leave out the middle of what is the same, but for some characters around each change."""
    short: list[Piece] = []
    for place, piece in enumerate(pieces):
        head = 0 if place == 0 else around
        tail = 0 if place == len(pieces) - 1 else around
        if piece.kind == "same" and len(piece.text) > head + tail + 1:
            before, _, _ = piece.text[:head].rpartition(" ")
            _, _, after = piece.text[len(piece.text) - tail :].partition(" ")
            piece = Piece("same", f"{before} … {after}".strip(" ") if head or tail else "…")
        short.append(piece)
    return short
