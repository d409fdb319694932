"""The official `openai` and `anthropic` clients, unmodified, with an inference URL as their base URL.

Run in an environment of its own, as these packages are no dependency:

    python -m venv sdk && sdk/bin/pip install -e . openai anthropic
    sdk/bin/python tests/sdk/official_clients.py

Every scene runs twice: recorded against a provider on loopback, then replayed with that provider stopped and
no key set. It prints one line for each scene, and ends with status 1 if one fails.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import traceback
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import anthropic
import openai
from fakes.gateway_server import Stage
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from pytest_synth._serving import ServerThread
from pytest_synth.backend.gateway import Gateway, RolloutSpec, RolloutUse
from pytest_synth.backend.gateway.plans import DIALECTS
from pytest_synth.prompts import Prompt

QUERY = [{"role": "user", "content": "where is my money"}]
SYSTEM = "You sort queries into intents."
PARAMETERS = {"type": "object", "properties": {"label": {"type": "string"}}, "required": ["label"]}
CHAT_TOOL = {"type": "function", "function": {"name": "pick", "parameters": PARAMETERS}}
RESPONSES_TOOL = {"type": "function", "name": "pick", "parameters": PARAMETERS, "strict": False}
MESSAGES_TOOL = {"name": "pick", "input_schema": PARAMETERS}
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
OPENAI = {"provider": "openai", "model": "gpt-4.1-nano"}
ANTHROPIC = {"provider": "anthropic", "model": "claude-sonnet-4-5"}


def chat_answer(body: Mapping[str, Any]) -> dict[str, Any]:
    call = {
        "id": "call_1",
        "type": "function",
        "function": {"name": "pick", "arguments": '{"label": "refund"}'},
    }
    message = {"content": None, "tool_calls": [call]} if body.get("tools") else {"content": "refund"}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": body["model"],
        "choices": [
            {
                "index": index,
                "message": {"role": "assistant", **message},
                "finish_reason": "tool_calls" if body.get("tools") else "stop",
                "logprobs": None,
            }
            for index in range(body.get("n") or 1)
        ],
        "usage": {"prompt_tokens": 7, "completion_tokens": 4, "total_tokens": 11},
    }


def responses_answer(body: Mapping[str, Any]) -> dict[str, Any]:
    text = {"type": "output_text", "text": "refund", "annotations": [], "logprobs": []}
    message = {
        "id": "msg_1",
        "type": "message",
        "status": "completed",
        "role": "assistant",
        "content": [text],
    }
    call = {
        "id": "fc_1",
        "type": "function_call",
        "status": "completed",
        "call_id": "call_1",
        "name": "pick",
        "arguments": '{"label": "refund"}',
    }
    return {
        "id": "resp_1",
        "object": "response",
        "created_at": 1,
        "status": "completed",
        "model": body["model"],
        "output": [call if body.get("tools") else message],
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": body.get("tools") or [],
        "usage": {
            "input_tokens": 7,
            "output_tokens": 4,
            "total_tokens": 11,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens_details": {"reasoning_tokens": 0},
        },
    }


def messages_answer(body: Mapping[str, Any]) -> dict[str, Any]:
    tool = {"type": "tool_use", "id": "toolu_1", "name": "pick", "input": {"label": "refund"}}
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": body["model"],
        "content": [tool] if body.get("tools") else [{"type": "text", "text": "refund"}],
        "stop_reason": "tool_use" if body.get("tools") else "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": 7, "output_tokens": 4},
    }


ANSWERS = {"chat/completions": chat_answer, "responses": responses_answer, "messages": messages_answer}


async def provider(request: Request) -> Response:
    """Answers all three APIs, as a stream where one is asked for; refuses what holds no system message."""
    body = await request.json()
    operation = request.path_params["operation"]
    if DIALECTS[operation].system_text(body) != SYSTEM:
        return JSONResponse({"error": {"message": "the prompt under test did not arrive"}}, 400)
    answer = ANSWERS[operation](body)
    if not body.get("stream"):
        return JSONResponse(answer)

    async def events() -> AsyncIterator[bytes]:
        for event in DIALECTS[operation].events_of(answer, usage=True):
            yield event

    return StreamingResponse(events(), media_type="text/event-stream")


def chat_text(url: str) -> None:
    with openai.OpenAI(base_url=url, api_key="unused") as client:
        answer = client.chat.completions.create(model="app", messages=QUERY, n=2, temperature=0)
    assert [choice.message.content for choice in answer.choices] == ["refund", "refund"]
    assert answer.usage.total_tokens == 11


def chat_stream(url: str) -> None:
    with openai.OpenAI(base_url=url, api_key="unused") as client:
        stream = client.chat.completions.create(
            model="app", messages=QUERY, stream=True, stream_options={"include_usage": True}
        )
        chunks = list(stream)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == "refund"
    assert chunks[-1].usage.total_tokens == 11


def chat_tools_streamed(url: str) -> None:
    with (
        openai.OpenAI(base_url=url, api_key="unused") as client,
        client.chat.completions.stream(model="app", messages=QUERY, tools=[CHAT_TOOL]) as stream,
    ):
        for _ in stream:
            pass
        call = stream.get_final_completion().choices[0].message.tool_calls[0]
    assert (call.id, call.function.name, call.function.arguments) == ("call_1", "pick", '{"label": "refund"}')


def chat_image(url: str) -> None:
    content = [{"type": "text", "text": "what is this"}, IMAGE]
    with openai.OpenAI(base_url=url, api_key="unused") as client:
        answer = client.chat.completions.create(model="app", messages=[{"role": "user", "content": content}])
    assert answer.choices[0].message.content == "refund"


def chat_async(url: str) -> None:
    async def run() -> None:
        async with openai.AsyncOpenAI(base_url=url, api_key="unused") as client:
            answer = await client.chat.completions.create(model="app", messages=QUERY, tools=[CHAT_TOOL])
            assert answer.choices[0].message.tool_calls[0].function.arguments == '{"label": "refund"}'
            stream = await client.chat.completions.create(model="app", messages=QUERY, stream=True)
            texts = [chunk.choices[0].delta.content or "" async for chunk in stream]
            assert "".join(texts) == "refund"

    asyncio.run(run())


def responses_text(url: str) -> None:
    with openai.OpenAI(base_url=url, api_key="unused") as client:
        answer = client.responses.create(model="app", input="where is my money", instructions="the app's")
    assert (answer.output_text, answer.usage.total_tokens) == ("refund", 11)


def responses_streamed(url: str) -> None:
    with openai.OpenAI(base_url=url, api_key="unused") as client:
        with client.responses.stream(model="app", input="where is my money") as stream:
            assert (
                "".join(event.delta for event in stream if event.type == "response.output_text.delta")
                == "refund"
            )
            assert stream.get_final_response().output_text == "refund"
        with client.responses.stream(
            model="app", input="where is my money", tools=[RESPONSES_TOOL]
        ) as stream:
            for _ in stream:
                pass
            assert stream.get_final_response().output[0].arguments == '{"label": "refund"}'


def messages_text(url: str) -> None:
    with anthropic.Anthropic(base_url=url, api_key="unused") as client:
        answer = client.messages.create(model="app", max_tokens=9, messages=QUERY, system="the app's")
    assert answer.content[0].text == "refund"
    assert answer.usage.output_tokens == 4


def messages_streamed(url: str) -> None:
    with (
        anthropic.Anthropic(base_url=url, api_key="unused") as client,
        client.messages.stream(model="app", max_tokens=9, messages=QUERY) as stream,
    ):
        assert "".join(stream.text_stream) == "refund"
        assert stream.get_final_message().usage.output_tokens == 4


def messages_tools_async(url: str) -> None:
    async def run() -> None:
        async with (
            anthropic.AsyncAnthropic(base_url=url, api_key="unused") as client,
            client.messages.stream(
                model="app", max_tokens=9, messages=QUERY, tools=[MESSAGES_TOOL]
            ) as stream,
        ):
            message = await stream.get_final_message()
        assert (message.content[0].name, message.content[0].input) == ("pick", {"label": "refund"})

    asyncio.run(run())


SCENES: list[tuple[Callable[[str], None], Mapping[str, str]]] = [
    (chat_text, OPENAI),
    (chat_stream, OPENAI),
    (chat_tools_streamed, OPENAI),
    (chat_image, OPENAI),
    (chat_async, OPENAI),
    (responses_text, OPENAI),
    (responses_streamed, OPENAI),
    (messages_text, ANTHROPIC),
    (messages_streamed, ANTHROPIC),
    (messages_tools_async, ANTHROPIC),
]


@contextmanager
def gateway(root: Path, environ: Mapping[str, str]) -> Iterator[tuple[Gateway, Stage]]:
    made = Gateway(environ=environ, authorize=lambda headers: None, cassettes=root)
    stage = Stage()
    stage.app = Stage.starlette(made.routes())
    with ServerThread(stage) as server:
        made.base_url = server.url
        stage.run(made.startup())
        try:
            yield made, stage
        finally:
            stage.run(made.shutdown())


def play(made: Gateway, scene: Callable[[str], None], policy: Mapping[str, str], mode: str) -> RolloutUse:
    spec = RolloutSpec(
        "sdk",
        "local",
        None,
        0,
        0,
        policy,
        Prompt.parse(SYSTEM),
        cassette=f"cassettes/{scene.__name__}.jsonl",
        record_mode=mode,
    )
    rollout = made.open_rollout(spec)
    try:
        scene(rollout.inference_url)
    finally:
        use = made.close_rollout(rollout)
    assert use.failure is None, use.failure
    assert use.prompt_applied is True
    assert use.tokens == 11 * len(use.calls)
    return use


def main() -> int:
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        for mode in ("new_episodes", "none"):
            with ExitStack() as stack:
                environ: dict[str, str] = {}
                if mode != "none":
                    routes = [Route("/v1/{operation:path}", provider, methods=["POST"])]
                    url = stack.enter_context(ServerThread(Starlette(routes=routes))).url
                    environ = {"OPENAI_BASE_URL": f"{url}/v1", "ANTHROPIC_BASE_URL": f"{url}/v1"}
                made, _ = stack.enter_context(gateway(Path(folder), environ))
                for scene, policy in SCENES:
                    try:
                        use = play(made, scene, policy, mode)
                        assert use.replayed == (len(use.calls) if mode == "none" else 0), use.replayed
                        print(f"ok     {mode:13}{scene.__name__}")
                    except Exception:
                        failed += 1
                        print(f"FAILED {mode:13}{scene.__name__}\n{traceback.format_exc()}")
    print(f"{2 * len(SCENES) - failed} of {2 * len(SCENES)} scenes passed", end=" ")
    print(f"(openai {openai.__version__}, anthropic {anthropic.__version__})")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
