"""Anthropic's messages dialect."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from pytest_synth.backend.gateway.dialect import Usage, count, is_told, replaced_user, text_of
from pytest_synth.backend.gateway.sse import event

OPERATION = "messages"
LIMIT_FIELD = "max_tokens"

# How a delta grows its content block: its field, and the field of the block that it is appended to.
_GROWN = {
    "text_delta": ("text", "text"),
    "thinking_delta": ("thinking", "thinking"),
    "signature_delta": ("signature", "signature"),
}
_KINDS = {  # of errors, by status; others are `api_error`
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}


def refuse_body(body: Mapping[str, Any]) -> str | None:
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        return "'messages' must be a list with at least one message"
    for index, message in enumerate(messages):
        if not isinstance(message, dict):
            return f"messages[{index}] is {type(message).__name__}, not an object"
    return None


def system_text(body: Mapping[str, Any]) -> str | None:
    return text_of(body.get("system")) or None


def with_system(body: Mapping[str, Any], text: str) -> dict[str, Any]:
    """The first block of a list keeps its other fields, such as `cache_control`."""
    system = body.get("system")
    if isinstance(system, list) and system and isinstance(system[0], dict):
        return {**body, "system": [{**system[0], "text": text}]}
    return {**body, "system": text}


def user_texts(body: Mapping[str, Any]) -> list[str | None]:
    return [text_of(message.get("content")) for message in body["messages"] if message.get("role") == "user"]


def with_user(body: Mapping[str, Any], place: int, text: str) -> dict[str, Any]:
    return {**body, "messages": replaced_user(body["messages"], place, text)}


def answer_of(response: Mapping[str, Any]) -> str | None:
    blocks = response.get("content")
    text = text_of(blocks)
    if text:
        return text
    inputs = [
        json.dumps(block.get("input"), ensure_ascii=False)
        for block in (blocks if isinstance(blocks, list) else ())
        if isinstance(block, dict) and block.get("type") == "tool_use"
    ]
    return "\n".join(inputs) or None


def usage_of(response: Mapping[str, Any]) -> Usage | None:
    """Anthropic's `input_tokens` leaves out what the cache served and took; ours holds all."""
    usage = response.get("usage")
    if not isinstance(usage, dict) or not is_told(usage, "input_tokens", "output_tokens"):
        return None
    read, written = (
        count(usage.get("cache_read_input_tokens")),
        count(usage.get("cache_creation_input_tokens")),
    )
    return Usage(
        count(usage.get("input_tokens")) + read + written,
        count(usage.get("output_tokens")),
        cache_read_tokens=read,
        cache_write_tokens=written,
    )


def output_limit(body: Mapping[str, Any]) -> int | None:
    return count(body.get("max_tokens")) or None


def assembler() -> BlockAssembler:
    return BlockAssembler()


class BlockAssembler:
    """Puts a message together from its content blocks."""

    def __init__(self) -> None:
        self._message: dict[str, Any] | None = None
        self._blocks: dict[int, dict[str, Any]] = {}
        self._json: dict[int, str] = {}
        self._is_complete = False

    def feed(self, event: Mapping[str, Any]) -> None:
        kind, index = event.get("type"), event.get("index", 0)
        if kind == "message_start":
            self._message = dict(event["message"])
        elif kind == "content_block_start":
            self._blocks[index] = dict(event["content_block"])
        elif kind == "content_block_delta":
            self._grow(index, event["delta"])
        elif kind == "content_block_stop" and index in self._json:
            self._blocks[index]["input"] = json.loads(self._json.pop(index) or "{}")
        elif kind == "message_stop":
            self._is_complete = True
        elif kind == "message_delta" and self._message is not None:
            self._message.update(event["delta"])
            self._message["usage"] = {**(self._message.get("usage") or {}), **(event.get("usage") or {})}

    def _grow(self, index: int, delta: Mapping[str, Any]) -> None:
        block = self._blocks.setdefault(index, {})
        kind = delta.get("type")
        if kind == "input_json_delta":
            self._json[index] = self._json.get(index, "") + delta["partial_json"]
        elif kind == "citations_delta":
            block["citations"] = [*(block.get("citations") or ()), delta["citation"]]
        elif kind in _GROWN:
            source, target = _GROWN[kind]
            block[target] = block.get(target, "") + delta[source]

    @property
    def response(self) -> dict[str, Any] | None:
        if self._message is None:
            return None
        return {**self._message, "content": [self._blocks[index] for index in sorted(self._blocks)]}

    @property
    def is_complete(self) -> bool:
        return self._is_complete


def events_of(response: Mapping[str, Any], *, usage: bool) -> Iterator[bytes]:
    told = response.get("usage") or {}
    start = {
        **response,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {**told, "output_tokens": 0},
    }
    yield event({"type": "message_start", "message": start})
    for index, block in enumerate(response.get("content") or ()):
        place = {"index": index}
        first, deltas = _parts(block)
        yield event({"type": "content_block_start", **place, "content_block": first})
        for delta in deltas:
            yield event({"type": "content_block_delta", **place, "delta": delta})
        yield event({"type": "content_block_stop", **place})
    end = {name: response.get(name) for name in ("stop_reason", "stop_sequence")}
    yield event(
        {"type": "message_delta", "delta": end, "usage": {"output_tokens": told.get("output_tokens", 0)}}
    )
    yield event({"type": "message_stop"})


def _parts(block: Mapping[str, Any]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """How a block starts, and the deltas that make it whole."""
    first, deltas = dict(block), []
    for citation in first.pop("citations", None) or ():
        deltas.append({"type": "citations_delta", "citation": citation})
    for kind, (source, target) in _GROWN.items():
        if isinstance(first.get(target), str):
            deltas.append({"type": kind, source: first[target]})
            first[target] = ""
    if "input" in first:
        deltas.append(
            {"type": "input_json_delta", "partial_json": json.dumps(first["input"], ensure_ascii=False)}
        )
        first["input"] = {}
    return first, deltas


def error_body(message: str, kind: str, status: int) -> dict[str, Any]:
    return {"type": "error", "error": {"type": _KINDS.get(status, "api_error"), "message": message}}
