"""What an offline model answers or refuses, and the messages that it reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pytest_synth.errors import SynthError


class OfflineRefusal(SynthError):
    """A request that an offline model cannot answer.

    Attributes:
        status: HTTP status for the caller.
        message: What is missing, and what the model looks for.
    """

    def __init__(self, message: str, *, status: int = 400) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


@dataclass(frozen=True)
class OfflineAnswer:
    """The text of an answer; where `tool` names a function, the text is its arguments as JSON."""

    text: str
    tool: str | None = None


def read_messages(body: Mapping[str, Any]) -> list[tuple[str, str, Mapping[str, Any]]]:
    """The messages of a chat body as (role, text, message).

    Raises:
        OfflineRefusal: If there are none.
    """
    messages = body.get("messages")
    if not isinstance(messages, Sequence) or isinstance(messages, str) or not messages:
        raise OfflineRefusal("'messages' must be a list with at least one message")
    for index, message in enumerate(messages):
        if not isinstance(message, Mapping):
            raise OfflineRefusal(f"messages[{index}] is {type(message).__name__}, not an object")
    return [(str(m.get("role")), content_text(m.get("content")), m) for m in messages]


def content_text(content: object) -> str:
    """Text of a message's content; of a list of parts, one text part to a line (images are not seen)."""
    if isinstance(content, str):
        return content
    if isinstance(content, Sequence):
        texts = [part.get("text") for part in content if isinstance(part, Mapping)]
        return "\n".join(text for text in texts if isinstance(text, str))
    return ""
