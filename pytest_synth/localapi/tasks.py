"""The usual task app from three things: rows, a function that calls the model, a score."""

from __future__ import annotations

import asyncio
import inspect
import numbers
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, TypeVar

from fastapi import FastAPI, Request
from pydantic_core import PydanticSerializationError, to_jsonable_python

from pytest_synth.contracts.rewards import refuse_reward
from pytest_synth.contracts.rollouts import (
    DatasetInfo,
    InferenceInfo,
    LimitsInfo,
    RolloutMetrics,
    RolloutRequest,
    RolloutResponse,
    TaskDescriptor,
    TaskInfo,
)
from pytest_synth.errors import ConfigError
from pytest_synth.localapi import fingerprints
from pytest_synth.localapi.answers import InvalidAnswer
from pytest_synth.localapi.app import build_app
from pytest_synth.localapi.calls import Threads, call, is_async
from pytest_synth.localapi.config import LocalAPIConfig
from pytest_synth.localapi.inference import ChatCalls, Sessions
from pytest_synth.localapi.llm import LLM, AsyncLLM
from pytest_synth.localapi.rows import Rows, pick

Row = TypeVar("Row")
Answer = TypeVar("Answer")

Score = float | bool | tuple[float, str] | RolloutMetrics
"""What `score` may return: a number in [0, 1], yes or no, a number with feedback, or full metrics."""


def task_app(
    *,
    rows: Mapping[str, Sequence[Row]] | Callable[[str], Iterable[Row]] | Sequence[Row],
    run: Callable[[Row, AsyncLLM], Awaitable[Answer]] | Callable[[Row, LLM], Answer],
    score: Callable[[Row, Answer], Score | Awaitable[Score]],
    expected: str | Callable[[Row], Any] | None = None,
    name: str = "task",
    splits: Sequence[str] | None = None,
    default_split: str | None = None,
) -> FastAPI:
    """Make a task app of rows, a function that calls the model, and a score.

        ROWS = {"test": [{"query": "Where is my card?", "label": "card_arrival"}, ...]}

        async def run(row, llm):
            reply = await llm.chat(
                [{"role": "system", "content": PROMPT}, {"role": "user", "content": row["query"]}]
            )
            return reply.text

        def score(row, answer):
            return answer == row["label"]

        app = task_app(rows=ROWS, run=run, score=score, expected="label")

    A seed is the number of a row in its split. `run` and `score` may be `def` or `async def`; a `def` runs
    in a thread and gets a blocking `llm` with the same calls (`reply = llm.chat(...)`). Many rollouts run at
    once, so what they share must be safe to share. What either raises becomes the reason why the seed has
    no reward.

    Args:
        rows: Rows by split (`{"test": [...], "train": [...]}`); or a function of the split's name, which is
            called once, when the split is first needed; or one list, which is the split "test". A row may be
            anything.
        run: Gets a row and the model; returns the answer that is to be scored. Model calls must go through
            `llm`, so that they reach the model that the test names and the prompt under test is applied.
        score: Gets a row and the answer; returns a number in [0, 1], a bool, a pair `(number, feedback)` or
            `RolloutMetrics`. Feedback is a text that says what was wrong: reports show it and the optimiser
            learns from it.
        expected: The right answer of a row, for reports and the optimiser: a key of the row, or a function
            of the row. Without it they only see what was predicted.
        name: Name of the task.
        splits: Names of the splits if `rows` is a function, so that `/task_info` can tell their sizes.
        default_split: The split of a request that names none; needed only if there are several.

    Raises:
        ConfigError: If an argument does not fit; it names the argument.
    """
    _check_parameters("run", run, "(row, llm)")
    _check_parameters("score", score, "(row, answer)")
    task = _Task(name, Rows(rows, splits=splits, default_split=default_split), run, score, expected)
    config = LocalAPIConfig(
        app_id=name,
        name=name,
        description=f"Task app {name!r}, made by task_app",
        provide_taskset_description=task.describe,
        provide_task_instances=task.instances,
        rollout=task.rollout,
        startup_hooks=(task.sessions.open,),
        shutdown_hooks=(task.sessions.close,),
    )
    return build_app(config, task.threads)


