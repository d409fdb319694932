"""The prompt under test: where it goes, and what the gateway says about it."""

from __future__ import annotations

from typing import Any

import pytest
from fakes.gateway_server import GatewayUnderTest, chat
from fakes.model_provider import completion

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
