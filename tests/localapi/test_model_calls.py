"""What `llm` sends to the model, what it makes of the answer, over a real server."""

from __future__ import annotations

import asyncio
import gc
import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

import aiohttp
import pytest
from fakes.model_provider import FakeProvider, completion
from fakes.task_caller import KEY, TaskCaller, rollout_body
from starlette.requests import Request

from pytest_synth._serving import ServerThread, bind_loopback
from pytest_synth.errors import ModelCallError
from pytest_synth.localapi import LLM, AsyncLLM, task_app

MESSAGES = [{"role": "system", "content": "be terse"}, {"role": "user", "content": "hello"}]


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[FakeProvider, str]]:
    provider = FakeProvider()
    with ServerThread(provider.app, name="provider") as server:
        yield provider, server.url


@pytest.fixture
def provider(served: tuple[FakeProvider, str]) -> Iterator[FakeProvider]:
    provider, _ = served
    yield provider
    provider.script.clear()
    provider.seen.clear()


@pytest.fixture
def base(served: tuple[FakeProvider, str], provider: FakeProvider) -> str:
    return f"{served[1]}/api/interceptor/v1/trial_1/trace_1"


@pytest.fixture(params=["async def", "def"])
def ask(request: pytest.FixtureRequest, base: str) -> Callable[..., Any]:
    """Makes one model call in a rollout, from either kind of function; returns what `read` makes of it."""

    def make(read: Callable[[Any], Any] = lambda reply: reply.text, /, **parameters: Any) -> Any:
        policy = parameters.pop("policy", {})
        asynchronous, blocking = _functions(read, parameters)
        run: Any = asynchronous if request.param == "async def" else blocking
        app = task_app(rows=["row"], run=run, score=lambda row, answer: 1)
        reply = TaskCaller(app).rollout(policy={"inference_url": base, **policy})
        document = reply.json()
        if reply.status_code != 200:
            return document["detail"]["error"]
        return document["reward_info"]["details"]["predicted"]

    return make


def _functions(read: Callable[[Any], Any], parameters: dict[str, Any]) -> tuple[Any, Any]:
    async def asynchronous(row: str, llm: AsyncLLM) -> Any:
        return read(await llm.chat(MESSAGES, **parameters))

    def blocking(row: str, llm: LLM) -> Any:
        return read(llm.chat(MESSAGES, **parameters))

    return asynchronous, blocking


def test_a_call_goes_to_the_inference_url_with_the_policys_parameters(
    ask: Callable[..., Any], provider: FakeProvider
) -> None:
    policy = {"model": "m-2", "temperature": 0.0, "max_completion_tokens": 9, "provider": "p", "top_p": None}
    assert ask(policy=policy) == "ok"
    (seen,) = provider.seen
    assert seen.path == "/api/interceptor/v1/trial_1/trace_1/chat/completions"
    assert seen.body == {
        "model": "m-2",
        "temperature": 0.0,
        "max_completion_tokens": 9,
        "messages": MESSAGES,
    }
    assert seen.headers["content-type"] == "application/json"
    assert "x-api-key" not in seen.headers
    assert "authorization" not in seen.headers


def test_the_query_of_the_inference_url_is_kept(
    ask: Callable[..., Any], provider: FakeProvider, base: str
) -> None:
    urls: list[str] = []

    async def answer(request: Request) -> Any:
        urls.append(str(request.url))
        return completion()

    provider.script.append(answer)
    ask(policy={"inference_url": f"{base}?cid=trace_1"})
    assert urls == [f"{base}/chat/completions?cid=trace_1"]


def test_what_a_call_names_itself_goes_before_the_policy(
    ask: Callable[..., Any], provider: FakeProvider
) -> None:
    tools = [{"type": "function", "function": {"name": "classify", "parameters": {}}}]
    more = {
        "tools": tools,
        "tool_choice": {"type": "function", "function": {"name": "classify"}},
        "response_format": {"type": "json_object"},
        "temperature": 1.0,
        "max_tokens": 5,
        "logprobs": True,
    }
    ask(policy={"temperature": 0.0, "max_completion_tokens": 9}, **more)
    assert provider.seen[0].body == {"model": "m-1", "messages": MESSAGES, **more}


def test_the_callers_own_key_is_shown_to_the_gateway(ask: Callable[..., Any], provider: FakeProvider) -> None:
    ask(policy={"api_key": "sk-callers-own-key"})
    assert provider.seen[0].headers["x-api-key"] == "sk-callers-own-key"


def called(*arguments: Any) -> dict[str, Any]:
    calls = [
        {"id": f"call_{n}", "type": "function", "function": {"name": "classify", "arguments": text}}
        for n, text in enumerate(arguments)
    ]
    message = {"role": "assistant", "content": None, "tool_calls": calls}
    return completion(choices=[{"index": 0, "message": message, "finish_reason": "tool_calls"}])


