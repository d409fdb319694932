"""What the reflection model is asked, and what becomes of its answers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from fakes.optimizer_host import SimulatedHost, make_config
from fakes.rule_world import World

from pytest_synth.backend.optimizer.components import Components
from pytest_synth.backend.optimizer.config import ReflectionConfig
from pytest_synth.backend.optimizer.pool import UsageMeter
from pytest_synth.backend.optimizer.ports import ReflectionRequest
from pytest_synth.backend.optimizer.reflection import Proposal, Proposer
from pytest_synth.backend.optimizer.spending import Spending
from pytest_synth.backend.optimizer.stopping import FailureStreak, StopSignal
from pytest_synth.prompts import Message, Prompt

PARENT = Prompt((Message("system", "Classify {intents}."), Message("user", "Query: {query}")))
RECORDS = [{"Inputs": {"query": "late card"}, "Generated Outputs": "x", "Feedback": "expected: y"}]


def propose(
    answers: Callable[[ReflectionRequest], str],
    *,
    names: tuple[str, ...] = ("0:system",),
    known: frozenset[str] = frozenset(),
    **changes: Any,
) -> tuple[Proposal, SimulatedHost]:
    host = SimulatedHost(World(), answers=answers)
    config = make_config(World(), prompt=PARENT, required_wildcards=frozenset({"query"}), **changes)
    stop = StopSignal()
    proposer = Proposer(
        config,
        Components(PARENT),
        host.ports,
        meter=UsageMeter(),
        streak=FailureStreak("reflections", 3, stop),
        spending=Spending(None, stop),
        stop=stop,
    )
    return asyncio.run(proposer.propose(7, PARENT, names, RECORDS, known)), host


def fenced(text: str) -> str:
    return f"```\n{text}\n```"


def test_the_question_shows_the_text_the_examples_and_the_rules() -> None:
    _, host = propose(lambda request: fenced("Sort."), names=("1:user",), max_prompt_chars=500)

    question = host.asked[0].text
    assert "```\nQuery: {query}\n```" in question
    assert "# Example 1\n## Inputs\n### query\nlate card" in question
    assert "## Generated Outputs\nx" in question
    assert "## Feedback\nexpected: y" in question
    rules = question.split("Keep to these rules:\n")[1]
    assert "- The instructions are the user message of a prompt;" in rules
    assert "- Keep {query}, spelled exactly so: data is filled in there." in rules
    assert "- Do not copy the examples word for word" in rules
    assert "- Write at most 500 characters." in rules


def test_optional_wildcards_may_be_left_out_and_the_question_says_so() -> None:
    proposal, host = propose(lambda request: fenced("Classify."))

    assert proposal.texts == {"0:system": "Classify."}
    assert "You may keep or leave out {intents}" in host.asked[0].text


def test_the_template_of_the_config_is_used() -> None:
    config = ReflectionConfig(template="Mend this: <curr_param>\nSeen: <side_info>")
    _, host = propose(lambda request: fenced("Sort."), reflection=config)

    assert host.asked[0].text.startswith("Mend this: Classify {intents}.\nSeen: # Example 1")


def test_an_answer_that_cannot_be_used_may_be_mended_once() -> None:
    def answer(request: ReflectionRequest) -> str:
        return fenced("Sort {intents}.") if request.is_repair else "Sort {intents}."

    proposal, host = propose(answer)

    assert proposal.texts == {"0:system": "Sort {intents}."}
    first, second = host.asked
    assert (first.is_repair, second.is_repair) == (False, True)
    assert second.text.startswith(first.text)
    assert "You have answered this already:\n\nSort {intents}." in second.text
    assert "The answer cannot be used: it has no code block (```)." in second.text
    assert first.key.child == second.key.child == 7
    assert first.key.prompt_hash != second.key.prompt_hash


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("Classify {intents}.", "0:system: it is the current text, unchanged"),
        ("Sort {query}.", "0:system: it has {query}, which nothing fills at this place"),
        ("Sort.", "0:system: it makes a prompt that is known already"),
    ],
    ids=["unchanged", "other-message-s-wildcard", "known"],
)
def test_after_two_useless_answers_there_is_no_proposal(text: str, reason: str) -> None:
    known = Components(PARENT).replace(PARENT, {"0:system": "Sort."}).fingerprint
    proposal, host = propose(lambda request: fenced(text), known=frozenset({known}))

    assert proposal.texts == {}
    assert proposal.reasons == [reason]
    assert len(host.asked) == 2


def test_each_message_is_asked_for_on_its_own_and_may_fail_on_its_own() -> None:
    def answer(request: ReflectionRequest) -> str:
        return fenced("Sort {intents}.") if request.component == "0:system" else fenced("Query!")

    proposal, host = propose(answer, names=("0:system", "1:user"))

    assert proposal.texts == {"0:system": "Sort {intents}."}
    assert proposal.reasons == ["1:user: it lost {query}, which must stay, spelled exactly so"]
    assert sorted(request.component for request in host.asked) == ["0:system", "1:user", "1:user"]
    assert proposal.costs == [0.0, 0.0, 0.0]
