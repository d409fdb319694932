"""The reflection prompt of GEPA, taken apart: the current instruction, and examples with feedback."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise

_EXAMPLE = re.compile(
    r"^[ \t]*(#{0,6})[ \t]{0,4}\**Example[ \t]{0,4}#?\d+\b.*$", re.MULTILINE | re.IGNORECASE
)
_FENCE = re.compile(r"^[ \t]*```[^\n`]*$", re.MULTILINE)
_HEADING = re.compile(r"^[ \t]*(#{1,6})(.+)$", re.MULTILINE)
# Where an example has no headings: "Inputs: ...", "**Feedback**: ...".
_LABELLED = re.compile(
    r"^[ \t]*\**((?:generated |assistant )?(?:inputs?|query|outputs?|response|answer|feedback))\**:\**",
    re.MULTILINE | re.IGNORECASE,
)
_INPUTS = ("input", "query", "question")
_OUTPUTS = ("output", "response", "answer")
_FEEDBACK = ("feedback",)

# White space is bounded: unbounded runs side by side would take the cube of a long blank stretch.
_FILLER = r"(?:(?:answer|label|intent|output|value|category|class|was|is|to be|be|the)\b[ \t]{0,4})*"
_VALUE = (
    rf"[\"'`*_]*[ \t]{{0,4}}{_FILLER}[\"'`*_]*[ \t]{{0,4}}[:=]?\s{{0,4}}[\"'`*]*"
    r"(?P<value>[^\n\"'`*,;]+?)"
    r"(?=[\"'`*,;)\n]|\.(?:\s|$)|\s(?:but|got|not|instead|and|predicted|actual)\b|$)"
)
_KEYED = r"^[ \t>*+#\"'`-]*"
_EXPECTED = (
    re.compile(rf"{_KEYED}expected\b{_VALUE}", re.MULTILINE | re.IGNORECASE),
    re.compile(
        rf"\b(?:expected|(?:correct|right) (?:answer|label|intent)|should (?:be|have been))\b{_VALUE}", re.I
    ),
)
_PREDICTED = re.compile(
    rf"{_KEYED}(?:predicted|prediction|actual)\b[\"'`*_]*[ \t]{{0,4}}:?\s{{0,4}}(.*)$",
    re.MULTILINE | re.IGNORECASE,
)


@dataclass(frozen=True)
class Example:
    """One rollout as the reflection prompt shows it.

    Attributes:
        inputs: What the model was asked, without headings.
        expected: The right answer that the feedback names; None if it names none.
        is_missed: True if the feedback names a right answer and the model gave another one.
    """

    inputs: str
    expected: str | None
    is_missed: bool


@dataclass(frozen=True)
class Reflection:
    instruction: str
    examples: tuple[Example, ...]


def read_reflection(text: str) -> Reflection | None:
    """Read a reflection prompt; None if the text has no fenced instruction, or no example."""
    starts = list(_EXAMPLE.finditer(text, _end_of_instruction(text)))
    if not starts:
        return None
    instruction = _instruction(text[: starts[0].start()])
    if instruction is None:
        return None
    ends = [start.start() for start in starts[1:]] + [_end_of_examples(text, starts[-1].end())]
    examples = (
        _example(text[start.end() : end], len(start[1])) for start, end in zip(starts, ends, strict=True)
    )
    return Reflection(instruction, tuple(examples))


def _end_of_instruction(text: str) -> int:
    """An instruction may hold examples of its own: those below the sentence of gepa's template count."""
    found = re.search(r"^.*\bfollowing are examples\b.*$", text, re.MULTILINE | re.IGNORECASE)
    return found.end() if found else 0


def _instruction(head: str) -> str | None:
    """The text between the first fence and the one that closes it; fences inside belong to it."""
    fences = list(_FENCE.finditer(head))
    if len(fences) < 2:
        return None
    # An odd number means that the last one opens the examples.
    last = fences[-1] if len(fences) % 2 == 0 else fences[-2]
    return head[fences[0].end() : last.start()].strip("\n")


def _end_of_examples(text: str, start: int) -> int:
    found = [match.start() for match in _FENCE.finditer(text, start)]
    tail = re.search(r"^Your task is\b", text[start:], re.MULTILINE)
    limit = start + tail.start() if tail else len(text)
    return next((at for at in reversed(found) if at < limit), limit)


def _example(text: str, level: int) -> Example:
    sections = _sections(text, level)
    feedback = _pick(sections, _FEEDBACK) or text
    expected = _expected(feedback) or _expected(text)
    predicted = _PREDICTED.search(feedback)
    given = predicted[1] if predicted else _pick(sections, _OUTPUTS)
    missed = expected is not None and not _holds(given, expected)
    return Example(_without_headings(_pick(sections, _INPUTS)), expected, missed)


def _sections(text: str, level: int) -> list[tuple[str, str]]:
    """(name, text) of the parts of an example: by headings one level below its own, else by `Name:`."""
    marks = [(m[2], m.start(), m.end()) for m in _HEADING.finditer(text) if level and len(m[1]) == level + 1]
    if not marks:
        marks = [(m[1], m.start(), m.end()) for m in _LABELLED.finditer(text)]
    bounded = pairwise([*marks, ("", len(text), 0)])
    return [(name.lower(), text[at:end]) for (name, _, at), (_, end, _) in bounded]


def _pick(sections: list[tuple[str, str]], kinds: tuple[str, ...]) -> str:
    return "\n".join(text for name, text in sections if any(kind in name for kind in kinds))


def _expected(text: str) -> str | None:
    found = next((match for pattern in _EXPECTED if (match := pattern.search(text))), None)
    return found["value"].strip() if found else None


def _holds(text: str, answer: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(answer)}(?!\w)", text, re.IGNORECASE) is not None


def _without_headings(text: str) -> str:
    return "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#")).strip()
