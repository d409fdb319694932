"""The model calls of rollouts that tell why an eval failed, read from the traces of its job."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile, ZipFile

from pytest_synth.prompts import Message, Prompt
from pytest_synth.report.seeds import told_in_full

if TYPE_CHECKING:
    from pytest_synth.contracts.evals import EvalRow, PromptMessage
    from pytest_synth.report import EvalEntry, ModelCall, RolloutCalls

SEEDS = 20  # of an eval, the worst ones; their calls travel with its test's report
CALLS = 20  # of one rollout, from the first on
CHARS = 8_000  # of one text; the HTML report shows no more


def add_model_calls(entry: EvalEntry, traces: bytes) -> EvalEntry:
    """Add to an entry the calls of its worst seeds and, where the prompt is the task app's own, that prompt.

    Args:
        traces: The archive of the eval's job. What cannot be read in it is left out.
    """
    from pytest_synth.report import RolloutCalls

    found: list[RolloutCalls] = []
    prompt = entry.prompt
    for row, calls in _traced(traces, [seed.lowest for seed in told_in_full(entry, SEEDS)]):
        if prompt is None:
            prompt = _prompt_of(calls, entry.prompt_fingerprint)
        told = tuple(_model_call(call) for call in calls[:CALLS])
        if told:
            found.append(RolloutCalls(split=row.split, seed=row.seed, sample=row.sample, calls=told))
    return entry.model_copy(update={"calls": tuple(found), "prompt": prompt})


def _traced(traces: bytes, rows: Iterable[EvalRow]) -> list[tuple[EvalRow, list[Mapping[str, Any]]]]:
    """The calls of each rollout, as the gateway has sent and seen them."""
    found: list[tuple[EvalRow, list[Mapping[str, Any]]]] = []
    try:
        with ZipFile(io.BytesIO(traces)) as archive:
            names = frozenset(archive.namelist())
            for row in rows:
                sample = f"_sample_{row.sample}" if row.sample else ""
                name = f"seed_{row.seed}{sample}.json"
                trace = json.loads(archive.read(name)) if name in names else {}
                calls = trace.get("calls") if isinstance(trace, dict) else None
                if isinstance(calls, list):  # of a rollout that never ran its row stands there, with a number
                    found.append((row, [call for call in calls if isinstance(call, dict)]))
    except (BadZipFile, ValueError):
        return []
    return found


def _prompt_of(
    calls: Iterable[Mapping[str, Any]], fingerprint: str | None
) -> tuple[PromptMessage, ...] | None:
    """The system message that ran, which the gateway knows by its fingerprint."""
    for call in calls:
        for role, text in _messages(call.get("request")):
            if role == "system" and Prompt((Message("system", text),)).fingerprint == fingerprint:
                from pytest_synth.contracts.evals import PromptMessage

                return (PromptMessage(role="system", pattern=text),)
    return None


def _model_call(call: Mapping[str, Any]) -> ModelCall:
    from pytest_synth.contracts.evals import PromptMessage
    from pytest_synth.report import ModelCall

    error = call.get("error")
    answer = None if error else _answer(call.get("response"))
    messages = [PromptMessage(role=role, pattern=_cut(text)) for role, text in _messages(call.get("request"))]
    return ModelCall(
        messages=tuple(messages),
        answer=None if answer is None else _cut(answer),
        error=_cut(str(error)) if error else None,
        model=f"{call.get('provider')}/{call.get('model')}",
        tokens=int(call.get("prompt_tokens") or 0) + int(call.get("completion_tokens") or 0),
        cost_usd=call.get("cost_usd"),
        latency_ms=call.get("latency_ms"),
        replayed=bool(call.get("replayed")),
    )


def _messages(body: object) -> list[tuple[str, str]]:
    """Roles and texts of a request, in each API that the gateway serves."""
    if not isinstance(body, dict):
        return []
    system = body.get("system") or body.get("instructions")  # Anthropic's and OpenAI's responses API
    sent = body.get("messages") or body.get("input")
    found = [("system", _text(system))] if system else []
    for message in [{"role": "user", "content": sent}] if isinstance(sent, str) else sent or []:
        if isinstance(message, dict):
            found.append((str(message.get("role") or message.get("type") or "message"), _of_message(message)))
    return found


def _answer(body: object) -> str | None:
    """Text of an answer, or its tool calls as text."""
    if not isinstance(body, dict):
        return None
    choices = body.get("choices")
    if isinstance(choices, list):
        return "\n".join(_of_message(c.get("message") or {}) for c in choices if isinstance(c, dict)) or None
    return _text(body.get("content") or body.get("output")) or None


def _of_message(message: Mapping[str, Any]) -> str:
    """Its text; tool calls and other parts as JSON."""
    tool_calls = [_text([call]) for call in message.get("tool_calls") or []]
    if "content" not in message:
        return "\n".join(tool_calls) or _text([message])
    return "\n".join(part for part in (_text(message["content"]), *tool_calls) if part)


def _text(content: object) -> str:
    if content is None or isinstance(content, str):
        return content or ""
    if not isinstance(content, list):
        return json.dumps(content, ensure_ascii=False)
    parts = []
    for part in content:
        inner = (part.get("text"), part.get("content")) if isinstance(part, dict) else ()
        text = next((one for one in inner if isinstance(one, str | list)), None)
        parts.append(_text(text) if text is not None else json.dumps(part, ensure_ascii=False))
    return "\n".join(parts)


def _cut(text: str) -> str:
    return text if len(text) <= CHARS else f"{text[:CHARS]}… +{len(text) - CHARS:,} characters"
