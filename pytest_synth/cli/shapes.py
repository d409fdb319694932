"""Whether a task app's answers have the shape that the API asks for, and what to do if not. No I/O."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from pytest_synth.contracts.rewards import read_reward
from pytest_synth.contracts.rollouts import RolloutResponse, TaskInfo

KEY_REMEDY = "set ENVIRONMENT_API_KEY to the key that the task app was started with"
_START_REMEDY = "start the task app, or correct its address"
LOG_REMEDY = "look into the task app's log"
ROW_REMEDY = "choose a row that exists with --seed and --split"
_SHOWN_CHARS = 300
Model = TypeVar("Model", bound=BaseModel)


@dataclass(frozen=True)
class Answer:
    """An HTTP answer; status 0 if there was none, with the reason as its text."""

    status: int
    body: bytes

    @property
    def text(self) -> str:
        return shorten(self.body.decode("utf-8", "replace"))


@dataclass(frozen=True)
class Problem:
    """What is wrong, and what to do."""

    what: str
    remedy: str


def shorten(text: str) -> str:
    """One line of at most 300 characters."""
    line = " ".join(text.split())
    return line if len(line) <= _SHOWN_CHARS else line[: _SHOWN_CHARS - 3] + "..."


def read_status(answer: Answer) -> Problem | None:
    """Say what a status other than 200 means at a task app."""
    if answer.status == 200:
        return None
    if answer.status == 0:
        return Problem(f"no answer ({answer.text})", _START_REMEDY)
    if answer.status in (400, 401, 403):
        return Problem(f"the task app refuses the key ({answer.status})", KEY_REMEDY)
    if answer.status == 503 and b"missing_environment_api_key" in answer.body:
        return Problem("the task app knows no key (503)", "start it with ENVIRONMENT_API_KEY set")
    return Problem(f"answered {answer.status}: {answer.text or 'no text'}", LOG_REMEDY)


def read_taskset(answer: Answer) -> str | Problem:
    """Read `/task_info` without a seed: `{"taskset": {...}}`; returns its splits in words."""
    document = _object(answer)
    if isinstance(document, Problem):
        return document
    taskset = document.get("taskset")
    if not isinstance(taskset, Mapping):
        return Problem(
            f"taskset is {_kind(taskset)}, not an object",
            "let provide_taskset_description return a dictionary",
        )
    sizes = taskset.get("sizes")
    sizes = sizes if isinstance(sizes, Mapping) else {}
    splits = taskset.get("splits")
    names = [str(name) for name in splits] if isinstance(splits, list) else [str(name) for name in sizes]
    if not names:
        return "no splits are described"
    return "splits " + ", ".join(f"{name} ({sizes[name]})" if name in sizes else name for name in names)


def read_task(answer: Answer, seed: int) -> str | Problem:
    """Read `/task_info?seed=N`: one task instance; returns its name in words."""
    if answer.status == 422:
        return Problem(f"the task app has no seed {seed}: {answer.text}", ROW_REMEDY)
    document = _object(answer)
    if isinstance(document, Problem):
        return document
    task = _model(TaskInfo, document)
    if isinstance(task, Problem):
        return Problem(task.what, f"let provide_task_instances yield one TaskInfo for seed {seed}")
    return f"task {task.task.name!r}"


def read_rollout(answer: Answer, correlation_id: object) -> float | Problem:
    """Read the answer to `POST /rollout`; returns the reward."""
    document = _object(answer)
    if isinstance(document, Problem):
        return document
    reading = read_reward(document)
    if reading.reward is None:
        return Problem(reading.reason or "no reward", "return an outcome_reward in [0, 1]")
    response = _model(RolloutResponse, document)
    if isinstance(response, Problem):
        return Problem(response.what, "return a RolloutResponse")
    if response.trace_correlation_id != correlation_id:
        return Problem(
            f"trace_correlation_id is {response.trace_correlation_id!r}, not that of the request",
            "return request.trace_correlation_id",
        )
    return reading.reward


def _object(answer: Answer) -> Mapping[str, Any] | Problem:
    problem = read_status(answer)
    if problem is not None:
        return problem
    try:
        document = json.loads(answer.body)
    except (ValueError, RecursionError):
        return Problem(f"answered text instead of JSON: {answer.text!r}", LOG_REMEDY)
    if not isinstance(document, Mapping):
        return Problem(f"answered {_kind(document)} instead of an object", LOG_REMEDY)
    return document


def _model(model: type[Model], document: Mapping[str, Any]) -> Model | Problem:
    try:
        return model.model_validate(document)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(step) for step in first["loc"]) or "the answer"
        return Problem(f"{place}: {first['msg']}", "")


def _kind(value: object) -> str:
    names = {type(None): "missing", dict: "an object", list: "a list", str: "a text"}
    return names.get(type(value), f"of type {type(value).__name__}")