@pytest.mark.parametrize(
    ("answer", "read", "seen"),
    [
        pytest.param(completion("hi"), lambda r: r.text, "hi", id="text"),
        pytest.param(
            completion(choices=[{"message": {"content": [{"type": "text", "text": "a"}, {"text": "b"}]}}]),
            lambda r: r.text,
            "ab",
            id="text in parts",
        ),
        pytest.param(called("{}"), lambda r: r.text, "", id="no text"),
        pytest.param(completion("hi"), lambda r: r.tool_call, None, id="no tool call"),
        pytest.param(
            called('{"intent": "refund"}', '{"intent": "other"}'),
            lambda r: [r.tool_call.name, r.tool_call.id, r.tool_call.arguments],
            ["classify", "call_0", {"intent": "refund"}],
            id="first tool call",
        ),
        pytest.param(
            called('{"intent": 1}', {"intent": 2}, ""),
            lambda r: [call.arguments for call in r.tool_calls],
            [{"intent": 1}, {"intent": 2}, {}],
            id="all tool calls",
        ),
        pytest.param(completion('{"a": [1]}'), lambda r: r.parsed, {"a": [1]}, id="JSON"),
        pytest.param(completion('```json\n{"a": 1}\n```'), lambda r: r.parsed, {"a": 1}, id="fenced JSON"),
        pytest.param(completion("hi"), lambda r: r.usage["total_tokens"], 11, id="usage"),
        pytest.param(completion("hi", usage=None), lambda r: r.usage, {}, id="no usage"),
        pytest.param(completion("hi"), lambda r: r.raw["model"], "fake-1", id="raw"),
    ],
)
def test_a_reply_is_ready_to_use(
    ask: Callable[..., Any], provider: FakeProvider, answer: Any, read: Callable[[Any], Any], seen: Any
) -> None:
    provider.script.append(answer)
    assert ask(read) == seen


@pytest.mark.parametrize(
    ("answer", "read", "message"),
    [
        (completion("Sorry, no"), lambda r: r.parsed, "the model's answer is no JSON: 'Sorry, no'"),
        (
            called('{"intent": "re'),
            lambda r: r.tool_call.arguments,
            "the arguments of the tool call 'classify' are no JSON: '{\"intent\": \"re'",
        ),
        (
            called("[1]"),
            lambda r: r.tool_call.arguments,
            "the arguments of the tool call 'classify' are no JSON object: '[1]'",
        ),
    ],
)
def test_an_answer_that_is_not_what_was_asked_for_is_quoted(
    ask: Callable[..., Any], provider: FakeProvider, answer: Any, read: Callable[[Any], Any], message: str
) -> None:
    provider.script.append(answer)
    assert ask(read)["message"].startswith(f"ModelAnswerError: {message} (")


def error(status: int, body: Any) -> Any:
    return status, {"Content-Type": "application/json"}, body if isinstance(body, str) else json.dumps(body)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (error(429, {"error": {"message": "slow down"}}), "model call failed with 429: slow down"),
        (error(404, {"error": "unknown trial"}), "model call failed with 404: unknown trial"),
        (error(404, {"detail": "Not Found"}), "model call failed with 404: Not Found"),
        (error(400, {"detail": {"error": {"code": "x", "message": "no"}}}), "model call failed with 400: no"),
        (
            error(422, {"detail": [{"msg": "bad"}]}),
            'model call failed with 422: {"detail": [{"msg": "bad"}]}',
        ),
        (error(502, "<html>Bad gateway</html>"), "model call failed with 502: <html>Bad gateway</html>"),
        (error(500, ""), "model call failed with 500: no message"),
        ((307, {"Location": "/elsewhere"}, ""), "model call failed with 307: no message"),
        (error(200, "oops"), "model call failed: the answer is no JSON: 'oops'"),
        (error(200, {"choices": []}), "model call failed: the answer has no choices[0].message: "),
        (error(200, [1]), "model call failed: the answer has no choices[0].message: '[1]'"),
    ],
)
def test_a_call_that_fails_says_what_the_gateway_said(
    ask: Callable[..., Any], provider: FakeProvider, answer: Any, message: str
) -> None:
    provider.script.append(answer)
    failure = ask()
    assert failure["code"] == "rollout_failed"
    assert failure["message"].startswith(f"ModelCallError: {message}")
    assert failure["exception"] == "ModelCallError"
    assert "test_model_calls.py:" in failure["place"]
    assert len(provider.seen) == 1


def test_a_failed_call_can_be_caught_and_has_its_status(base: str, provider: FakeProvider) -> None:
    provider.script.append(error(429, {"error": {"message": "slow down"}}))

    async def run(row: str, llm: AsyncLLM) -> list[Any]:
        try:
            await llm.chat(MESSAGES)
        except ModelCallError as failure:
            return [failure.status_code, (await llm.chat(MESSAGES)).text]
        return []

    app = task_app(rows=["row"], run=run, score=lambda row, answer: answer == [429, "ok"])
    reply = TaskCaller(app).rollout(policy={"inference_url": base})
    assert reply.json()["reward_info"]["outcome_reward"] == 1.0


