"""The prompt under test: where it goes, and what the gateway says about it."""

from __future__ import annotations

from typing import Any

import pytest
from fakes.gateway_server import GatewayUnderTest, chat
from fakes.model_provider import completion

from pytest_synth.backend.gateway import messages, responses
from pytest_synth.backend.gateway.substitution import fit
from pytest_synth.prompts import Prompt

JUDGE = "you are a strict judge"


def sent(served: GatewayUnderTest, call: int = 0) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = served.provider.seen[call].body["messages"]
    return messages


@pytest.mark.parametrize("role", ["system", "developer"])
def test_the_first_system_message_is_replaced(served: GatewayUnderTest, role: str) -> None:
    body = chat(system=None)
    body["messages"].insert(0, {"role": role, "content": "the app's", "name": "x"})
    rollout = served.open(prompt="the test's")
    served.post(rollout, body)
    assert sent(served) == [
        {"role": role, "content": "the test's", "name": "x"},
        {"role": "user", "content": "hello"},
    ]
    use = served.gateway.close_rollout(rollout)
    assert (use.prompt_applied, use.prompt_reason) == (True, None)
    assert use.prompt_fingerprint == Prompt.parse("the test's").fingerprint
    assert use.replaced_fingerprint == Prompt.parse("the app's").fingerprint


def test_a_system_message_is_put_first_where_there_is_none(served: GatewayUnderTest) -> None:
    served.post(served.open(prompt="the test's"), chat(system=None))
    assert sent(served)[0] == {"role": "system", "content": "the test's"}


def test_user_messages_of_the_prompt_stay_the_apps(served: GatewayUnderTest) -> None:
    prompt = [{"role": "system", "pattern": "S"}, {"role": "user", "pattern": "Q: {query}"}]
    served.post(served.open(prompt=prompt), chat("my card"))
    assert sent(served) == [{"role": "system", "content": "S"}, {"role": "user", "content": "my card"}]


def test_without_a_prompt_nothing_is_replaced(served: GatewayUnderTest) -> None:
    rollout = served.open()
    served.post(rollout, chat(system="the app's"))
    assert sent(served)[0]["content"] == "the app's"
    use = served.gateway.close_rollout(rollout)
    assert (use.prompt_applied, use.prompt_reason) == (None, None)
    assert use.prompt_fingerprint == Prompt.parse("the app's").fingerprint
    assert use.replaced_fingerprint is None


def test_every_call_with_the_first_system_message_gets_the_prompt(served: GatewayUnderTest) -> None:
    rollout = served.open(prompt="P")
    served.post(rollout, chat("one"))
    served.post(rollout, chat("two"))
    assert [sent(served, call)[0]["content"] for call in (0, 1)] == ["P", "P"]


def test_a_judges_call_is_left_alone_and_keeps_its_model(served: GatewayUnderTest) -> None:
    served.provider.script = [completion("an answer"), completion("a verdict")]
    rollout = served.open(prompt="P")
    served.post(rollout, chat("a question"))
    served.post(rollout, chat("judge this", system=JUDGE, model="judge-model"))
    assert sent(served, 1)[0]["content"] == JUDGE
    assert [seen.body["model"] for seen in served.provider.seen] == ["m-1", "judge-model"]
    use = served.gateway.close_rollout(rollout)
    assert (use.query, use.answer) == ("a question", "an answer")
    assert [call.model for call in use.calls] == ["m-1", "judge-model"]


def test_a_call_without_system_message_is_a_judges_if_the_first_had_one(
    served: GatewayUnderTest,
) -> None:
    rollout = served.open(prompt="P")
    served.post(rollout, chat())
    served.post(rollout, chat(system=None))
    assert sent(served, 1) == [{"role": "user", "content": "hello"}]


def test_parts_of_a_system_message_are_read_as_one_text(served: GatewayUnderTest) -> None:
    rollout = served.open()
    parts = [{"type": "text", "text": "you are "}, {"type": "text", "text": "terse"}]
    served.post(rollout, chat(system=parts))
    served.post(rollout, chat(system="you are terse", model="other"))
    assert [seen.body["model"] for seen in served.provider.seen] == ["m-1", "m-1"]
    assert sent(served)[0]["content"] == parts


