"""The built-in model through a served gateway."""

from __future__ import annotations

import json

from fakes.gateway_server import GatewayUnderTest, chat

SYSTEM = "Answer with one of these labels:\n- refunds: money back, refund\n- cards: lost or stolen cards"


def test_the_offline_model_answers_without_network_or_cost(served: GatewayUnderTest) -> None:
    served.environ.clear()
    rollout = served.open({}, prompt=SYSTEM)
    answer = served.post(rollout, chat("I lost my card", system="the app's", model="gpt-4o"))
    assert answer.json()["choices"][0]["message"]["content"] == "cards"
    use = served.gateway.close_rollout(rollout)
    assert (use.answer, use.cost_usd, use.prompt_applied) == ("cards", 0.0, True)
    assert use.tokens > 20
    assert (use.calls[0].provider, use.calls[0].model) == ("offline", "lexical")
    assert served.provider.seen == []


def test_half_a_surrogate_pair_of_a_row_that_was_cut_costs_no_rollout(served: GatewayUnderTest) -> None:
    rollout = served.open({})
    body = chat("I lost my card \N{PACKAGE} \ud83d", system=SYSTEM)
    answer = served.post(rollout, content=json.dumps(body).encode())
    assert answer.json()["choices"][0]["message"]["content"] == "cards"
    assert served.gateway.close_rollout(rollout).query == "I lost my card \N{PACKAGE} ?"


def test_the_offline_model_streams(served: GatewayUnderTest) -> None:
    body = chat("I lost my card", system=SYSTEM, stream=True, stream_options={"include_usage": True})
    answer = served.post(served.open({}), body)
    lines = [line[6:] for line in answer.text.splitlines() if line]
    chunks = [json.loads(line) for line in lines[:-1]]
    assert lines[-1] == "[DONE]"
    assert "".join(c["choices"][0]["delta"].get("content") or "" for c in chunks if c["choices"]) == "cards"
    assert chunks[-1]["usage"]["total_tokens"] > 20


def test_what_the_offline_model_cannot_answer_is_refused_with_its_reason(served: GatewayUnderTest) -> None:
    rollout = served.open({})
    answer = served.post(rollout, chat("hello", n=0))
    assert (answer.status_code, answer.json()["error"]["message"]) == (400, "n is 0; allowed: 1 to 128")
    assert served.gateway.close_rollout(rollout).calls[0].error == "n is 0; allowed: 1 to 128"
