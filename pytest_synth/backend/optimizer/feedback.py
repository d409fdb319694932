"""What the reflection model is shown of a rollout: inputs, output, and why it got its reward.

The records have the keys that gepa recommends: `Inputs`, `Generated Outputs`, `Feedback`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from pytest_synth.backend.optimizer.ports import RolloutOutcome
from pytest_synth.prompts import HOLE, Prompt

PART_CHARS = 2000  # of one part of a record; a minibatch of 8 stays below 50 kB
_OTHER_CHARS = 1000  # of details that nobody named
_NAMED = ("feedback", "reason", "expected", "predicted", "actual", "error", "rubric")


def record_of(outcome: RolloutOutcome) -> dict[str, Any]:
    """Build one example for the reflection model. Not for lost rollouts: they teach nothing."""
    assert not outcome.is_lost
    inputs = {str(name): cut(as_text(value)) for name, value in outcome.inputs.items()}
    return {
        "Inputs": inputs or "(not known)",
        "Generated Outputs": cut(outcome.output) if outcome.output else "(none)",
        "Feedback": "\n".join(_feedback(outcome)),
    }


def _feedback(outcome: RolloutOutcome) -> list[str]:
    """Lines: the score, then the task app's named details in a fixed order, steps, and the rest as JSON."""
    if outcome.error is not None:
        return ["score: 0 of 1", f"rollout failed: {cut(outcome.error)}"]
    lines = [f"score: {outcome.score:g} of 1"]
    lines += [
        f"{name}: {cut(as_text(outcome.details[name]))}"
        for name in _NAMED
        if outcome.details.get(name) not in (None, "")
    ]
    lines += [f"event {number}: {reward:g}" for number, reward in enumerate(outcome.event_rewards, 1)]
    rest = {name: value for name, value in outcome.details.items() if name not in _NAMED}
    if rest:
        lines.append(cut(as_text(rest), _OTHER_CHARS))
    return lines


def inputs_of(prompt: Prompt, messages: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What a model was given beside the prompt itself.

    A message that a pattern of the prompt fits gives the values of its wildcards; one that is the
    pattern word for word gives nothing; any other stands under its role.

    Args:
        prompt: The prompt that ran.
        messages: Of the request, after the prompt was put in.
    """
    patterns = list(prompt.messages)
    inputs: dict[str, Any] = {}
    for message in messages:
        role, content = str(message.get("role", "")), as_text(message.get("content"))
        fitting = next(
            (p for p in patterns if p.role == role and _fits(p.pattern, content) is not None), None
        )
        if fitting is not None:
            patterns.remove(fitting)
            inputs.update(_fits(fitting.pattern, content) or {})
        elif role not in ("system", "developer"):
            inputs[role] = f"{inputs[role]}\n{content}" if role in inputs else content
    return inputs


def _fits(pattern: str, content: str) -> dict[str, str] | None:
    """The wildcards' values if the content is the pattern filled in."""
    expression, seen, end = "", set[str](), 0
    for hole in HOLE.finditer(pattern):
        expression += re.escape(pattern[end : hole.start()])
        expression += f"(?P={hole[1]})" if hole[1] in seen else f"(?P<{hole[1]}>.*?)"
        seen.add(hole[1])
        end = hole.end()
    match = re.fullmatch(expression + re.escape(pattern[end:]), content, re.DOTALL)
    return match.groupdict() if match else None


def as_text(value: object) -> str:
    """Text as it is, anything else as JSON."""
    if isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False, sort_keys=True, default=str)


def cut(text: str, limit: int = PART_CHARS) -> str:
    """Shorten a long text in its middle: answers and errors carry most at their ends."""
    if len(text) <= limit:
        return text
    half = (limit - 5) // 2
    return f"{text[:half]} ... {text[-half:]}"
