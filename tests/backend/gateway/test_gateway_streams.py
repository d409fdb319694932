"""Streams: passed on as they come, put together for the record."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest
from fakes.gateway_server import GatewayUnderTest, chat
from fakes.model_provider import completion, events
from starlette.requests import Request
from starlette.responses import StreamingResponse

from pytest_synth.backend.gateway import Patience
from pytest_synth.backend.gateway.chat import ChunkAssembler, chunks_of
from pytest_synth.backend.gateway.sse import EventCutter

FRAME = {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "fake-1"}
USAGE = {"prompt_tokens": 7, "completion_tokens": 4, "total_tokens": 11}


def chunk(delta: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {**FRAME, "choices": [{"index": 0, "delta": delta, "finish_reason": None, **more}]}


TEXT_CHUNKS = [
    chunk({"role": "assistant", "content": ""}),
    chunk({"content": "re"}),
    chunk({"content": "funds"}),
    chunk({}, finish_reason="stop"),
    {**FRAME, "choices": [], "usage": USAGE},
]


def read(served: GatewayUnderTest, rollout: Any, body: dict[str, Any]) -> list[str]:
    answer = served.post(rollout, body)
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/event-stream")
    return [line[6:] for line in answer.text.split("\n") if line.startswith("data: ")]


def test_a_stream_is_passed_on_and_its_usage_counted(served: GatewayUnderTest) -> None:
    served.provider.script = [events(*TEXT_CHUNKS)]
    rollout = served.open()
    lines = read(served, rollout, chat(stream=True))
    assert served.provider.seen[0].body["stream_options"] == {"include_usage": True}
    assert [json.loads(line) for line in lines[:-1]] == TEXT_CHUNKS[:-1]
    assert lines[-1] == "[DONE]"
    use = served.gateway.close_rollout(rollout)
    assert (use.tokens, use.answer) == (11, "refunds")
    assert use.calls[0].response == {
        **FRAME,
        "object": "chat.completion",
        "choices": [choice({"content": "refunds"}, finish_reason="stop")],
        "usage": USAGE,
    }


def test_the_usage_chunk_is_passed_on_to_a_caller_who_asked_for_it(served: GatewayUnderTest) -> None:
    served.provider.script = [events(*TEXT_CHUNKS)]
    lines = read(served, served.open(), chat(stream=True, stream_options={"include_usage": True}))
    assert json.loads(lines[-2]) == TEXT_CHUNKS[-1]


def test_each_event_is_passed_on_at_once(served: GatewayUnderTest) -> None:
    gate = asyncio.Event()

    async def slow(request: Request) -> StreamingResponse:
        async def body() -> AsyncIterator[bytes]:
            first, *rest = events(*TEXT_CHUNKS)
            yield first
            await asyncio.wait_for(gate.wait(), 10)
            for event in rest:
                yield event

        return StreamingResponse(body(), media_type="text/event-stream")

    served.provider.script = [slow]
    url = f"{served.open().inference_url}/chat/completions"
    with (
        httpx.Client(trust_env=False) as client,
        client.stream("POST", url, json=chat(stream=True)) as answer,
    ):
        lines = answer.iter_lines()
        assert json.loads(next(lines)[6:]) == TEXT_CHUNKS[0]  # while the provider still holds the rest
        served.provider_stage.call(gate.set)
        assert [line for line in lines if line][-1] == "data: [DONE]"


def test_a_stream_that_is_cut_ends_with_an_error_event(served: GatewayUnderTest) -> None:
    async def broken(request: Request) -> StreamingResponse:
        async def body() -> AsyncIterator[bytes]:
            yield events(*TEXT_CHUNKS)[0]
            raise ConnectionAbortedError

        return StreamingResponse(body(), media_type="text/event-stream")

    served.provider.script = [broken]
    rollout = served.open()
    lines = read(served, rollout, chat(stream=True))
    assert json.loads(lines[-1])["error"]["message"].startswith("openai at http://127.0.0.1:")
    use = served.gateway.close_rollout(rollout)
    assert " broke its answer off: " in (use.calls[0].error or "")
    assert use.is_cut_off


def test_an_error_before_the_stream_keeps_its_status(served: GatewayUnderTest) -> None:
    served.provider.script = [(503, {}, "x"), (400, {}, "bad")]
    answer = served.post(served.open(), chat(stream=True))
    assert (answer.status_code, answer.json()["error"]["message"]) == (400, "openai answered 400: bad")


def choice(message: dict[str, Any], index: int = 0, **more: Any) -> dict[str, Any]:
    return {"index": index, "message": {"role": "assistant", **message}, **more}


LOGPROBS = {"content": [{"token": "a", "logprob": -1.0}]}
TOOL_CALL = {"id": "call_1", "type": "function", "function": {"name": "pick", "arguments": '{"label": "x"}'}}


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(completion("refunds"), id="text"),
        pytest.param(
            completion(
                choices=[
                    choice(
                        {"content": None, "tool_calls": [TOOL_CALL, {**TOOL_CALL, "id": "call_2"}]},
                        finish_reason="tool_calls",
                    )
                ]
            ),
            id="tools",
        ),
        pytest.param(
            completion(
                choices=[
                    choice({"content": f"{index}"}, index, logprobs=LOGPROBS, finish_reason="stop")
                    for index in (0, 1)
                ]
            ),
            id="several-choices",
        ),
    ],
)
def test_an_answer_taken_apart_and_put_together_is_the_same(answer: dict[str, Any]) -> None:
    assembler = ChunkAssembler()
    for value in chunks_of(answer, usage=True):
        assembler.feed(json.loads(json.dumps(value)))
    assert assembler.response == answer


def test_arguments_in_pieces_are_joined_for_each_call() -> None:
    def call(index: int, **function: str) -> dict[str, Any]:
        return {"index": index, "function": function}

    assembler = ChunkAssembler()
    for delta in (
        {"tool_calls": [{**call(0, name="a", arguments=""), "id": "1"}]},
        {"tool_calls": [call(0, arguments='{"x":'), {**call(1, name="b", arguments="{"), "id": "2"}]},
        {"tool_calls": [call(1, arguments="}"), call(0, arguments="1}")]},
    ):
        assembler.feed(chunk(delta))
    assert assembler.response is not None
    assert assembler.response["choices"][0]["message"]["tool_calls"] == [
        {"function": {"name": "a", "arguments": '{"x":1}'}, "id": "1"},
        {"function": {"name": "b", "arguments": "{}"}, "id": "2"},
    ]


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
@pytest.mark.parametrize("end", [b"\n\n", b"\r\n\r\n"], ids=["lf", "crlf"])
def test_events_are_cut_wherever_the_chunks_end(size: int, end: bytes) -> None:
    whole = [b"data: {}" + end, b": comment" + end, "data: é".encode() + end]
    text = b"".join(whole) + b"data: rest"
    cutter = EventCutter()
    got = [event for at in range(0, len(text), size) for event in cutter.feed(text[at : at + size])]
    assert (got, cutter.rest) == (whole, b"data: rest")


def test_closing_a_rollout_cuts_its_calls(served: GatewayUnderTest) -> None:
    rollout = served.open()

    async def hang(request: Request) -> StreamingResponse:
        served.stage.call(served.gateway.close_rollout, rollout)
        await asyncio.sleep(30)
        raise AssertionError

    served.provider.script = [hang]
    answer = served.post(rollout)
    assert (answer.status_code, answer.json()["error"]["message"]) == (
        404,
        "the rollout of this call is over",
    )


def test_an_answer_to_a_stream_that_is_none_is_taken_apart(served: GatewayUnderTest) -> None:
    served.provider.script = [completion("refunds")]
    rollout = served.open()
    lines = read(served, rollout, chat(stream=True))
    parts = [json.loads(line)["choices"][0]["delta"].get("content") or "" for line in lines[:-1]]
    assert ("".join(parts), lines[-1]) == ("refunds", "[DONE]")
    use = served.gateway.close_rollout(rollout)
    assert (use.tokens, use.answer, use.failure) == (11, "refunds", None)


@pytest.mark.parametrize(
    ("answer", "status", "said"),
    [
        ({"error": {"message": "no credit", "code": 402}}, 402, "openai answered: no credit"),
        ({"choices": 5}, 502, "openai answered with what /chat/completions does not know: '{\"choices\":5}'"),
        (
            (200, {"content-type": "text/html"}, "<p>hi</p>"),
            502,
            "openai answered 200 with no JSON: '<p>hi</p>'",
        ),
    ],
)
def test_an_error_in_place_of_a_stream_is_told(
    served: GatewayUnderTest, answer: Any, status: int, said: str
) -> None:
    served.provider.script = [answer]
    rollout = served.open()
    got = served.post(rollout, chat(stream=True))
    assert (got.status_code, got.json()["error"]["message"]) == (status, said)
    use = served.gateway.close_rollout(rollout)
    assert use.failure is not None
    assert not use.is_cut_off


def test_an_event_of_another_form_ends_the_stream_with_an_error(served: GatewayUnderTest) -> None:
    served.provider.script = [events(TEXT_CHUNKS[0], {"choices": [5]})]
    rollout = served.open()
    lines = read(served, rollout, chat(stream=True))
    said = "openai answered with what /chat/completions does not know: 'data: {\"choices\": [5]}\\n\\n'"
    assert json.loads(lines[-1])["error"]["message"] == said
    assert [call.error for call in served.gateway.close_rollout(rollout).calls] == [said]


def test_a_stream_that_falls_silent_is_cut(make_gateway: Callable[..., GatewayUnderTest]) -> None:
    served = make_gateway(patience=Patience(first_byte_s=30, read_s=0.05))

    async def silent(request: Request) -> StreamingResponse:
        async def body() -> AsyncIterator[bytes]:
            yield events(*TEXT_CHUNKS)[0]
            await asyncio.sleep(30)

        return StreamingResponse(body(), media_type="text/event-stream")

    served.provider.script = [silent]
    lines = read(served, served.open(), chat(stream=True))
    message = json.loads(lines[-1])["error"]["message"]
    assert message.endswith(" began its answer and then sent nothing for 0.05 s")