class _Task:
    """Runs one rollout after the other of a task made by `task_app`."""

    def __init__(
        self,
        name: str,
        rows: Rows[Any],
        run: Callable[[Any, Any], Any],
        score: Callable[[Any, Any], Any],
        expected: str | Callable[[Any], Any] | None,
    ) -> None:
        self.threads = Threads()
        self.sessions = Sessions()
        self._name = name
        self._rows = rows
        self._run = run
        self._score = score
        self._expected = expected
        self._fingerprints: dict[str, str | None] = {}  # of the rows, by split

    def describe(self) -> dict[str, Any]:
        sizes = {split: len(self._rows.of_split(split)) for split in self._rows.splits}
        description = {
            "id": self._name,
            "splits": list(sizes),
            "sizes": sizes,
            "fingerprints": {
                "scorer": fingerprints.of_scorer(self._score),
                "data": {split: self._data_fingerprint(split) for split in sizes},
            },
        }
        default = self._rows.default_split
        return {**description, "default_split": default} if default else description

    def _data_fingerprint(self, split: str) -> str | None:
        if split not in self._fingerprints:
            self._fingerprints[split] = fingerprints.of_rows(self._rows.of_split(split))
        return self._fingerprints[split]

    def instances(self, seeds: Sequence[int]) -> Iterator[TaskInfo]:
        """A request for instances names no split: the default one is meant, else the first."""
        split = self._rows.default_split or next(iter(self._rows.splits), None) or self._rows.split_of({})
        rows = self._rows.of_split(split)
        for seed in seeds:
            pick(rows, seed, split)
            dataset = {"id": self._name, "splits": list(self._rows.splits), "split": split, "index": seed}
            yield TaskInfo(
                task=TaskDescriptor(id=self._name, name=self._name),
                dataset=DatasetInfo.model_validate(dataset),
                inference=InferenceInfo(),
                limits=LimitsInfo(),
                task_metadata={"seed": seed, "split": split},
            )

    async def rollout(self, request: RolloutRequest, _: Request) -> RolloutResponse:
        split = self._rows.split_of(request.env.config)
        if self._rows.is_loaded(split):
            rows = self._rows.of_split(split)
        else:
            rows = await self.threads.run(self._rows.of_split, split)
        row = pick(rows, request.env.seed, split)
        answer = await self._answer(row, request)
        result = await call(self.threads, self._score, row, answer)
        return RolloutResponse(
            trace_correlation_id=request.trace_correlation_id,
            reward_info=self._metrics(result, row, answer),
        )

    async def _answer(self, row: Any, request: RolloutRequest) -> Any:
        async with self.sessions.lease() as session:
            calls = ChatCalls(request, session)
            if is_async(self._run):
                return await self._run(row, AsyncLLM(calls))
            llm = LLM(calls, asyncio.get_running_loop())
            try:
                return await call(self.threads, self._run, row, llm)
            finally:
                llm.close()

    def _metrics(self, result: Any, row: Any, answer: Any) -> RolloutMetrics:
        metrics = read_score(result)
        notes: dict[str, Any] = {}
        if self._expected is not None:
            notes["expected"] = self._expected_of(row)
        with suppress(PydanticSerializationError):  # only the score needs to understand the answer
            notes["predicted"] = to_jsonable_python(answer)
        return metrics.model_copy(update={"details": {**notes, **metrics.details}})

    def _expected_of(self, row: Any) -> Any:
        if callable(self._expected):
            return self._expected(row)
        assert self._expected is not None
        if isinstance(row, Mapping):
            if self._expected not in row:
                held = ", ".join(repr(key) for key in row)
                raise ConfigError(f"expected is {self._expected!r}, but the row has only {held}")
            return row[self._expected]
        if not hasattr(row, self._expected):
            raise ConfigError(
                f"expected is {self._expected!r}, but the row, {type(row).__name__}, has no such attribute"
            )
        return getattr(row, self._expected)


def read_score(result: object) -> RolloutMetrics:
    """Read what `score` returned.

    Raises:
        InvalidAnswer: If it is no score, or outside [0, 1]; it names the value.
    """
    if isinstance(result, RolloutMetrics):
        return result
    feedback: object = None
    value = result
    if isinstance(result, tuple):
        if len(result) != 2:
            raise InvalidAnswer(f"score returned {result!r}; a tuple must be (number, feedback)")
        value, feedback = result
        if feedback is not None and not isinstance(feedback, str):
            raise InvalidAnswer(f"score returned {result!r}; its feedback must be a text")
    try:
        number = _number(value)
    except OverflowError as error:
        raise InvalidAnswer(
            "score returned a number that is too large for a float; it must return a number in [0, 1]"
        ) from error
    if number is None:
        raise InvalidAnswer(
            f"score returned {result!r}; it must return a number in [0, 1], a bool, (number, feedback) "
            "or RolloutMetrics"
        )
    problem = refuse_reward(number, "score")
    if problem is not None:
        raise InvalidAnswer(f"{problem}; score returned {result!r}")
    return RolloutMetrics(outcome_reward=number, details={"feedback": feedback} if feedback else {})


def _number(value: Any) -> float | None:
    """A float of a bool, a number, or numpy's or torch's scalar; None of anything else."""
    if not isinstance(value, numbers.Real) and callable(getattr(value, "item", None)):
        value = value.item()
    return float(value) if isinstance(value, numbers.Real) else None


def _check_parameters(name: str, function: object, wanted: str) -> None:
    if not callable(function):
        raise ConfigError(f"{name} is {function!r}, not a function {wanted}")
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return  # some builtins tell no signature
    try:
        signature.bind(None, None)
    except TypeError as error:
        raise ConfigError(f"{name} takes {signature}; it must take {wanted}") from error
