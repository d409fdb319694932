from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from fakes.task_caller import TaskCaller

from pytest_synth import task_app
from pytest_synth.errors import ConfigError
from pytest_synth.localapi import RolloutMetrics
from pytest_synth.localapi.rows import Rows

ROWS = {"test": [{"query": f"query {seed}", "label": f"label {seed}"} for seed in range(3)]}


async def echo(row: Any, llm: Any) -> Any:
    """A task without a model: the answer is the row's label."""
    return row["label"]


def is_right(row: Any, answer: Any) -> bool:
    return bool(answer == row["label"])


def app(**arguments: Any) -> TaskCaller:
    return TaskCaller(task_app(**{"rows": ROWS, "run": echo, "score": is_right, **arguments}))


async def score_async(row: Any, answer: Any) -> float:
    await asyncio.sleep(0)
    return 0.25


class Scalar:
    """Looks like numpy's bool and torch's scalars do."""

    def item(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("score", "reward", "feedback"),
    [
        pytest.param(lambda row, answer: 0.5, 0.5, None, id="float"),
        pytest.param(lambda row, answer: True, 1.0, None, id="true"),
        pytest.param(lambda row, answer: False, 0.0, None, id="false"),
        pytest.param(lambda row, answer: 0, 0.0, None, id="whole"),
        pytest.param(lambda row, answer: (0.5, "half"), 0.5, "half", id="with feedback"),
        pytest.param(lambda row, answer: (False, "no"), 0.0, "no", id="bool with feedback"),
        pytest.param(lambda row, answer: (1.0, None), 1.0, None, id="no feedback"),
        pytest.param(
            lambda row, answer: RolloutMetrics(outcome_reward=0.5, details={"feedback": "full"}),
            0.5,
            "full",
            id="metrics",
        ),
        pytest.param(score_async, 0.25, None, id="async"),
        pytest.param(lambda row, answer: Scalar(), 1.0, None, id="scalar"),
    ],
)
def test_score_may_be_given_in_every_usual_way(score: Any, reward: float, feedback: str | None) -> None:
    metrics = app(score=score).rollout().json()["reward_info"]
    assert metrics["outcome_reward"] == reward
    assert metrics["details"].get("feedback") == feedback


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (1.7, "score is 1.7, outside [0, 1]; score returned 1.7"),
        (-1, "score is -1.0, outside [0, 1]; score returned -1"),
        (math.nan, "score is nan, not a finite number; score returned nan"),
        pytest.param(10**5000, "score returned a number that is too large for a float", id="huge"),
        ((2, "too good"), "score is 2.0, outside [0, 1]; score returned (2, 'too good')"),
        (None, "score returned None; it must return a number in [0, 1], a bool, (number, feedback) or"),
        ("yes", "score returned 'yes'; it must return a number in [0, 1]"),
        ((1, 2, 3), "score returned (1, 2, 3); a tuple must be (number, feedback)"),
        ((1, 2), "score returned (1, 2); its feedback must be a text"),
        (RolloutMetrics(outcome_reward=3), "reward_info.outcome_reward is 3.0, outside [0, 1]"),
    ],
)
def test_a_wrong_score_is_named_with_its_value(result: Any, message: str) -> None:
    status, code, text = app(score=lambda row, answer: result).refused()
    assert (status, code) == (500, "invalid_rollout_response")
    assert text.startswith(message)


class Row:
    label = "label of an object"


@pytest.mark.parametrize(
    ("rows", "expected", "shown"),
    [
        pytest.param(ROWS, "label", "label 0", id="key"),
        pytest.param(ROWS, lambda row: row["label"].upper(), "LABEL 0", id="function"),
        pytest.param([Row()], "label", "label of an object", id="attribute"),
    ],
)
def test_the_expected_answer_stands_beside_the_predicted_one(rows: Any, expected: Any, shown: str) -> None:
    caller = app(rows=rows, run=lambda row, llm: {"intent": "x"}, score=lambda *_: 0, expected=expected)
    details = caller.rollout().json()["reward_info"]["details"]
    assert details == {"expected": shown, "predicted": {"intent": "x"}}


