"""`offline/reflect`: proposes a better prompt from failures, by adding words to the lines of missed labels.

A deterministic stand-in, not a language model. It reads the reflection prompt of GEPA, takes the words that
tell the missed queries of a label apart, and puts them into that label's line; a label without a line gets
one. Everything else of the instruction stays as it is, wildcards included.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from pytest_synth.backend.gateway.offline_answers import OfflineAnswer, OfflineRefusal, read_messages
from pytest_synth.backend.gateway.offline_examples import Example, read_reflection
from pytest_synth.backend.gateway.offline_labels import Labels, find_names, query_of, read_lead
from pytest_synth.backend.gateway.offline_words import spelled_words, words

WORDS_PER_MISS = 4  # the rarest ones; further ones are mostly chance words of that one query
_ALSO = "; also: "
_HEADER = "Key words:"


def answer_reflect(body: Mapping[str, Any]) -> OfflineAnswer:
    """Answer a reflection prompt with a new instruction in a fence.

    The instruction comes back unchanged if no example shows a miss and names the expected label.

    Raises:
        OfflineRefusal: If no user message is a reflection prompt.
    """
    for role, text, _ in read_messages(body):
        reflection = read_reflection(text) if role == "user" else None
        if reflection is not None:
            proposal = sharpen(reflection.instruction, reflection.examples)
            return OfflineAnswer(
                f"Labels that were missed now name the words of their queries.\n\n```\n{proposal}\n```"
            )
    raise OfflineRefusal(
        "offline/reflect found no reflection prompt in this request; it looks for a user message with the "
        "current instruction in a ``` fence and, below it, '# Example 1', '## Inputs', '## Generated "
        "Outputs', '## Feedback' (the default template of gepa), with 'expected: <label>' in the feedback; "
        "for any other template name a real reflection model"
    )


def sharpen(instruction: str, examples: Sequence[Example]) -> str:
    """Add to the line of each missed label the words that tell its missed queries apart."""
    labels = _labels(instruction, examples)
    for name in dict.fromkeys(e.expected for e in examples if e.is_missed and e.expected):
        telling = _telling_words(name, instruction, examples, labels)
        if telling:
            instruction = _add(instruction, labels, name, telling)
    return instruction


def _labels(instruction: str, examples: Sequence[Example]) -> Labels:
    listed = find_names((instruction,)) or find_names(example.inputs for example in examples[:1])
    expected = (example.expected for example in examples if example.expected)
    known = Labels(listed)
    return Labels(tuple(dict.fromkeys([*listed, *(name for name in expected if known.number(name) is None)])))


def _telling_words(name: str, instruction: str, examples: Sequence[Example], labels: Labels) -> list[str]:
    """Words of a label's missed queries, best first, as they are spelled.

    A word is worth the more, the more of the missed queries hold it and the fewer lines do; queries of
    other labels count against it. Of equals the longer word comes first: it is mostly the more special one.
    Words of the label's own line are left out.
    """
    number = labels.number(name)
    said = labels.descriptions((instruction,))
    held = [set(words(" ".join((own, *texts)))) for own, texts in zip(labels.names, said, strict=True)]
    holders = Counter(stem for stems in held for stem in stems)
    missed: Counter[str] = Counter()
    others: Counter[str] = Counter()
    spelling: dict[str, str] = {}
    misses = 0
    for example in examples:
        if example.expected is None:
            continue
        query = dict(spelled_words(query_of(labels.split(example.inputs)[1])))
        if labels.number(example.expected) != number:
            others.update(query.keys())
        elif example.is_missed:
            misses += 1
            missed.update(query.keys())
            spelling = {**query, **spelling}

    def worth(stem: str) -> float:
        return (missed[stem] - others[stem]) * math.log(1 + len(held) / (1 + holders[stem]))

    assert number is not None  # the expected names are among the labels
    fresh = [s for s in missed if s not in held[number] and s != "not" and len(s) > 1 and not s.isdigit()]
    best = sorted((s for s in fresh if worth(s) > 0), key=lambda s: (worth(s), len(s)), reverse=True)
    return [spelling[stem] for stem in best[: WORDS_PER_MISS * misses]]


def _add(instruction: str, labels: Labels, name: str, telling: Sequence[str]) -> str:
    """Add words to a label's line; without one, add a line below the other labels' or at the end."""
    lines = instruction.split("\n")
    leading = [(at, number) for at, line in enumerate(lines) if (number := labels.leading(line)) is not None]
    own = next((at for at, number in leading if number == labels.number(name)), None)
    added = ", ".join(telling)
    if own is not None:
        lines[own : own + 1] = _extended(lines[own], added)
    elif leading:
        last = leading[-1][0]
        lines.insert(last + 1, _line_like(lines[last], name, added))
    else:
        lines += ["", _HEADER, f"- {name}: {added}"]
    return "\n".join(lines)


def _extended(line: str, added: str) -> list[str]:
    lead = read_lead(line)
    if lead is not None and lead.is_heading:
        return [line, f"{_HEADER} {added}"]
    if lead is None or not lead.text.strip(" |*_`"):
        return [f"{line.rstrip().rstrip(':')}: {added}"]
    joint = ", " if _ALSO in line else _ALSO
    return [f"{line.rstrip().rstrip('.;')}{joint}{added}"]


def _line_like(line: str, name: str, added: str) -> str:
    match = re.match(r"[ \t]*(?:[-*+•]|\(?\d{1,3}[.):])[ \t]+", line)
    if match is None:
        return f"- {name}: {added}"
    return re.sub(r"\d+", lambda found: str(int(found[0]) + 1), match[0]) + f"{name}: {added}"
