"""Check what a rollout gives back, and put it on the wire."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import PydanticSerializationError, to_json, to_jsonable_python

from pytest_synth.contracts.rewards import read_reward
from pytest_synth.contracts.rollouts import RolloutResponse
from pytest_synth.contracts.texts import without_halves

_DEEPEST = 100  # levels; JSON readers refuse much deeper documents


class InvalidAnswer(ValueError):
    """A rollout's answer does not fit; the message names the field and its value."""


def encode_answer(answer: object, correlation_id: str) -> bytes:
    """Check the answer of a rollout and return it as JSON. Nothing is clipped or filled in.

    Args:
        answer: A `RolloutResponse`, or a mapping with its fields.
        correlation_id: The `trace_correlation_id` of the request.

    Raises:
        InvalidAnswer: If it does not fit; also for a reward that is not finite or outside [0, 1].
    """
    document = _document(answer)
    reading = read_reward(document)
    if reading.reason is not None:
        raise InvalidAnswer(reading.reason)
    block = document.get("reward_info") or document.get("metrics") or {}
    document["reward_info"] = {**block, "outcome_reward": reading.reward}
    try:
        response = RolloutResponse.model_validate(document)
    except ValidationError as error:
        raise InvalidAnswer(describe(error)) from error
    if response.trace_correlation_id != correlation_id:
        raise InvalidAnswer(
            f"trace_correlation_id is {response.trace_correlation_id!r}, not the request's "
            f"{correlation_id!r}; pass request.trace_correlation_id on"
        )
    plain = response.model_dump()
    for name, value in _numbers(plain["reward_info"], "reward_info"):
        if not math.isfinite(value):
            raise InvalidAnswer(f"{name} is {value!r}, not a finite number")
    return encode(plain)


def encode(document: object) -> bytes:
    """Turn a document into JSON: models, dataclasses, dates, sets and numpy's values become plain ones.

    Numbers that JSON cannot hold become text ("NaN"), halves of surrogate pairs become "?".

    Raises:
        InvalidAnswer: If a value has no JSON form; it names where it is.
    """
    try:
        return to_json(document, inf_nan_mode="strings", fallback=_plain)
    except PydanticSerializationError as error:
        # A text that a model cut inside a surrogate pair fails here: no reason to lose a rollout.
        try:
            return to_json(
                without_halves(to_jsonable_python(document, fallback=_plain)), inf_nan_mode="strings"
            )
        except (TypeError, ValueError):
            where = next(_misfits(document, "", 0), "the answer")
        raise InvalidAnswer(f"{where}, which has no JSON form") from error


def describe(error: ValidationError) -> str:
    """Say in one line which fields of a model are wrong, with which value."""
    parts = []
    for entry in error.errors(include_url=False):
        name = ".".join(map(str, entry["loc"])) or "the whole"
        if entry["type"] == "missing":
            parts.append(f"{name} is missing")
        else:
            parts.append(f"{name} is {_short(entry['input'])}: {entry['msg']}")
    return "; ".join(parts)


def _document(answer: object) -> dict[str, Any]:
    if isinstance(answer, BaseModel):
        return answer.model_dump(warnings=False)
    if isinstance(answer, Mapping):
        return dict(answer)
    raise InvalidAnswer(
        f"rollout returned {_short(answer)}; it must return a RolloutResponse or a mapping with its fields"
    )


def _numbers(block: Mapping[str, Any], name: str) -> Iterator[tuple[str, float]]:
    """All numbers of a reward block by name, but for the free-form `details`."""
    for key, value in block.items():
        if key != "details":
            yield from _walk_numbers(value, f"{name}.{key}")


def _walk_numbers(value: object, name: str) -> Iterator[tuple[str, float]]:
    if isinstance(value, float):
        yield name, value
    elif isinstance(value, Mapping):
        for key, entry in value.items():
            yield from _walk_numbers(entry, f"{name}.{key}")
    elif isinstance(value, list):
        for index, entry in enumerate(value):
            yield from _walk_numbers(entry, f"{name}[{index}]")


def _plain(value: Any) -> Any:
    """numpy's scalars and arrays, without importing numpy."""
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} has no JSON form")


def _misfits(value: object, name: str, depth: int) -> Iterator[str]:
    if depth > _DEEPEST:
        yield f"{name} holds itself, or nests deeper than {_DEEPEST} levels"
    elif isinstance(value, Mapping):
        for key, entry in value.items():
            yield from _misfits(entry, f"{name}.{key}" if name else str(key), depth + 1)
    elif isinstance(value, list | tuple):
        for index, entry in enumerate(value):
            yield from _misfits(entry, f"{name}[{index}]", depth + 1)
    else:
        try:
            to_json(value, fallback=_plain)
        except (TypeError, ValueError):
            yield f"{name or 'the answer'} is {_short(value)}"


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 120 else text[:117] + "..."
