"""What a model answered, ready to use."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pytest_synth.errors import ModelAnswerError

_QUOTED = 200  # characters of the model's text that a message quotes


@dataclass(frozen=True)
class ToolCall:
    """One call of a tool that the model asks for.

    Attributes:
        name: Name of the function.
        text: Its arguments as the model wrote them; meant to be a JSON object.
        id: The model's id of the call, for a `tool` message; empty if it gave none.
    """

    name: str
    text: str
    id: str = ""

    @property
    def arguments(self) -> dict[str, Any]:
        """The arguments, parsed.

        Raises:
            ModelAnswerError: If the model wrote no JSON object; catch it to score such an answer 0.
        """
        value = _parse(self.text or "{}", f"the arguments of the tool call {self.name!r} are no JSON")
        if not isinstance(value, dict):
            raise ModelAnswerError(
                f"the arguments of the tool call {self.name!r} are no JSON object: {_quote(self.text)}"
            )
        return value


@dataclass(frozen=True)
class Reply:
    """A model's answer to one call.

    Attributes:
        raw: The whole answer as the gateway sent it (chat completion object).
    """

    raw: Mapping[str, Any]

    @property
    def text(self) -> str:
        """The answer's text; empty if the model only called tools."""
        content = self._message.get("content")
        if isinstance(content, list):  # some providers answer in parts
            return "".join(str(part.get("text") or "") for part in content if isinstance(part, Mapping))
        return content if isinstance(content, str) else ""

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        """All tool calls of the answer, in the model's order."""
        calls = self._message.get("tool_calls")
        return tuple(
            _tool_call(call)
            for call in (calls if isinstance(calls, list) else ())
            if isinstance(call, Mapping)
        )

    @property
    def tool_call(self) -> ToolCall | None:
        """The first tool call; None if the model called no tool."""
        return next(iter(self.tool_calls), None)

    @property
    def parsed(self) -> Any:
        """The text parsed as JSON, a Markdown fence around it taken off.

        Raises:
            ModelAnswerError: If it is no JSON; catch it to score such an answer 0.
        """
        text = self.text.strip()
        if text.startswith("```") and text.endswith("```"):
            text = text[3:-3].removeprefix("json")
        return _parse(text, "the model's answer is no JSON")

    @property
    def usage(self) -> Mapping[str, Any]:
        """Token counts as sent (`prompt_tokens`, `completion_tokens`, `total_tokens`); empty if none were."""
        usage = self.raw.get("usage")
        return usage if isinstance(usage, Mapping) else {}

    @property
    def _message(self) -> Mapping[str, Any]:
        message: Mapping[str, Any] = self.raw["choices"][0]["message"]
        return message

    @classmethod
    def parse(cls, text: str) -> Reply:
        """Read the body of a chat completion.

        Raises:
            ModelAnswerError: If it is none.
        """
        document = _parse(text, "the answer is no JSON")
        try:
            message = document["choices"][0]["message"]
        except (KeyError, IndexError, TypeError):
            message = None
        if not isinstance(document, dict) or not isinstance(message, dict):
            raise ModelAnswerError(f"the answer has no choices[0].message: {_quote(text)}")
        return cls(document)


def _tool_call(call: Mapping[str, Any]) -> ToolCall:
    function = call.get("function")
    function = function if isinstance(function, Mapping) else {}
    arguments = function.get("arguments")
    text = arguments if isinstance(arguments, str) else json.dumps(arguments or {})
    return ToolCall(name=str(function.get("name") or ""), text=text, id=str(call.get("id") or ""))


def _parse(text: str, problem: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise ModelAnswerError(f"{problem}: {_quote(text)}") from error


def _quote(text: str) -> str:
    return repr(text if len(text) <= _QUOTED else text[:_QUOTED] + "...")