def test_an_answer_without_json_form_is_scored_and_not_shown() -> None:
    reply = app(run=lambda row, llm: object(), score=lambda row, answer: 1).rollout()
    assert reply.json()["reward_info"] == {
        **reply.json()["reward_info"],
        "outcome_reward": 1.0,
        "details": {},
    }


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (ROWS, "ConfigError: expected is 'intent', but the row has only 'query', 'label'"),
        ([3], "ConfigError: expected is 'intent', but the row, int, has no such attribute"),
    ],
    ids=["mapping", "object"],
)
def test_an_expected_key_that_no_row_has_is_named(rows: Any, message: str) -> None:
    caller = app(rows=rows, run=lambda *_: 1, score=lambda *_: 1, expected="intent")
    assert caller.refused()[2].startswith(message)


TWO = {"train": ["a"] * 5, "test": ["b"] * 2}
CHOICES = "name one, or give task_app a default_split"


@pytest.mark.parametrize(
    ("rows", "more", "seed", "split", "outcome"),
    [
        pytest.param(["only"], {}, 0, None, "only", id="plain list"),
        pytest.param(["only"], {}, 0, "test", "only", id="plain list is the split test"),
        pytest.param({"dev": ["d"]}, {}, 0, None, "d", id="only split"),
        pytest.param(TWO, {}, 4, "train", "a", id="named split"),
        pytest.param(TWO, {"default_split": "test"}, 1, None, "b", id="default split"),
        pytest.param(lambda split: [split], {}, 0, "dev", "dev", id="function"),
        pytest.param(lambda split: [split], {"default_split": "dev"}, 0, None, "dev", id="its default"),
        pytest.param(lambda split: iter([split]), {"splits": ["x"]}, 0, None, "x", id="its only split"),
    ],
)
def test_a_row_is_found_by_split_and_seed(
    rows: Any, more: dict[str, Any], seed: int, split: str | None, outcome: str
) -> None:
    caller = app(rows=rows, run=lambda row, llm: row, score=lambda row, answer: 1, **more)
    reply = caller.rollout(seed, config={"split": split} if split else {})
    assert reply.json()["reward_info"]["details"]["predicted"] == outcome


@pytest.mark.parametrize(
    ("rows", "more", "seed", "split", "code", "message"),
    [
        pytest.param(
            ["r"], {}, 1, None, "seed_out_of_range",
            "seed 1 is outside split 'test', which has rows 0 to 0", id="too high",
        ),
        pytest.param(
            ["r"], {}, -1, None, "seed_out_of_range",
            "seed -1 is outside split 'test', which has rows 0 to 0", id="negative",
        ),
        pytest.param(
            [], {}, 0, None, "seed_out_of_range",
            "seed 0 is outside split 'test', which has no rows", id="empty",
        ),
        pytest.param(
            ["r"], {}, None, None, "seed_missing",
            "env.seed is missing; it is the number of a row", id="no seed",
        ),
        pytest.param(
            TWO, {}, 0, None, "split_missing",
            f"env.config names no split, and there are several: 'train', 'test'; {CHOICES}", id="no split",
        ),
        pytest.param(
            TWO, {}, 0, "dev", "unknown_split",
            "env.config['split'] is 'dev'; the splits are 'train', 'test'", id="unknown split",
        ),
        pytest.param(
            lambda split: [1], {"splits": ["a", "b"]}, 0, "c", "unknown_split",
            "env.config['split'] is 'c'; the splits are 'a', 'b'", id="unknown to a function",
        ),
        pytest.param(
            lambda split: [1], {}, 0, None, "split_missing",
            "env.config names no split, and rows is a function that could take any; "
            "name one, or give task_app a default_split", id="function without a split",
        ),
    ],
)  # fmt: skip
def test_a_row_that_does_not_exist_is_the_callers_mistake(
    rows: Any, more: dict[str, Any], seed: int | None, split: str | None, code: str, message: str
) -> None:
    caller = app(rows=rows, run=lambda row, llm: row, score=lambda row, answer: 1, **more)
    assert caller.refused(seed, config={"split": split} if split else {}) == (422, code, message)


def test_a_function_of_rows_is_called_once_for_each_split_and_only_when_needed() -> None:
    asked: list[str] = []

    def load(split: str) -> Iterator[str]:
        asked.append(split)
        yield from (split, split)

    caller = app(rows=load, run=lambda row, llm: row, score=lambda row, answer: 1, splits=["test", "dev"])
    assert asked == []
    for seed in (0, 1):
        assert caller.rollout(seed, config={"split": "test"}).status_code == 200
    assert asked == ["test"]
    caller.get("/task_info")
    assert asked == ["test", "dev"]


