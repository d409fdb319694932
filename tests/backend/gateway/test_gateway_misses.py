"""What a miss is told: the nearest recorded call, and what differs."""

from __future__ import annotations

from typing import Any

import pytest

from pytest_synth.backend.gateway.entries import Identity
from pytest_synth.backend.gateway.misses import Misses, word_diff

SYSTEM = "You sort the queries of a bank's customers into intents. Answer with one label and nothing else."


def identity(
    query: str, system: str = SYSTEM, *, model: str = "m-1", sample: int = 0, **more: Any
) -> Identity:
    messages = [{"role": "system", "content": system}, {"role": "user", "content": query}]
    return Identity("chat/completions", "openai", model, {"messages": messages, **more}, sample)


RECORDED = [
    identity("I lost my card"),
    identity("where is my refund"),
    identity("top up failed", temperature=1),
]


@pytest.mark.parametrize(
    ("asked", "explained"),
    [
        pytest.param(
            identity("I lost my card", SYSTEM.replace("one", "exactly one")),
            "messages[0] (system): '... into intents. Answer with{+ exactly+} one label and nothing ...'",
            id="one-word-more",
        ),
        pytest.param(
            identity("where is the refund"),
            "messages[1] (user): 'where is[- my-]{+ the+} refund'",
            id="another-query",
        ),
        pytest.param(
            identity("I lost my card", model="m-2"),
            "model: '[-openai/m-1-]{+openai/m-2+}'",
            id="another-model",
        ),
        pytest.param(identity("I lost my card", sample=3), "sample: '[-0-]{+3+}'", id="another-sample"),
        pytest.param(
            identity("I lost my card", temperature=1), "temperature is new: '1'", id="one-field-more"
        ),
        pytest.param(identity("top up failed"), "temperature is missing", id="one-field-less"),
    ],
)
def test_the_nearest_call_and_its_difference_are_named(asked: Identity, explained: str) -> None:
    assert Misses(RECORDED).explain(asked) == explained


def test_an_empty_cassette_has_no_nearest_call() -> None:
    assert Misses([]).explain(identity("x")) is None


def test_long_searches_are_bounded_but_calls_with_a_known_query_are_always_explained() -> None:
    misses = Misses(RECORDED, searches=1)
    assert misses.explain(identity("nothing like it")) is not None
    assert misses.explain(identity("nothing like it either")) is None
    assert misses.explain(identity("I lost my card", "another prompt")) is not None


@pytest.mark.parametrize(
    ("old", "new", "diff"),
    [
        ("a b c", "a x c", "'a[- b-]{+ x+} c'"),
        ("a b", "a b c", "'a b{+ c+}'"),
        ("a b c", "b c", "'[-a b-]{+b+} c'"),
        ("1 2 3 4 5 6 seven", "1 2 3 4 5 6 7", "'... 3 4 5 6[- seven-]{+ 7+}'"),
        ("line\nbreak", "line break", "'line[-\\nbreak-]{+ break+}'"),
    ],
)
def test_words_that_differ_are_marked(old: str, new: str, diff: str) -> None:
    assert word_diff(old, new) == diff


def test_a_long_difference_is_cut() -> None:
    assert len(word_diff("a " * 5000, "b " * 5000)) <= 410