def test_no_call_is_a_reason_why_the_prompt_was_not_applied(served: GatewayUnderTest) -> None:
    use = served.gateway.close_rollout(served.open(prompt="P"))
    assert use.prompt_applied is False
    assert use.prompt_reason == (
        "the task app made no model call at its inference_url (policy.config['inference_url'] of the rollout)"
    )
    assert (use.prompt_fingerprint, use.calls, use.tokens, use.cost_usd) == (None, (), 0, 0)


def test_a_prompt_whose_calls_all_failed_was_not_applied(served: GatewayUnderTest) -> None:
    served.provider.script = [(400, {}, "no")]
    rollout = served.open(prompt="P")
    served.post(rollout)
    use = served.gateway.close_rollout(rollout)
    assert (use.prompt_applied, use.prompt_reason) == (False, "no model call with the prompt was answered")


def test_a_prompt_without_a_system_message_cannot_be_applied(served: GatewayUnderTest) -> None:
    rollout = served.open(prompt=[{"role": "user", "pattern": "Q: {query}"}])
    served.post(rollout)
    use = served.gateway.close_rollout(rollout)
    assert use.prompt_applied is False
    assert use.prompt_reason == (
        "the prompt has no system message, and the gateway replaces system messages only"
    )


def test_use_counts_tokens_and_keeps_every_call(served: GatewayUnderTest) -> None:
    rollout = served.open()
    served.post(rollout, chat("one"))
    served.post(rollout, chat("two"))
    use = served.gateway.close_rollout(rollout)
    assert use.tokens == 22
    assert use.cost_usd is None  # the price of 'm-1' is not known
    call = use.calls[0]
    assert (call.provider, call.model, call.status, call.error) == ("openai", "m-1", 200, None)
    assert (call.prompt_tokens, call.completion_tokens) == (7, 4)
    assert call.request == chat("one") | {"model": "m-1"}
    assert call.response == completion()
    assert 0 < call.latency_ms < 10_000


@pytest.mark.parametrize(
    ("message", "answer"),
    [
        ({"content": "refunds"}, "refunds"),
        ({"content": None, "tool_calls": [{"function": {"name": "f", "arguments": '{"a": 1}'}}]}, '{"a": 1}'),
        ({"content": "x" * 3000}, "x" * 2047 + "…"),
        ({"content": None}, None),
    ],
    ids=["text", "tool-call", "long", "none"],
)
def test_the_answer_is_the_text_or_the_arguments(
    served: GatewayUnderTest, message: dict[str, Any], answer: str | None
) -> None:
    reply = completion()
    reply["choices"][0]["message"] = {"role": "assistant", **message}
    served.provider.script = [reply]
    rollout = served.open()
    served.post(rollout, chat("my query"))
    use = served.gateway.close_rollout(rollout)
    assert (use.query, use.answer) == ("my query", answer)


BASELINE = [
    {"role": "system", "pattern": "You sort {kind} queries."},
    {"role": "user", "pattern": "Query: {query}\n\nIntents: {intents}"},
]
APP = {"system": "You sort bank queries.", "user": "Query: my card?\n\nIntents: a, b"}


def substituted(served: GatewayUnderTest, prompt: Any, *bodies: dict[str, Any]) -> tuple[list[Any], Any]:
    rollout = served.open(prompt=prompt, baseline=Prompt.parse(BASELINE))
    for body in bodies or (chat(**APP),):
        served.post(rollout, body)
    texts = [[message["content"] for message in seen.body["messages"]] for seen in served.provider.seen]
    return texts, served.gateway.close_rollout(rollout)


def candidate(system: str, user: str = BASELINE[1]["pattern"]) -> list[dict[str, str]]:
    return [{"role": "system", "pattern": system}, {"role": "user", "pattern": user}]


@pytest.mark.parametrize(
    ("prompt", "sent"),
    [
        pytest.param(candidate("Be terse."), ["Be terse.", APP["user"]], id="system"),
        pytest.param(
            candidate("Sort these {kind} queries."), ["Sort these bank queries.", APP["user"]], id="hole"
        ),
        pytest.param(
            candidate("Pick of {intents}.", "{query} ({kind})"),
            ["Pick of a, b.", "my card? (bank)"],
            id="both",
        ),
        pytest.param(candidate('Answer {"a": 1}.'), ['Answer {"a": 1}.', APP["user"]], id="braces"),
    ],
)
def test_the_holes_of_a_prompt_get_what_the_baselines_patterns_find(
    served: GatewayUnderTest, prompt: Any, sent: list[str]
) -> None:
    texts, use = substituted(served, prompt)
    assert texts == [sent]
    assert use.prompt_applied is True
    assert use.prompt_fingerprint == Prompt.parse(prompt[0]["pattern"]).fingerprint
    assert use.replaced_fingerprint == Prompt.parse(BASELINE[0]["pattern"]).fingerprint


