"""Reads a new prompt text out of the reflection model's answer, and judges it before it costs rollouts."""

from __future__ import annotations

import re
from dataclasses import dataclass

from pytest_synth.backend.optimizer.components import wildcards_of

_FENCE = re.compile(r"^\s*(`{3,})[ \t]*([^\s`]*)[ \t]*$")
_THOUGHTS = re.compile(r"\A\s*<think>.*?</think>", re.DOTALL)


@dataclass(frozen=True)
class TextRules:
    """What a new text of one message must keep to.

    Attributes:
        parent: The text that it is to replace.
        required: Wildcards that it must hold.
        allowed: Wildcards that can be filled at this place.
        max_chars: Longest text; None: any.
    """

    parent: str
    required: frozenset[str] = frozenset()
    allowed: frozenset[str] = frozenset()
    max_chars: int | None = None

    def problem_of(self, text: str) -> str | None:
        """Say what is wrong with a text; None if it may be tried."""
        if not text.strip():
            return "it is empty"
        if text.strip() == self.parent.strip():
            return "it is the current text, unchanged"
        lost = self.required - wildcards_of(text)
        if lost:
            return f"it lost {_holes(lost)}, which must stay, spelled exactly so"
        unknown = wildcards_of(text) - self.allowed
        if unknown:
            return f"it has {_holes(unknown)}, which nothing fills at this place"
        if self.max_chars is not None and len(text) > self.max_chars:
            return f"it has {len(text)} characters; at most {self.max_chars} are allowed"
        return None


def extract_text(answer: str) -> tuple[str, str | None]:
    """Take the new text out of an answer.

    Returns:
        The text of the answer's only code block, and None; or "" and what is wrong with the answer.
        gepa's own extractor would take an unfenced answer whole, preamble included, and join two
        blocks with what stands between them. What a model thought aloud before it answered is left out.
    """
    answer = _THOUGHTS.sub("", answer)
    blocks, is_open = _blocks(answer)
    if is_open:
        return "", "its code block is not closed"
    if not blocks:
        return "", "it has no code block (```)"
    if len(blocks) > 1:
        return "", f"it has {len(blocks)} code blocks; the whole new text must stand in one"
    return blocks[0].strip(), None


def _blocks(answer: str) -> tuple[list[str], bool]:
    """Outermost code blocks of an answer, and whether the last one is still open.

    A block ends at a bare fence of at least its own length; inside, a fence with a language opens an
    inner block, so that a prompt may itself hold code.
    """
    blocks: list[str] = []
    fences: list[int] = []  # lengths of the open ones
    lines: list[str] = []
    for line in answer.splitlines():
        fence = _FENCE.match(line)
        if fence is None:
            lines.append(line)
            continue
        length, language = len(fence[1]), fence[2]
        if not fences:
            fences, lines = [length], []
        elif not language and length >= fences[-1]:
            fences.pop()
            if fences:
                lines.append(line)
            else:
                blocks.append("\n".join(lines))
        else:
            if language and length >= fences[-1]:
                fences.append(length)
            lines.append(line)
    return blocks, bool(fences)


def _holes(names: frozenset[str]) -> str:
    return ", ".join(f"{{{name}}}" for name in sorted(names))
