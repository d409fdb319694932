"""Why a replay has no answer: the nearest recorded call, and what differs."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

from pytest_synth.backend.gateway.cassette import query_of
from pytest_synth.backend.gateway.dialect import text_of
from pytest_synth.backend.gateway.entries import Identity

CONTEXT: Final = 4  # words shown before and after a difference
LONGEST: Final = 400  # characters of a difference
LONGEST_DIFF: Final = 4000  # words
_WORD = re.compile(r"\s*\S+|\s+$")


@dataclass(frozen=True)
class _Call:
    """A call as labelled texts, in the order of its request."""

    identity: Identity

    @cached_property
    def fields(self) -> dict[str, str]:
        fields = {"model": f"{self.identity.provider}/{self.identity.model}"}
        for name, value in self.identity.request.items():
            if name in ("messages", "input") and isinstance(value, list):
                for index, message in enumerate(value):
                    fields[_label(name, index, message)] = _text(message)
            else:
                fields[name] = _text(value)
        fields["sample"] = str(self.identity.sample)
        fields["repeat"] = str(self.identity.repeat)
        if self.identity.seed is not None:
            fields["seed"] = str(self.identity.seed)
        return fields

    @cached_property
    def words(self) -> dict[str, frozenset[str]]:
        return {label: frozenset(text.split()) for label, text in self.fields.items()}


class Misses:
    """Finds the recorded call that is nearest to one that was not recorded.

    Args:
        recorded: All calls of the cassette.
        searches: How many calls whose query is not recorded are compared with all of `recorded`.
    """

    def __init__(self, recorded: Iterable[Identity], *, searches: int = 20) -> None:
        self._calls = [_Call(identity) for identity in recorded]
        self._by_query: dict[str, list[_Call]] = {}
        for call in self._calls:
            self._by_query.setdefault(query_of(call.identity.request), []).append(call)
        self._searches = searches

    def explain(self, identity: Identity) -> str | None:
        """Say in what the nearest recorded call differs; None if there is none, or no search is left."""
        asked = _Call(identity)
        candidates = self._by_query.get(query_of(identity.request))
        if candidates is None:
            if not self._calls or self._searches == 0:
                return None
            self._searches -= 1
            candidates = self._calls
        nearest = max(candidates, key=lambda call: _likeness(call, asked))
        return _difference(nearest.fields, asked.fields)


def _likeness(recorded: _Call, asked: _Call) -> float:
    likeness = 0.0
    for label, words in asked.words.items():
        other = recorded.words.get(label)
        if other is not None:
            likeness += 1.0 if other == words else len(words & other) / max(1, len(words | other))
    return likeness - 0.5 * len(recorded.words.keys() ^ asked.words.keys())


def _difference(recorded: Mapping[str, str], asked: Mapping[str, str]) -> str:
    found = []
    for label in [*recorded, *(label for label in asked if label not in recorded)]:
        if label not in asked:
            found.append(f"{label} is missing")
        elif label not in recorded:
            found.append(f"{label} is new: {_short(asked[label])!r}")
        elif recorded[label] != asked[label]:
            found.append(f"{label}: {word_diff(recorded[label], asked[label])}")
    return "; ".join(found) or "only the order of its fields"


def word_diff(old: str, new: str) -> str:
    """Mark the words that differ as `[-old-]{+new+}`, with some words around them."""
    olds, news = _WORD.findall(old), _WORD.findall(new)
    head = _common(olds, news)
    tail = _common(olds[head:][::-1], news[head:][::-1])
    before, after = olds[max(0, head - CONTEXT) : head], olds[len(olds) - tail :][:CONTEXT]
    out = ["..." if head > CONTEXT else "", *before]
    out += _changes(olds[head : len(olds) - tail], news[head : len(news) - tail])
    out += [*after, " ..." if tail > CONTEXT else ""]
    return repr(_short("".join(out)))


def _common(olds: Sequence[str], news: Sequence[str]) -> int:
    count = 0
    for old, new in zip(olds, news, strict=False):
        if old != new:
            break
        count += 1
    return count


def _changes(olds: Sequence[str], news: Sequence[str]) -> Iterator[str]:
    if len(olds) + len(news) > LONGEST_DIFF:  # the matcher's time grows with the square
        yield from (f"[-{''.join(olds)}-]", f"{{+{''.join(news)}+}}")
        return
    matcher = difflib.SequenceMatcher(None, olds, news, autojunk=False)
    for tag, i1, i2, j1, j2 in matcher.get_opcodes():
        if tag == "equal":
            kept = olds[i1:i2]
            yield (
                "".join(kept)
                if i2 - i1 <= 2 * CONTEXT
                else f"{''.join(kept[:CONTEXT])} ...{''.join(kept[-CONTEXT:])}"
            )
        else:
            yield f"[-{''.join(olds[i1:i2])}-]" if i2 > i1 else ""
            yield f"{{+{''.join(news[j1:j2])}+}}" if j2 > j1 else ""


def _label(name: str, index: int, message: object) -> str:
    role = message.get("role") if isinstance(message, dict) else None
    return f"{name}[{index}] ({role})" if role else f"{name}[{index}]"


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, dict) and value.keys() <= {"role", "content"}:
        text = text_of(value.get("content"))
        if text is not None:
            return text
    return json.dumps(value, sort_keys=True, ensure_ascii=False)


def _short(text: str) -> str:
    return text if len(text) <= LONGEST else text[: LONGEST - 4] + " ..."
