"""The responses and messages APIs below an inference URL."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fakes.gateway_server import KEY, GatewayUnderTest

from pytest_synth.backend.gateway import messages, responses
from pytest_synth.backend.gateway.sse import json_of

MakeGateway = Callable[..., GatewayUnderTest]

MESSAGE = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "claude-x",
    "content": [
        {"type": "thinking", "thinking": "hm", "signature": "sig"},
        {"type": "text", "text": "refunds"},
        {"type": "tool_use", "id": "toolu_1", "name": "pick", "input": {"label": "refunds"}},
    ],
    "stop_reason": "tool_use",
    "stop_sequence": None,
    "usage": {"input_tokens": 7, "cache_read_input_tokens": 100, "output_tokens": 4},
}
OUTPUT_TEXT = {"type": "output_text", "text": "refunds", "annotations": [], "logprobs": []}
RESPONSE = {
    "id": "resp_1",
    "object": "response",
    "status": "completed",
    "model": "m-1",
    "output": [
        {"id": "rs_1", "type": "reasoning", "summary": []},
        {"id": "fc_1", "type": "function_call", "call_id": "c", "name": "pick", "arguments": "{}"},
        {"id": "msg_1", "type": "message", "status": "completed", "content": [OUTPUT_TEXT]},
    ],
    "usage": {"input_tokens": 7, "output_tokens": 4, "input_tokens_details": {"cached_tokens": 3}},
}
ANTHROPIC = {"provider": "anthropic", "model": "claude-x"}


@pytest.fixture
def served(make_gateway: MakeGateway, tmp_path: Path) -> GatewayUnderTest:
    served = make_gateway(cassettes=tmp_path)
    served.environ["ANTHROPIC_BASE_URL"] = served.environ["OPENAI_BASE_URL"]
    served.environ["ANTHROPIC_API_KEY"] = KEY
    return served


def message_body(**more: Any) -> dict[str, Any]:
    return {"model": "app", "max_tokens": 9, "messages": [{"role": "user", "content": "my query"}], **more}


def post(served: GatewayUnderTest, rollout: Any, path: str, body: Any, **more: Any) -> Any:
    return served.post(f"{rollout.inference_url}/{path}", body, **more)


@pytest.mark.parametrize("path", ["v1/messages", "messages"])
def test_the_messages_api_is_substituted_forwarded_and_counted(served: GatewayUnderTest, path: str) -> None:
    served.provider.script = [MESSAGE]
    rollout = served.open(ANTHROPIC, prompt="the test's")
    headers = {"anthropic-version": "2023-06-01", "x-api-key": "the app's", "x-other": "stays here"}
    answer = post(served, rollout, path, message_body(system="the app's"), headers=headers)
    assert answer.json() == MESSAGE
    (seen,) = served.provider.seen
    assert seen.path == "/v1/messages"
    assert seen.body == message_body(system="the test's") | {"model": "claude-x"}
    assert (seen.headers["x-api-key"], seen.headers["anthropic-version"]) == (KEY, "2023-06-01")
    assert "authorization" not in seen.headers
    assert "x-other" not in seen.headers
    use = served.gateway.close_rollout(rollout)
    assert (use.prompt_applied, use.query, use.answer) == (True, "my query", "refunds")
    assert (use.calls[0].prompt_tokens, use.calls[0].completion_tokens) == (107, 4)
    assert use.calls[0].operation == "messages"


@pytest.mark.parametrize(
    ("system", "sent"),
    [
        pytest.param(None, "P", id="none"),
        pytest.param("app", "P", id="text"),
        pytest.param(
            [
                {"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}},
                {"type": "text", "text": "b"},
            ],
            [{"type": "text", "text": "P", "cache_control": {"type": "ephemeral"}}],
            id="blocks",
        ),
    ],
)
def test_the_system_message_of_the_messages_api(system: Any, sent: Any) -> None:
    body = message_body() if system is None else message_body(system=system)
    assert messages.with_system(body, "P")["system"] == sent


def test_tool_results_are_not_the_users_query() -> None:
    body = message_body()
    body["messages"] += [
        {"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "n", "input": {}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": "42"}]},
    ]
    assert messages.user_texts(body) == ["my query", None]


def test_the_responses_api_is_substituted_forwarded_and_counted(served: GatewayUnderTest) -> None:
    served.provider.script = [RESPONSE]
    rollout = served.open({"provider": "openai", "model": "m-1", "max_tokens": 50}, prompt="the test's")
    answer = post(
        served, rollout, "responses", {"model": "app", "input": "my query", "instructions": "the app's"}
    )
    assert answer.json() == RESPONSE
    (seen,) = served.provider.seen
    assert seen.path == "/v1/responses"
    assert seen.body == {
        "model": "m-1", "input": "my query", "instructions": "the test's", "max_output_tokens": 50,
    }  # fmt: skip
    use = served.gateway.close_rollout(rollout)
    assert (use.tokens, use.query, use.answer, use.prompt_applied) == (11, "my query", "refunds", True)


@pytest.mark.parametrize(
    ("body", "sent"),
    [
        pytest.param({"input": "q"}, {"input": "q", "instructions": "P"}, id="none"),
        pytest.param(
            {"input": "q", "instructions": "a"}, {"input": "q", "instructions": "P"}, id="instructions"
        ),
        pytest.param(
            {"input": [{"role": "developer", "content": "a"}, {"role": "user", "content": "q"}]},
            {"input": [{"role": "developer", "content": "P"}, {"role": "user", "content": "q"}]},
            id="developer",
        ),
    ],
)
def test_the_system_message_of_the_responses_api(body: dict[str, Any], sent: dict[str, Any]) -> None:
    assert responses.with_system(body, "P") == sent
    assert responses.system_text(sent) == "P"


def test_a_background_response_is_refused(served: GatewayUnderTest) -> None:
    answer = post(served, served.open(), "responses", {"input": "q", "background": True})
    assert answer.status_code == 400
    assert answer.json()["error"]["message"].startswith("'background' is not served: ")


@pytest.mark.parametrize(
    ("policy", "path", "body", "message"),
    [
        (
            {"provider": "openai", "model": "m"},
            "v1/messages",
            message_body(),
            "provider 'openai' does not speak /messages; it speaks /chat/completions and /responses",
        ),
        (
            ANTHROPIC,
            "responses",
            {"input": "q"},
            "provider 'anthropic' does not speak /responses; it speaks /chat/completions and /messages",
        ),
        (
            {},
            "responses",
            {"input": "q"},
            "provider 'offline' does not speak /responses; it speaks /chat/completions",
        ),
    ],
)
def test_a_provider_without_an_api_is_named(
    served: GatewayUnderTest, policy: Any, path: str, body: Any, message: str
) -> None:
    answer = post(served, served.open(policy), path, body)
    assert (answer.status_code, answer.json()["error"]["message"]) == (400, message)


def test_errors_of_the_messages_api_have_its_shape(served: GatewayUnderTest) -> None:
    served.provider.script = [
        (404, {}, json.dumps({"type": "error", "error": {"type": "not_found_error", "message": "no model"}}))
    ]
    answer = post(served, served.open(ANTHROPIC), "v1/messages", message_body())
    assert answer.json() == {
        "type": "error",
        "error": {"type": "not_found_error", "message": "anthropic answered 404: no model"},
    }


def events(text: str) -> list[dict[str, Any]]:
    values = [json_of(event.encode()) for event in text.split("\n\n") if event]
    return [value for value in values if value is not None]


@pytest.mark.parametrize(
    ("dialect", "response"), [(messages, MESSAGE), (responses, RESPONSE)], ids=["messages", "responses"]
)
def test_an_answer_taken_apart_and_put_together_is_the_same(dialect: Any, response: dict[str, Any]) -> None:
    assembler = dialect.assembler()
    for event in dialect.events_of(response, usage=True):
        assert not assembler.is_complete
        value = json_of(event)
        assert value is not None
        assert event.startswith(f"event: {value['type']}\n".encode())
        assembler.feed(value)
    assert assembler.response == response
    assert assembler.is_complete


@pytest.mark.parametrize(
    ("policy", "path", "body", "dialect", "response"),
    [
        pytest.param(ANTHROPIC, "v1/messages", message_body(stream=True), messages, MESSAGE, id="messages"),
        pytest.param(
            None, "responses", {"input": "my query", "stream": True}, responses, RESPONSE, id="responses"
        ),
    ],
)
def test_streams_are_passed_on_recorded_and_replayed(
    served: GatewayUnderTest, policy: Any, path: str, body: Any, dialect: Any, response: dict[str, Any]
) -> None:
    sent = list(dialect.events_of(response, usage=True))
    served.provider.script = [sent]
    got = []
    for mode in ("new_episodes", "none"):
        rollout = served.open(policy, cassette="cassettes/c.jsonl", record_mode=mode)
        got.append(post(served, rollout, path, body).text)
        use = served.gateway.close_rollout(rollout)
        assert (use.answer, use.calls[0].response, use.failure) == ("refunds", response, None)
    assert got[0] == got[1] == b"".join(sent).decode()
    assert len(served.provider.seen) == 1
    assert "stream_options" not in served.provider.seen[0].body


def test_a_broken_stream_of_the_messages_api_ends_with_its_error_event(served: GatewayUnderTest) -> None:
    served.provider.script = [list(messages.events_of(MESSAGE, usage=True))[:4]]
    rollout = served.open(ANTHROPIC)
    text = post(served, rollout, "v1/messages", message_body(stream=True)).text
    assert text.split("\n\n")[-2].startswith("event: error\n")
    assert events(text)[-1]["error"] == {
        "type": "api_error", "message": "anthropic ended the stream before its end",
    }  # fmt: skip


def test_an_error_event_in_a_stream_is_the_calls_failure(served: GatewayUnderTest) -> None:
    overloaded = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
    served.provider.script = [[b"event: error\ndata: " + json.dumps(overloaded).encode() + b"\n\n"]]
    rollout = served.open(ANTHROPIC)
    post(served, rollout, "v1/messages", message_body(stream=True))
    use = served.gateway.close_rollout(rollout)
    assert use.failure is not None
    assert use.failure.message == "anthropic broke off: Overloaded"
    assert use.is_cut_off