def test_a_call_that_fits_the_baseline_is_the_policys_though_another_came_first(
    served: GatewayUnderTest,
) -> None:
    texts, use = substituted(served, candidate("P"), chat("rewrite this", JUDGE), chat(**APP))
    assert texts[1] == ["P", APP["user"]]
    assert use.prompt_applied is True
    assert use.prompt_fingerprint == Prompt.parse("P").fingerprint


def test_a_system_message_that_does_not_fit_is_replaced_as_a_whole(served: GatewayUnderTest) -> None:
    texts, use = substituted(served, candidate("P"), chat("other words", "The app's own system message"))
    assert texts == [["P", "other words"]]
    assert use.prompt_applied is True


@pytest.mark.parametrize(
    ("prompt", "body", "reason"),
    [
        pytest.param(
            candidate("P", "Q: {query}"),
            chat("other words", APP["system"]),
            "the task app sent no user message that fits the baseline's: "
            "'Query: {query}\\n\\nIntents: {intents}'",
            id="user",
        ),
        pytest.param(
            candidate("Sort {kind} queries."),
            chat("x", "The app's own system message"),
            "the prompt's wildcard 'kind' has no value: no message fits the baseline's pattern",
            id="hole",
        ),
    ],
)
def test_a_prompt_that_cannot_be_put_in_is_told_and_the_call_is_as_it_was(
    served: GatewayUnderTest, prompt: Any, body: dict[str, Any], reason: str
) -> None:
    texts, use = substituted(served, prompt, body)
    assert texts == [[message["content"] for message in body["messages"]]]
    assert (use.prompt_applied, use.prompt_reason, use.replaced_fingerprint) == (False, reason, None)


def test_the_baseline_itself_leaves_the_call_as_it_was(served: GatewayUnderTest) -> None:
    texts, use = substituted(served, BASELINE)
    assert texts == [[APP["system"], APP["user"]]]
    assert use.prompt_applied is True
    assert use.prompt_fingerprint == Prompt.parse(BASELINE[0]["pattern"]).fingerprint


@pytest.mark.parametrize(
    ("pattern", "text", "values"),
    [
        ("a {x} c", "a b c", {"x": "b"}),
        ("a {x} c", "  a b c\n", {"x": "b"}),
        ("a {x} c", "a b", None),
        ("{x}\n{y}", "one\ntwo\nthree", {"x": "one", "y": "two\nthree"}),
        ("{x} and {x}", "a and a", {"x": "a"}),
        ("{x} and {x}", "a and b", None),
        ('{"json": {x}} (.*)', '{"json": 1} (.*)', {"x": "1"}),
        ("no hole", "no hole", {}),
    ],
)
def test_a_pattern_fits_a_text(pattern: str, text: str, values: dict[str, str] | None) -> None:
    assert fit(pattern, text) == values


def test_the_text_of_a_user_message_is_replaced_and_its_image_stays(served: GatewayUnderTest) -> None:
    image = {"type": "image_url", "image_url": {"url": "http://h/i.png"}}
    body = chat(**APP)
    body["messages"][1]["content"] = [{"type": "text", "text": APP["user"]}, image]
    texts, _ = substituted(served, candidate("P", "{query}"), body)
    assert texts[0][1] == [{"type": "text", "text": "my card?"}, image]


@pytest.mark.parametrize(
    ("dialect", "body", "changed"),
    [
        (
            messages,
            {"messages": [{"role": "user", "content": "a"}]},
            {"messages": [{"role": "user", "content": "b"}]},
        ),
        (responses, {"input": "a"}, {"input": "b"}),
        (
            responses,
            {"input": [{"role": "user", "content": [{"type": "input_text", "text": "a"}]}]},
            {"input": [{"role": "user", "content": [{"type": "input_text", "text": "b"}]}]},
        ),
    ],
)
def test_the_other_apis_user_messages(dialect: Any, body: dict[str, Any], changed: dict[str, Any]) -> None:
    assert dialect.user_texts(body) == ["a"]
    assert dialect.with_user(body, 0, "b") == changed
