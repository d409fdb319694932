"""The chat completions dialect: where the system message, the answer and the usage stand."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pytest_synth.backend.gateway.dialect import (
    Usage,
    count,
    dump,
    is_told,
    openai_error,
    replaced_user,
    text_of,
)
from pytest_synth.backend.gateway.sse import DONE

OPERATION = "chat/completions"
LIMIT_FIELD = "max_completion_tokens"
_SYSTEM_ROLES = ("system", "developer")
_JOINED = ("content", "refusal", "reasoning", "reasoning_content", "arguments")


def refuse_body(body: Mapping[str, Any]) -> str | None:
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        return "'messages' must be a list with at least one message"
    for index, message in enumerate(messages):
        if not isinstance(message, dict):
            return f"messages[{index}] is {type(message).__name__}, not an object"
    return None


def system_text(body: Mapping[str, Any]) -> str | None:
    """Text of the first system or developer message."""
    for message in body["messages"]:
        if message.get("role") in _SYSTEM_ROLES:
            return text_of(message.get("content"))
    return None


def with_system(body: Mapping[str, Any], text: str) -> dict[str, Any]:
    """Copy a body with the first system or developer message replaced, or one put first."""
    messages = list(body["messages"])
    for index, message in enumerate(messages):
        if message.get("role") in _SYSTEM_ROLES:
            messages[index] = {**message, "content": text}
            break
    else:
        messages.insert(0, {"role": "system", "content": text})
    return {**body, "messages": messages}


def user_texts(body: Mapping[str, Any]) -> list[str | None]:
    return [text_of(message.get("content")) for message in body["messages"] if message.get("role") == "user"]


def with_user(body: Mapping[str, Any], place: int, text: str) -> dict[str, Any]:
    return {**body, "messages": replaced_user(body["messages"], place, text)}


def answer_of(response: Mapping[str, Any]) -> str | None:
    """Text of the first choice, else the arguments of its tool calls."""
    choices = response.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        return None
    message = choices[0].get("message")
    if not isinstance(message, dict):
        return None
    text = text_of(message.get("content"))
    if text:
        return text
    calls = message.get("tool_calls")
    functions = [
        call["function"]
        for call in (calls if isinstance(calls, list) else ())
        if isinstance(call, dict) and isinstance(call.get("function"), dict)
    ]
    return "\n".join(str(function.get("arguments", "")) for function in functions) or None


def usage_of(response: Mapping[str, Any]) -> Usage | None:
    usage = response.get("usage")
    if not isinstance(usage, dict) or not is_told(usage, "prompt_tokens", "completion_tokens"):
        return None
    details = usage.get("prompt_tokens_details")
    return Usage(
        count(usage.get("prompt_tokens")),
        count(usage.get("completion_tokens")),
        cache_read_tokens=count(details.get("cached_tokens")) if isinstance(details, dict) else 0,
    )


def output_limit(body: Mapping[str, Any]) -> int | None:
    limit = count(body.get("max_completion_tokens")) or count(body.get("max_tokens"))
    return limit * (count(body.get("n")) or 1) if limit else None


def events_of(response: Mapping[str, Any], *, usage: bool) -> Iterator[bytes]:
    for chunk in chunks_of(response, usage=usage):
        yield b"data: " + dump(chunk) + b"\n\n"
    yield DONE


def error_body(message: str, kind: str, status: int) -> dict[str, Any]:
    return openai_error(message, kind, status)


def chunks_of(response: Mapping[str, Any], *, usage: bool) -> Iterator[dict[str, Any]]:
    """Take an answer apart into the chunks of a stream; `usage` adds the chunk that tells it."""
    frame = {
        **{key: value for key, value in response.items() if key not in ("choices", "usage", "object")},
        "object": "chat.completion.chunk",
    }
    for choice in response.get("choices", ()):
        message = dict(choice.get("message", {}))
        calls = [{"index": at, **call} for at, call in enumerate(message.pop("tool_calls", None) or ())]
        text = message.get("content")
        start = {**message, "content": ""} if text else message
        place = {"index": choice.get("index", 0)}
        yield {**frame, "choices": [{**place, "delta": start, "finish_reason": None}]}
        if text:
            yield {**frame, "choices": [{**place, "delta": {"content": text}, "finish_reason": None}]}
        for call in calls:
            yield {**frame, "choices": [{**place, "delta": {"tool_calls": [call]}, "finish_reason": None}]}
        rest = {key: value for key, value in choice.items() if key not in ("index", "message")}
        yield {**frame, "choices": [{**place, "delta": {}, **rest}]}
    if usage and response.get("usage") is not None:
        yield {**frame, "choices": [], "usage": response["usage"]}


def assembler() -> ChunkAssembler:
    return ChunkAssembler()


class ChunkAssembler:
    """Puts the chunks of a stream together into the answer that they are the parts of."""

    def __init__(self) -> None:
        self._frame: dict[str, Any] = {}
        self._choices: dict[int, dict[str, Any]] = {}

    def feed(self, chunk: Mapping[str, Any]) -> None:
        for key, value in chunk.items():
            if key not in ("choices", "object") and value is not None:
                self._frame[key] = value
        for part in chunk.get("choices") or ():
            choice = self._choices.setdefault(part.get("index", 0), {"message": {"role": "assistant"}})
            for key, value in part.items():
                if key == "delta":
                    _merge(choice["message"], value or {})
                elif key == "logprobs" and isinstance(value, dict):
                    _merge(choice.setdefault("logprobs", {}), value)
                elif key != "index" and (value is not None or key not in choice):
                    choice[key] = value

    @property
    def response(self) -> dict[str, Any] | None:
        """The answer so far; None before the first chunk with a choice."""
        if not self._choices:
            return None
        choices = [{"index": index, **self._choices[index]} for index in sorted(self._choices)]
        return {**self._frame, "object": "chat.completion", "choices": choices}

    @property
    def is_complete(self) -> bool:
        return bool(self._choices) and all(c.get("finish_reason") for c in self._choices.values())


def _merge(into: dict[str, Any], delta: Mapping[str, Any]) -> None:
    for key, value in delta.items():
        old = into.get(key)
        if isinstance(value, str) and isinstance(old, str) and key in _JOINED:
            into[key] = old + value
        elif isinstance(value, dict) and isinstance(old, dict):
            _merge(old, value)
        elif isinstance(value, list) and value and all(isinstance(v, dict) and "index" in v for v in value):
            parts = into.setdefault(key, [])
            for part in value:
                while len(parts) <= part["index"]:
                    parts.append({})
                _merge(parts[part["index"]], {k: v for k, v in part.items() if k != "index"})
        elif isinstance(value, list) and isinstance(old, list):
            old.extend(value)
        elif value is not None or key not in into:
            into[key] = dict(value) if isinstance(value, dict) else value
