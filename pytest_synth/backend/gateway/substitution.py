"""The prompt under test in the place of the task app's own messages."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from pytest_synth.backend.gateway.dialect import Dialect
from pytest_synth.prompts import HOLE, Prompt


@dataclass(frozen=True)
class Substitution:
    """A body with the prompt in it, or the reason why it is as it was.

    Attributes:
        system: The system message's pattern, where it is known, else its text.
    """

    body: dict[str, Any]
    system: str | None
    reason: str | None = None


def fit(pattern: str, text: str) -> dict[str, str] | None:
    """Values of a pattern's holes in a text; None if it does not fit. Space at both ends does not matter."""
    match = _expression(pattern.strip()).fullmatch(text.strip())
    return None if match is None else match.groupdict()


@lru_cache(maxsize=256)
def _expression(pattern: str) -> re.Pattern[str]:
    """A regular expression of a pattern: a hole that comes twice holds the same text twice."""
    seen: set[str] = set()
    out, end = "", 0
    for hole in HOLE.finditer(pattern):
        name = hole[1]
        out += re.escape(pattern[end : hole.start()])
        out += f"(?P={name})" if name in seen else f"(?P<{name}>.*?)"
        seen.add(name)
        end = hole.end()
    return re.compile(out + re.escape(pattern[end:]), re.DOTALL)


def substitute(
    dialect: Dialect, body: dict[str, Any], prompt: Prompt, baseline: Prompt | None
) -> Substitution:
    """Put a prompt into a call.

    Its system message takes the place of the call's, and is put first where there is none. User messages
    stay as sent but where the baseline's pattern fits one and the prompt's differs. Holes get the values that
    the baseline's patterns have found in the call.

    Args:
        baseline: The prompt that the task app is known to send; without it only the system message is
            replaced, as it stands.
    """
    system = dialect.system_text(body)
    if baseline is None:
        if prompt.system is None:
            return Substitution(
                body,
                system,
                "the prompt has no system message, and the gateway replaces system messages only",
            )
        return Substitution(dialect.with_system(body, prompt.system), prompt.system)
    values, places = _found(dialect, body, baseline)
    texts: dict[int, str] = {}
    theirs = [message.pattern for message in baseline.messages if message.role == "user"]
    ours = [message.pattern for message in prompt.messages if message.role == "user"]
    for number, pattern in enumerate(ours):
        if number < len(theirs) and pattern == theirs[number]:
            continue
        if number not in places:
            reason = f"the task app sent no user message that fits the baseline's: {_short(theirs, number)}"
            return Substitution(body, system, reason)
        texts[places[number]] = pattern
    holes = {hole for text in (prompt.system or "", *texts.values()) for hole in HOLE.findall(text)}
    missing = sorted(holes & (baseline.wildcards | prompt.wildcards) - values.keys())
    if missing:
        named = ", ".join(repr(name) for name in missing)
        return Substitution(
            body,
            system,
            f"the prompt's wildcard {named} has no value: no message fits the baseline's pattern",
        )
    for place, pattern in texts.items():
        body = dialect.with_user(body, place, _filled(pattern, values))
    if prompt.system is None:
        return Substitution(body, system)
    return Substitution(dialect.with_system(body, _filled(prompt.system, values)), prompt.system)


def _found(
    dialect: Dialect, body: Mapping[str, Any], baseline: Prompt
) -> tuple[dict[str, str], dict[int, int]]:
    """Values of the holes, and which user message each user pattern of the baseline fits."""
    values: dict[str, str] = {}
    system = dialect.system_text(body)
    if baseline.system is not None and system is not None:
        values.update(fit(baseline.system, system) or {})
    places: dict[int, int] = {}
    texts = dialect.user_texts(body)
    patterns = [message.pattern for message in baseline.messages if message.role == "user"]
    for number, pattern in enumerate(patterns):
        for place, text in enumerate(texts):
            found = fit(pattern, text) if text is not None and place not in places.values() else None
            if found is not None:
                values.update(found)
                places[number] = place
                break
    return values, places


def _filled(pattern: str, values: Mapping[str, str]) -> str:
    return HOLE.sub(lambda hole: values.get(hole[1], hole[0]), pattern)


def _short(patterns: list[str], number: int) -> str:
    if number >= len(patterns):
        return "it has fewer user messages than the prompt"
    return repr(patterns[number] if len(patterns[number]) <= 80 else patterns[number][:77] + "...")
