"""The candidate answers that a prompt names, and what it says about each of them.

A *label* is one candidate answer. It is found in a list of the prompt, and everything that the prompt says
about it counts as its description: the rest of its own list line or table row, the lines indented below it or
under its heading, and any line of prose that names this label alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

_LEAD = re.compile(
    r"""
    ^(?P<indent>[ \t]*)
    (?:(?P<marker>[-*+•>]|\#{1,6}|\(?\d{1,3}[.):]|\(?[A-Za-z][.)])[ \t]+|(?P<cell>\|)[ \t]*)?
    [*_`"'\u201c\u2018\[<]{0,4}
    (?P<name>[^\W_](?:.{0,78}?[^\s:])??)
    [*_`"'\u201d\u2019\]>]{0,4}
    (?:[ \t]*(?::|=>|->|\u2192|=|\||\u2013|\u2014|\(|$)|[ \t]+-[ \t])
    (?P<text>.*)$
    """,
    re.VERBOSE,
)
_HEADING = re.compile(r"[ \t]*#{1,6}[ \t]")
_BULLET = re.compile(r"[-*+•]|\(?\d{1,3}[.):]|\(?[A-Za-z][.)]")
_INLINE = re.compile(
    r"(?:[:\[({]|\bone of(?: the following)?|\beither)\s*([^:\[\](){}]+?)\s*[\])}]?\s*\.?\s*$"
)
_INLINE_SEPARATOR = re.compile(r"\s*(?:,\s*(?:or|and)\s+|,|\||\s(?:or|and)\s)\s*")
_TOKEN = re.compile(r"[\w&/.+?-]*\w[\w&/.+?-]*")
# "Customer Query: where is my card?" is a query about a card, not about customers.
_QUERY_PREFIX = re.compile(
    r"^[ \t#*_>]*(?:the[ \t])?(?:(?:customer|user|client)(?:'s)?[ \t_]?)?"
    r"(?:query|question|message|input|text|ticket|request|utterance|email|review|complaint)"
    r"(?:[ \t]?\d+)?[*_]{0,2}:[*_]{0,2}[ \t]*",
    re.IGNORECASE | re.MULTILINE,
)
_QUOTES = "`\"'*\u201c\u201d\u2018\u2019"
_MAX_NAME_WORDS = 5
_MAX_INLINE = 1000  # characters of a line that can be a list; the pattern takes the square of it


@dataclass(frozen=True)
class Lead:
    """A line that opens with a name: `- name: text`, `1. **name** - text`, `## name`, `| name | text |`."""

    indent: int
    marker: str
    name: str
    text: str

    @property
    def is_heading(self) -> bool:
        return self.marker.startswith("#")

    @property
    def is_list_line(self) -> bool:
        return _BULLET.fullmatch(self.marker) is not None

    @property
    def is_label_like(self) -> bool:
        """True for a name that can be an answer: short, and no sentence."""
        return len(self.name.split()) <= _MAX_NAME_WORDS and not re.search(r"[.!,;](?:\s|$)", self.name)


@lru_cache(maxsize=4096)  # the list in a user message comes again with every query
def read_lead(line: str) -> Lead | None:
    """Read the name that a line opens with; None if it opens with none."""
    match = _LEAD.match(line)
    if match is None:
        return None
    marker = match["marker"] or match["cell"] or ""
    return Lead(len(match["indent"].expandtabs()), marker, match["name"].strip(), match["text"])


def find_names(texts: Iterable[str]) -> tuple[str, ...]:
    """Find the list of candidate answers in the messages of a prompt, given in their order.

    Of several lists the one with the most one-word names wins, then the longer, then the later. Only where
    there is none, one within a line counts: "Answer with one of: refund, cancel, other".
    """
    texts = tuple(texts)
    lists = [names for text in texts for names in _lists(text)] or [_inline_list(text) for text in texts]
    return max(reversed(lists), key=_weight, default=())


def _weight(names: tuple[str, ...]) -> tuple[int, int]:
    return sum(1 for name in names if " " not in name), len(names)


def _lists(text: str) -> Iterable[tuple[str, ...]]:
    group: list[Lead] = []
    for line in [*text.splitlines(), "end of text"]:
        lead = read_lead(line)
        if lead is not None and lead.is_list_line:
            group.append(lead)
        elif line.strip() and not (group and _indent(line) > group[0].indent):
            yield from _named(group)
            group = []


def _named(group: Sequence[Lead]) -> Iterable[tuple[str, ...]]:
    outer = [lead for lead in group if lead.indent <= group[0].indent]
    named = [lead.name for lead in outer if lead.is_label_like]
    names = tuple(dict.fromkeys(named))
    if len(names) >= 2 and 2 * len(named) > len(outer):
        yield names


def _inline_list(text: str) -> tuple[str, ...]:
    for line in reversed(text.splitlines()):
        match = _INLINE.search(line) if len(line) <= _MAX_INLINE else None
        if match is not None:
            names = [part.strip(_QUOTES) for part in _INLINE_SEPARATOR.split(match[1])]
            if len(set(names)) >= 2 and all(_TOKEN.fullmatch(name) for name in names):
                return tuple(dict.fromkeys(names))
    return ()


class Labels:
    """Known labels, and where texts speak of them. Names are compared without case, `_` and `-`."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)
        self._numbers = {_plain(name): number for number, name in reversed(list(enumerate(names)))}
        longest_first = sorted((name for name in names if name.strip()), key=len, reverse=True)
        self._mention = (
            re.compile(
                rf"(?<!\w)([{_QUOTES}]?)({'|'.join(re.escape(name) for name in longest_first)})(?!\w)", re.I
            )
            if longest_first
            else None
        )

    def number(self, name: str) -> int | None:
        """The number of the label that a text is, apart from quotes and white space around it."""
        return self._numbers.get(_plain(name))

    def leading(self, line: str) -> int | None:
        """The number of the label that a line opens with."""
        lead = read_lead(line)
        return None if lead is None else self.number(lead.name)

    def mentioned(self, text: str) -> int | None:
        """The number of the only label that a text names; None if it names none or several.

        A label that is an ordinary word ("refund") counts where it is quoted, `in code` or **strong**.
        """
        if self._mention is None:
            return None
        found = {
            self.number(match[2])
            for match in self._mention.finditer(text)
            if match[1] or not match[2].replace(" ", "").isalpha()
        }
        return found.pop() if len(found) == 1 else None

    def descriptions(self, texts: Iterable[str]) -> list[list[str]]:
        """What the texts say about each label, in the order of the labels."""
        said: list[list[str]] = [[] for _ in self.names]
        for text in texts:
            owner, lead = None, None
            for line in text.splitlines():
                number = self.leading(line)
                if number is not None:
                    owner, lead = number, read_lead(line)
                    said[number].append(lead.text if lead else "")
                elif owner is not None and lead is not None and _belongs(line, lead):
                    said[owner].append(line)
                elif line.strip():
                    owner = self.mentioned(line)
                    if owner is not None:
                        said[owner].append(self._without_name(line, owner))
                        owner = None
        return said

    def split(self, text: str) -> tuple[tuple[str, ...], str]:
        """Split a message into the lines that list labels, and the rest without the header of the list."""
        listed: list[str] = []
        rest: list[str] = []
        for line in text.splitlines():
            if self.leading(line) is None:
                rest.append(line)
                continue
            if not listed:
                while rest and not rest[-1].strip():
                    rest.pop()
                if rest and rest[-1].rstrip().endswith(":"):
                    rest.pop()
            listed.append(line)
        return tuple(listed), "\n".join(rest)

    def _without_name(self, line: str, number: int) -> str:
        return re.sub(re.escape(self.names[number]), " ", line, flags=re.I)


def query_of(text: str) -> str:
    """What is asked in a message: the text behind a prefix such as "Customer Query:", else all of it."""
    match = _QUERY_PREFIX.search(text)
    return text if match is None else text[match.end() :]


def _belongs(line: str, lead: Lead) -> bool:
    if lead.is_heading:
        return not _HEADING.match(line)
    return bool(line.strip()) and _indent(line) > lead.indent


def _indent(line: str) -> int:
    expanded = line.expandtabs()
    return len(expanded) - len(expanded.lstrip())


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]+", " ", name.strip().strip(_QUOTES)).strip().lower()
