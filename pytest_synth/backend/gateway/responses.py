"""OpenAI's responses dialect."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pytest_synth.backend.gateway.dialect import Usage, count, is_told, openai_error, replaced_user, text_of
from pytest_synth.backend.gateway.sse import event

OPERATION = "responses"
LIMIT_FIELD = "max_output_tokens"
_SYSTEM_ROLES = ("system", "developer")


def refuse_body(body: Mapping[str, Any]) -> str | None:
    given = body.get("input")
    if isinstance(given, list):
        for index, item in enumerate(given):
            if not isinstance(item, dict):
                return f"input[{index}] is {type(item).__name__}, not an object"
    elif given is not None and not isinstance(given, str):
        return f"'input' is {type(given).__name__}; it must be a text or a list of items"
    if body.get("background"):
        return "'background' is not served: an answer must come in its own call, so that it can be counted"
    return None


def system_text(body: Mapping[str, Any]) -> str | None:
    instructions = body.get("instructions")
    if isinstance(instructions, str) and instructions:
        return instructions
    return next(
        (text_of(item.get("content")) for item in _items(body) if item.get("role") in _SYSTEM_ROLES), None
    )


def with_system(body: Mapping[str, Any], text: str) -> dict[str, Any]:
    if not body.get("instructions"):
        items = _items(body)
        for index, item in enumerate(items):
            if item.get("role") in _SYSTEM_ROLES:
                return {**body, "input": [*items[:index], {**item, "content": text}, *items[index + 1 :]]}
    return {**body, "instructions": text}


def user_texts(body: Mapping[str, Any]) -> list[str | None]:
    if isinstance(body.get("input"), str):
        return [body["input"]]
    return [text_of(item.get("content")) for item in _items(body) if item.get("role") == "user"]


def with_user(body: Mapping[str, Any], place: int, text: str) -> dict[str, Any]:
    if isinstance(body.get("input"), str):
        return {**body, "input": text}
    return {**body, "input": replaced_user(_items(body), place, text)}


def answer_of(response: Mapping[str, Any]) -> str | None:
    output = response.get("output")
    items = [item for item in (output if isinstance(output, list) else ()) if isinstance(item, dict)]
    text = "".join(text_of(item.get("content")) or "" for item in items if item.get("type") == "message")
    if text:
        return text
    calls = [str(item.get("arguments", "")) for item in items if item.get("type") == "function_call"]
    return "\n".join(calls) or None


def usage_of(response: Mapping[str, Any]) -> Usage | None:
    usage = response.get("usage")
    if not isinstance(usage, dict) or not is_told(usage, "input_tokens", "output_tokens"):
        return None
    details = usage.get("input_tokens_details")
    return Usage(
        count(usage.get("input_tokens")),
        count(usage.get("output_tokens")),
        cache_read_tokens=count(details.get("cached_tokens")) if isinstance(details, dict) else 0,
    )


def output_limit(body: Mapping[str, Any]) -> int | None:
    return count(body.get("max_output_tokens")) or None


def assembler() -> LastResponse:
    return LastResponse()


class LastResponse:
    """The last event of this stream holds the whole answer."""

    def __init__(self) -> None:
        self._response: dict[str, Any] | None = None

    def feed(self, event: Mapping[str, Any]) -> None:
        if event.get("type") in ("response.completed", "response.incomplete", "response.failed"):
            self._response = dict(event["response"])

    @property
    def response(self) -> dict[str, Any] | None:
        return self._response

    @property
    def is_complete(self) -> bool:
        return self._response is not None


def events_of(response: Mapping[str, Any], *, usage: bool) -> Iterator[bytes]:
    for number, value in enumerate(_events(response)):
        yield event({**value, "sequence_number": number})


def _events(response: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    start = {**response, "status": "in_progress", "output": [], "usage": None}
    yield {"type": "response.created", "response": start}
    yield {"type": "response.in_progress", "response": start}
    for index, item in enumerate(response.get("output") or ()):
        place = {"output_index": index}
        yield {"type": "response.output_item.added", **place, "item": _emptied(item)}
        place = {**place, "item_id": item.get("id")}
        if item.get("type") == "message":
            yield from _content(item, place)
        elif item.get("type") == "function_call":
            arguments = item.get("arguments", "")
            yield {"type": "response.function_call_arguments.delta", **place, "delta": arguments}
            yield {
                "type": "response.function_call_arguments.done",
                **place,
                "name": item.get("name"),
                "arguments": arguments,
            }
        yield {"type": "response.output_item.done", "output_index": index, "item": item}
    yield {"type": f"response.{response.get('status', 'completed')}", "response": response}


def _content(item: Mapping[str, Any], place: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for index, part in enumerate(item.get("content") or ()):
        at = {**place, "content_index": index}
        kind, name = ("refusal", "refusal") if part.get("type") == "refusal" else ("output_text", "text")
        text = part.get(name, "")
        logprobs = {"logprobs": part.get("logprobs") or []} if kind == "output_text" else {}
        yield {"type": "response.content_part.added", **at, "part": {**part, name: ""}}
        yield {"type": f"response.{kind}.delta", **at, "delta": text, **logprobs}
        yield {"type": f"response.{kind}.done", **at, name: text, **logprobs}
        yield {"type": "response.content_part.done", **at, "part": part}


def _emptied(item: Mapping[str, Any]) -> dict[str, Any]:
    empty = dict(item)
    if "status" in empty:
        empty["status"] = "in_progress"
    if item.get("type") == "message":
        empty["content"] = []
    elif item.get("type") == "function_call":
        empty["arguments"] = ""
    return empty


def error_body(message: str, kind: str, status: int) -> dict[str, Any]:
    return openai_error(message, kind, status)


def _items(body: Mapping[str, Any]) -> list[dict[str, Any]]:
    given = body.get("input")
    return given if isinstance(given, list) else []
