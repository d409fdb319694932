"""`offline/lexical`: answers a classification prompt by the words that the query shares with it.

A deterministic stand-in, not a language model: it knows no synonyms, no negation and no instructions. Its
only knowledge of a label is the label's name and what the prompt says about it, so that a better prompt
really scores better: a description that goes lowers the score, the right key word raises it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from pytest_synth.backend.gateway.offline_answers import (
    OfflineAnswer,
    OfflineRefusal,
    read_messages,
)
from pytest_synth.backend.gateway.offline_labels import Labels, find_names, query_of
from pytest_synth.backend.gateway.offline_ranking import LabelIndex
from pytest_synth.backend.gateway.offline_schema import Choice, Schema

_LOOKS_FOR = (
    "it looks for an enum in the parameters of a tool or in the json_schema of response_format, else for a "
    "list in the prompt with a line for each answer, such as '- refund: wants money back'; "
    "for any other task name a real provider"
)


def answer_lexical(body: Mapping[str, Any]) -> OfflineAnswer:
    """Answer a chat body: by a tool call or a structured answer where it asks for one, else by the label.

    The query is the last user message without the lines that list labels; of a message that holds a line
    such as "Query: ...", what follows there. All other messages describe the labels; earlier pairs of a
    user message and an assistant's answer are examples, whose words count for the label of the answer.

    Raises:
        OfflineRefusal: If there is nothing to choose from.
    """
    prompt = _read_prompt(body)
    tool = _chosen_tool(body)
    if tool is not None:
        name, schema = tool
        return OfflineAnswer(_fill(schema, prompt), name)
    schema_of_answer = _answer_schema(body)
    if schema_of_answer is not None:
        return OfflineAnswer(_fill(schema_of_answer, prompt))
    listed = prompt.listed()
    return OfflineAnswer(listed[prompt.best(listed)])


@dataclass(frozen=True)
class _Prompt:
    """A chat body, taken apart.

    Attributes:
        texts: All messages but the last user message and the examples.
        examples: Earlier queries, each with the answer that the prompt shows for it.
        last: The last user message.
    """

    texts: tuple[str, ...]
    examples: tuple[tuple[str, str], ...]
    last: str

    def listed(self) -> tuple[str, ...]:
        """The answers that the prompt lists.

        Raises:
            OfflineRefusal: If it has no list.
        """
        names = find_names((*self.texts, self.last))
        if not names:
            raise OfflineRefusal(f"offline/lexical found no candidate answers in this request; {_LOOKS_FOR}")
        return names

    def best(self, names: Sequence[str], notes: Sequence[str] = ()) -> int:
        """The number of the name that shares most with the query; `notes` describe the names further."""
        names = tuple(names)
        listed, rest = _labels(names).split(self.last)
        texts = (*self.texts, "\n".join(listed))
        return _index(names, tuple(notes), texts, self.examples).best(query_of(rest))


@lru_cache(maxsize=64)
def _labels(names: tuple[str, ...]) -> Labels:
    return Labels(names)


@lru_cache(maxsize=64)  # a prompt is read once; a run tries a few prompts on many queries
def _index(
    names: tuple[str, ...],
    notes: tuple[str, ...],
    texts: tuple[str, ...],
    examples: tuple[tuple[str, str], ...],
) -> LabelIndex:
    labels = _labels(names)
    said = labels.descriptions(texts)
    for number, note in enumerate(notes):
        said[number].append(note)
    for query, answer in examples:
        shown = labels.number(answer)
        shown = labels.mentioned(answer) if shown is None else shown
        if shown is not None:
            said[shown].append(query_of(labels.split(query)[1]))
    return LabelIndex([" ".join((name, *texts)) for name, texts in zip(names, said, strict=True)])


def _read_prompt(body: Mapping[str, Any]) -> _Prompt:
    messages = read_messages(body)
    last = max((i for i, (role, _, _) in enumerate(messages) if role == "user"), default=len(messages) - 1)
    texts: list[str] = []
    examples: list[tuple[str, str]] = []
    asked: str | None = None
    for role, text, message in messages[:last]:
        if role == "assistant" and asked is not None:
            examples.append((asked, text or _arguments(message)))
            asked = None
            continue
        if asked is not None:
            texts.append(asked)
        asked = text if role == "user" else None
        if role in ("system", "developer"):
            texts.append(text)
    if asked is not None:
        texts.append(asked)
    return _Prompt(tuple(texts), tuple(examples), messages[last][1])


def _arguments(message: Mapping[str, Any]) -> str:
    """The answer that a tool call of an example gives: the first text among its arguments."""
    for call in message.get("tool_calls") or ():
        try:
            arguments = json.loads(call["function"]["arguments"])
        except (KeyError, TypeError, ValueError):
            continue
        for value in arguments.values() if isinstance(arguments, dict) else ():
            if isinstance(value, str):
                return value
    return ""


def _chosen_tool(body: Mapping[str, Any]) -> tuple[str, Schema] | None:
    """The function to call, and the schema of its arguments; None where the answer is a text."""
    choice = body.get("tool_choice")
    if choice == "none":
        return None
    functions = [
        tool["function"]
        for tool in body.get("tools") or ()
        if isinstance(tool, Mapping) and isinstance(tool.get("function"), Mapping)
    ]
    if isinstance(choice, Mapping):
        wanted = choice.get("function", {}).get("name")
        functions = [function for function in functions if function.get("name") == wanted]
        if not functions:
            raise OfflineRefusal(f"tool_choice names the function {wanted!r}, which is not among the tools")
    if not functions:
        return None
    tools = [(str(f.get("name")), Schema(f.get("parameters") or {})) for f in functions]
    return next((tool for tool in tools if tool[1].has_choices()), tools[0])


def _answer_schema(body: Mapping[str, Any]) -> Schema | None:
    wanted = body.get("response_format")
    wanted = wanted.get("json_schema") if isinstance(wanted, Mapping) else None
    schema = wanted.get("schema") if isinstance(wanted, Mapping) else None
    return Schema(schema) if isinstance(schema, Mapping) else None


def _fill(schema: Schema, prompt: _Prompt) -> str:
    """JSON that fits a schema: its choices by the query; without any, its first text by the prompt's list."""

    def choose(choices: Sequence[Choice]) -> Any:
        names = [choice.name for choice in choices]
        return choices[prompt.best(names, [choice.description for choice in choices])].value

    texts = []
    if not schema.has_choices():
        listed = prompt.listed()
        texts.append(listed[prompt.best(listed)])
    return json.dumps(schema.fill(choose, texts), ensure_ascii=False)
