"""What the reflection model is shown of a rollout."""

from __future__ import annotations

import pytest

from pytest_synth.backend.optimizer.feedback import PART_CHARS, cut, inputs_of, record_of
from pytest_synth.backend.optimizer.ports import RolloutOutcome
from pytest_synth.prompts import Message, Prompt

PROMPT = Prompt((Message("system", "Classify."), Message("user", "Query: {query}\n\nIntents:\n{intents}")))


def test_a_record_says_what_went_in_what_came_out_and_why() -> None:
    outcome = RolloutOutcome(
        0.5,
        inputs={"query": "where is my card", "history": [1, 2]},
        output="lost_card",
        details={
            "predicted": "lost_card",
            "expected": "card_arrival",
            "latency": 12,
            "feedback": "mixes up lost and late cards",
        },
        event_rewards=(1.0, 0.0),
    )

    assert record_of(outcome) == {
        "Inputs": {"query": "where is my card", "history": "[1, 2]"},
        "Generated Outputs": "lost_card",
        "Feedback": (
            "score: 0.5 of 1\n"
            "feedback: mixes up lost and late cards\n"
            "expected: card_arrival\n"
            "predicted: lost_card\n"
            "event 1: 1\n"
            "event 2: 0\n"
            '{"latency": 12}'
        ),
    }


def test_a_failed_rollout_is_shown_with_its_reason() -> None:
    outcome = RolloutOutcome(None, error="task app answered 500: no JSON", error_kind="rollout")

    assert record_of(outcome)["Feedback"] == ("score: 0 of 1\nrollout failed: task app answered 500: no JSON")


def test_long_parts_are_cut_in_their_middle() -> None:
    record = record_of(RolloutOutcome(1.0, output="a" * 5000 + "z" * 5000))

    text = record["Generated Outputs"]
    assert len(text) <= PART_CHARS
    assert text.startswith("aaa")
    assert text.endswith("zzz")
    assert cut("short") == "short"


@pytest.mark.parametrize(
    ("messages", "inputs"),
    [
        (
            [
                {"role": "system", "content": "Classify."},
                {"role": "user", "content": "Query: late card\n\nIntents:\na, b"},
            ],
            {"query": "late card", "intents": "a, b"},
        ),
        (
            [{"role": "system", "content": "Other."}, {"role": "user", "content": "late card"}],
            {"user": "late card"},
        ),
        (
            [
                {"role": "system", "content": "Classify."},
                {"role": "user", "content": "one"},
                {"role": "assistant", "content": "yes?"},
                {"role": "user", "content": [{"type": "text", "text": "two"}]},
            ],
            {"user": 'one\n[{"text": "two", "type": "text"}]', "assistant": "yes?"},
        ),
    ],
    ids=["wildcards", "other-messages", "several-turns"],
)
def test_inputs_are_what_the_prompt_does_not_say(
    messages: list[dict[str, object]], inputs: dict[str, str]
) -> None:
    assert inputs_of(PROMPT, messages) == inputs


def test_a_wildcard_that_comes_twice_has_one_value() -> None:
    prompt = Prompt((Message("user", "{a} and {a}"),))

    assert inputs_of(prompt, [{"role": "user", "content": "x and x"}]) == {"a": "x"}
    assert inputs_of(prompt, [{"role": "user", "content": "x and y"}]) == {"user": "x and y"}


def test_an_outcome_survives_the_ledger() -> None:
    outcome = RolloutOutcome(
        0.5, inputs={"q": "x"}, output="y", details={"a": [1]}, event_rewards=(0.5,), cost_usd=None, tokens=7
    )

    assert RolloutOutcome.from_document(outcome.to_document()) == outcome