def test_a_gateway_that_is_not_there_is_named_without_its_path(ask: Callable[..., Any]) -> None:
    sock = bind_loopback()
    port = sock.getsockname()[1]
    sock.close()
    message = ask(policy={"inference_url": f"http://127.0.0.1:{port}/v1/secret-trial"})["message"]
    assert message.startswith(
        f"ModelCallError: model call failed: no answer from http://127.0.0.1:{port}: Client"
    )
    assert "secret-trial" not in message


def test_a_call_ends_with_the_rollouts_time(base: str, provider: FakeProvider) -> None:
    async def slow(request: Request) -> Any:
        while not await request.is_disconnected():
            await asyncio.sleep(0.01)
        return completion()

    async def run(row: str, llm: AsyncLLM) -> str:
        return (await llm.chat(MESSAGES)).text

    provider.script.append(slow)
    app = task_app(rows=["row"], run=run, score=lambda row, answer: 1)
    refused = TaskCaller(app).refused(policy={"inference_url": base}, safety={"max_time_s": 0.05})
    origin = base.partition("/api")[0]
    assert refused[2].startswith(f"ModelCallError: model call failed: no answer from {origin} in time (")


@pytest.mark.parametrize(
    ("policy", "parameters", "message"),
    [
        ({"inference_url": None}, {}, "policy.config has no inference_url: the caller must say where"),
        ({"inference_url": "model"}, {}, "inference_url is 'model', not an http or https URL"),
        ({"model": None}, {}, "no model: neither policy.config nor the call names one"),
        ({}, {"stream": True}, "llm.chat gives whole answers and cannot stream; leave stream=True out"),
    ],
)
def test_a_call_that_cannot_be_made_says_why(
    ask: Callable[..., Any], policy: dict[str, Any], parameters: dict[str, Any], message: str
) -> None:
    assert ask(policy=policy, **parameters)["message"].startswith(f"ConfigError: {message}")


def test_a_plain_function_that_gives_a_coroutine_is_told_apart(base: str) -> None:
    async def inner(row: str, llm: Any) -> Any:
        return await llm.chat(MESSAGES)

    app = task_app(rows=["row"], run=lambda row, llm: inner(row, llm), score=lambda row, answer: 1)
    message = TaskCaller(app).refused(policy={"inference_url": base})[2]
    assert message.startswith(
        "RuntimeError: run gave a coroutine but is no async def, so its llm blocks; make it"
    )


def test_the_policy_can_be_read(base: str) -> None:
    app = task_app(rows=["row"], run=lambda row, llm: llm.policy["style"], score=lambda row, answer: 1)
    reply = TaskCaller(app).rollout(policy={"style": "terse"})
    assert reply.json()["reward_info"]["details"]["predicted"] == "terse"


def test_all_rollouts_share_one_session_that_ends_with_the_app(
    base: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[aiohttp.ClientSession] = []
    original = aiohttp.ClientSession

    def session(*args: Any, **kwargs: Any) -> aiohttp.ClientSession:
        made.append(original(*args, **kwargs))
        return made[-1]

    monkeypatch.setattr(aiohttp, "ClientSession", session)

    async def run(row: str, llm: AsyncLLM) -> str:
        return (await llm.chat(MESSAGES)).text

    async def post_all(url: str) -> list[int]:
        async with original(connector=aiohttp.TCPConnector(limit=0)) as client:

            async def post(_: int) -> int:
                body = rollout_body(policy={"inference_url": base})
                async with client.post(f"{url}/rollout", json=body, headers={"X-API-Key": KEY}) as reply:
                    return reply.status

            return await asyncio.gather(*map(post, range(20)))

    with ServerThread(task_app(rows=["row"], run=run, score=lambda row, answer: 1)) as server:
        assert asyncio.run(post_all(server.url)) == [200] * 20
        assert [entry.closed for entry in made] == [False]
    assert [entry.closed for entry in made] == [True]


@pytest.mark.parametrize("blocking", [False, True], ids=["async def", "def"])
def test_an_app_without_lifespan_leaves_nothing_open(base: str, blocking: bool) -> None:
    asynchronous, plain = _functions(lambda reply: reply.text, {})
    app = task_app(rows=["row"], run=plain if blocking else asynchronous, score=lambda row, answer: 1)
    caller = TaskCaller(app, lifespan=False)
    before = set(threading.enumerate())
    for _ in range(2):
        assert caller.rollout(policy={"inference_url": base}).status_code == 200
    gc.collect()  # would warn of a session that is still open
    assert [
        thread.name
        for thread in set(threading.enumerate()) - before
        if thread.name.startswith(("synth", "asyncio"))
    ] == []