def test_rollouts_that_need_a_split_at_once_load_it_once() -> None:
    asked: list[str] = []
    together = threading.Barrier(8)

    def load(split: str) -> list[str]:
        asked.append(split)
        time.sleep(0.02)  # the others arrive meanwhile
        return [split]

    rows = Rows(load)

    def ask(_: int) -> Any:
        together.wait(10)
        return rows.of_split("test")

    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(ask, range(8))) == [["test"]] * 8
    assert asked == ["test"]


@pytest.mark.parametrize(
    ("rows", "more", "description"),
    [
        pytest.param(
            TWO,
            {"name": "intents"},
            {"id": "intents", "splits": ["train", "test"], "sizes": {"train": 5, "test": 2}},
            id="mapping",
        ),
        pytest.param(
            ["r"], {},
            {"id": "task", "splits": ["test"], "sizes": {"test": 1}, "default_split": "test"}, id="list",
        ),
        pytest.param(
            lambda split: [split] * len(split),
            {"splits": ["a", "bb"], "default_split": "bb"},
            {"id": "task", "splits": ["a", "bb"], "sizes": {"a": 1, "bb": 2}, "default_split": "bb"},
            id="function",
        ),
    ],
)  # fmt: skip
def test_the_description_has_splits_and_sizes(rows: Any, more: Any, description: dict[str, Any]) -> None:
    taskset = app(rows=rows, **more).get("/task_info").json()["taskset"]
    fingerprints = taskset.pop("fingerprints")
    assert taskset == description
    assert set(fingerprints["data"]) == set(description["splits"])


def test_fingerprints_change_with_the_rows_and_with_the_scorer_only() -> None:
    def told(**arguments: Any) -> dict[str, Any]:
        return dict(app(**arguments).get("/task_info").json()["taskset"]["fingerprints"])

    first = told(rows={"a": ["x"], "b": ["y"]}, score=lambda row, answer: 1)
    again = told(rows={"a": ["x"], "b": ["y"]}, score=lambda row, answer: 1, run=lambda row, llm: "other")
    rows = told(rows={"a": ["x"], "b": ["z"]}, score=lambda row, answer: 1)
    assert again["data"] == first["data"]
    assert rows["data"]["a"] == first["data"]["a"]
    assert rows["data"]["b"] != first["data"]["b"]
    assert told(rows=["x"], score=lambda row, answer: 0)["scorer"] != first["scorer"]
    assert told(rows=[object()], score=print) == {"scorer": None, "data": {"test": None}}


def test_an_instance_names_its_split_and_seed() -> None:
    caller = app(rows=TWO, default_split="test")
    assert caller.get("/task_info?seed=1").json()["task_metadata"] == {"seed": 1, "split": "test"}
    reply = caller.get("/task_info?seed=2")
    assert reply.status_code == 422
    assert (
        reply.json()["detail"]["error"]["message"] == "seed 2 is outside split 'test', which has rows 0 to 1"
    )


class Frame:
    """Looks like pandas' data frame does."""

    iloc = None

    def to_dict(self, orient: str) -> list[Any]:
        return []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"run": lambda row: 1}, "run takes (row); it must take (row, llm)"),
        (
            {"score": lambda row, answer, more: 1},
            "score takes (row, answer, more); it must take (row, answer)",
        ),
        ({"run": None}, "run is None, not a function (row, llm)"),
        ({"rows": {}}, "rows has no split; give at least one, for example {'test': [...]}"),
        ({"rows": {"test": {"query": "a"}}}, "rows['test'] is dict, not a sequence of rows"),
        ({"rows": 3}, "rows is int, not a sequence of rows"),
        ({"rows": "abc"}, "rows is str, not a sequence of rows"),
        ({"rows": Frame()}, "rows is a Frame; give its rows: .to_dict('records')"),
        ({"rows": echo}, "rows is an async function; give a plain one, it may block"),
        (
            {"rows": ROWS, "splits": ["test"]},
            "splits is for rows that are a function; here rows has the names",
        ),
        ({"rows": ROWS, "default_split": "dev"}, "default_split is 'dev'; rows has 'test'"),
    ],
)
def test_a_wrong_argument_is_refused_at_once(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        app(**arguments)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("load", "message"),
    [
        (lambda split: None, "ConfigError: rows('test') is NoneType, not a sequence of rows"),
        (lambda split: {}[split], "KeyError: 'test' ("),
    ],
)
def test_a_function_of_rows_that_fails_is_named(load: Callable[[str], Any], message: str) -> None:
    status, code, text = app(rows=load, default_split="test").refused()
    assert (status, code) == (500, "rollout_failed")
    assert text.startswith(message)
