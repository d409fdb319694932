"""What the gateway must know of an API to substitute, count, record and replay its calls."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True)
class Usage:
    """Tokens of one call. `prompt_tokens` includes those read from and written to the provider's cache."""

    prompt_tokens: int
    completion_tokens: int
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0


class Assembler(Protocol):
    """Puts the events of a stream together into the answer that they are the parts of."""

    def feed(self, event: Mapping[str, Any]) -> None: ...

    @property
    def response(self) -> dict[str, Any] | None:
        """The answer so far; None while there is nothing to show."""

    @property
    def is_complete(self) -> bool:
        """The stream has come to its end, and was not cut."""


class Dialect(Protocol):
    """One API: `chat`, `responses` and `messages` are modules of this shape.

    Bodies passed to all but `refuse_body` have been accepted by it. Nothing that is passed in is changed.
    """

    OPERATION: str
    LIMIT_FIELD: str  # of the most output tokens

    def refuse_body(self, body: Mapping[str, Any]) -> str | None:
        """Say what is wrong with a body that no provider could answer; None if nothing is."""

    def system_text(self, body: Mapping[str, Any]) -> str | None:
        """Text of the system message; None if there is none."""

    def with_system(self, body: Mapping[str, Any], text: str) -> dict[str, Any]:
        """Copy a body with its system message replaced, or one put first."""

    def user_texts(self, body: Mapping[str, Any]) -> list[str | None]:
        """Texts of the user messages, in order; None for one without text, such as a tool's result."""

    def with_user(self, body: Mapping[str, Any], place: int, text: str) -> dict[str, Any]:
        """Copy a body with the text of a user message replaced; images stay. `place`: as in `user_texts`."""

    def answer_of(self, response: Mapping[str, Any]) -> str | None:
        """Text of the answer, else the arguments of its tool calls."""

    def usage_of(self, response: Mapping[str, Any]) -> Usage | None:
        """Tokens that the answer tells; None if it tells none."""

    def output_limit(self, body: Mapping[str, Any]) -> int | None:
        """Most output tokens that the body allows, all choices together; None if it sets no limit."""

    def assembler(self) -> Assembler: ...

    def events_of(self, response: Mapping[str, Any], *, usage: bool) -> Iterator[bytes]:
        """Take an answer apart into the events of a stream; `usage`: the caller asked for usage."""

    def error_body(self, message: str, kind: str, status: int) -> dict[str, Any]:
        """An error as this API's clients read it."""


def text_of(content: object) -> str | None:
    """A message's text; of a list of parts, the text parts joined; None if there is no text."""
    if isinstance(content, str):
        return content
    if isinstance(content, Sequence):
        texts = [part.get("text") for part in content if isinstance(part, Mapping)]
        found = [text for text in texts if isinstance(text, str)]
        return "".join(found) if found else None
    return None


def with_text(content: object, text: str) -> object:
    """A message's content with another text: parts that are no text stay behind it."""
    if not isinstance(content, list):
        return text
    texts = [part for part in content if isinstance(part, Mapping) and isinstance(part.get("text"), str)]
    if not texts:
        return [{"type": "text", "text": text}, *content]
    return [{**texts[0], "text": text}, *(part for part in content if part not in texts)]


def replaced_user(messages: Sequence[Any], place: int, text: str) -> list[Any]:
    """Copy a list of messages with the text of the user message at `place` replaced."""
    places = [index for index, message in enumerate(messages) if message.get("role") == "user"]
    changed = list(messages)
    message = changed[places[place]]
    changed[places[place]] = {**message, "content": with_text(message.get("content"), text)}
    return changed


def count(value: object) -> int:
    """A number of tokens as a provider tells it; 0 for what is none."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0


def is_told(usage: Mapping[str, Any], *names: str) -> bool:
    """Whether a provider tells one of these numbers of tokens; an empty `usage` does not mean 0."""
    return any(isinstance(value, int) and value >= 0 for value in map(usage.get, names))


def dump(value: object) -> bytes:
    """JSON without spaces, in UTF-8."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def openai_error(message: str, kind: str, status: int) -> dict[str, Any]:
    """An error as OpenAI's clients read it."""
    return {"error": {"message": message, "type": kind, "param": None, "code": status}}
