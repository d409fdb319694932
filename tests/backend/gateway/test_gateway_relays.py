"""Relayed rollouts: another backend's model calls, substituted here and answered there."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from fakes.gateway_server import GatewayUnderTest, chat
from fakes.model_provider import FakeProvider, completion, events
from starlette.requests import Request
from starlette.responses import JSONResponse

from pytest_synth._serving import ServerThread
from pytest_synth.backend import BackendSettings, start
from pytest_synth.backend.gateway import RelayUse, Rollout
from pytest_synth.backend.gateway.relays import RelayTarget
from pytest_synth.errors import ConfigError
from pytest_synth.prompts import Prompt

THERE = "/api/interceptor/v1/trial_9/trace_7/chat/completions"
KEY = "task-app-key-for-the-backend"


def relay(served: GatewayUnderTest, prompt: str | None = None, **more: Any) -> Rollout:
    url = served.provider_stage.url + more.pop("path", THERE)
    return served.gateway.open_relay(
        url,
        prompt=None if prompt is None else Prompt.parse(prompt),
        correlation_id=more.pop("correlation_id", "trace_7"),
    )


def close(served: GatewayUnderTest, rollout: Rollout) -> RelayUse:
    return RelayUse.of(served.gateway.close_rollout(rollout))


def test_a_call_goes_on_with_its_headers_and_nothing_but_the_prompt_changed(served: GatewayUnderTest) -> None:
    rollout = relay(served, "the test's")
    sent = chat(model="their-model", thinking_budget=256, temperature=0.5, tools=[{"type": "function"}])
    answer = served.post(rollout, sent, headers={"X-API-Key": KEY, "X-Extra": "1"})
    assert answer.json() == completion()
    [seen] = served.provider.seen
    assert seen.path == THERE
    system = {"role": "system", "content": "the test's"}
    assert seen.body == {**sent, "messages": [system, sent["messages"][1]]}
    assert (seen.headers["x-api-key"], seen.headers["x-extra"]) == (KEY, "1")
    assert "authorization" not in seen.headers, "no key of a provider of ours goes there"
    assert seen.headers["host"] in served.provider_stage.url


def test_the_query_of_the_other_backends_url_is_kept(served: GatewayUnderTest) -> None:
    async def show(request: Request) -> JSONResponse:
        return JSONResponse(completion(f"{request.url.path}?{request.url.query}"))

    served.provider.script = [show]
    rollout = relay(served, path="/api/interceptor/v1/trial_9/chat/completions?cid=trace_7")
    said = served.post(rollout).json()["choices"][0]["message"]["content"]
    assert said == "/api/interceptor/v1/trial_9/chat/completions?cid=trace_7"


def test_what_the_gateway_saw_is_told(served: GatewayUnderTest) -> None:
    rollout = relay(served, "P")
    served.post(rollout, chat("my card"))
    assert close(served, rollout) == RelayUse(
        calls=1,
        tokens=11,
        prompt_applied=True,
        prompt_reason=None,
        prompt_fingerprint=Prompt.parse("P").fingerprint,
        replaced_fingerprint=Prompt.parse("you are terse").fingerprint,
        query="my card",
        answer="ok",
        model_error=None,
    )


def test_without_a_prompt_the_apps_own_is_noted(served: GatewayUnderTest) -> None:
    rollout = relay(served)
    served.post(rollout)
    use = close(served, rollout)
    assert (use.prompt_applied, use.prompt_fingerprint) == (None, Prompt.parse("you are terse").fingerprint)


def test_a_rollout_without_calls_has_its_prompt_not_applied(served: GatewayUnderTest) -> None:
    use = close(served, relay(served, "P"))
    assert (use.calls, use.prompt_applied, use.model_error) == (0, False, None)
    assert use.prompt_reason == (
        "the task app made no model call at its inference_url (policy.config['inference_url'] of the rollout)"
    )


def test_a_refusal_keeps_its_status_and_shows_no_key(served: GatewayUnderTest) -> None:
    served.provider.script = [(401, {}, f'{{"error": {{"message": "key {KEY} is unknown"}}}}')]
    rollout = relay(served, "P")
    answer = served.post(rollout, headers={"Authorization": f"Bearer {KEY}"})
    assert answer.status_code == 401
    assert answer.json()["error"]["message"] == "the backend answered 401: key [key] is unknown"
    use = close(served, rollout)
    assert use.model_error == "the backend answered 401: key [key] is unknown"
    assert use.prompt_applied is False


def test_one_answer_of_two_calls_is_enough(served: GatewayUnderTest) -> None:
    served.provider.script = [(400, {}, "no")]
    rollout = relay(served, "P")
    served.post(rollout)
    served.post(rollout)
    use = close(served, rollout)
    assert (use.calls, use.model_error, use.prompt_applied) == (2, None, True)


def test_a_stream_passes_as_it_is(served: GatewayUnderTest) -> None:
    pieces = [{"choices": [{"index": 0, "delta": {"content": text}}]} for text in ("o", "k")]
    end = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
    served.provider.script = [events(*pieces, end)]
    rollout = relay(served, "P")
    answer = served.post(rollout, chat(stream=True))
    assert answer.content == b"".join(events(*pieces, end))
    assert "stream_options" not in served.provider.seen[0].body
    assert close(served, rollout).answer == "ok"


def test_a_closed_relay_answers_no_more(served: GatewayUnderTest) -> None:
    rollout = relay(served)
    served.gateway.close_rollout(rollout)
    assert served.post(rollout).status_code == 404
    assert served.provider.seen == []


@pytest.mark.parametrize(
    ("given", "in_url"),
    [
        pytest.param("trace_7", "trace_7", id="theirs"),
        pytest.param("a/b", None, id="no segment"),
        pytest.param("v1", None, id="a path's word"),
    ],
)
def test_the_other_backends_correlation_id_stands_in_the_url(
    served: GatewayUnderTest, given: str, in_url: str | None
) -> None:
    rollout = relay(served, correlation_id=given)
    last = rollout.inference_url.rpartition("/")[2]
    assert last == in_url if in_url else last.startswith("trace_")
    assert served.post(rollout).status_code == 200


def test_two_rollouts_with_one_correlation_id_stay_apart(served: GatewayUnderTest) -> None:
    first, second = relay(served, "one"), relay(served, "two")
    served.post(first)
    served.post(second)
    fingerprints = [close(served, rollout).prompt_fingerprint for rollout in (first, second)]
    assert fingerprints == [Prompt.parse(text).fingerprint for text in ("one", "two")]


@pytest.mark.parametrize(
    ("chat_url", "operation", "url"),
    [
        ("https://h/i/v1/t/c/chat/completions", "chat/completions", "https://h/i/v1/t/c/chat/completions"),
        ("https://h/i/v1/t/c/chat/completions", "responses", "https://h/i/v1/t/c/responses"),
        ("https://h/i/v1/t/c/chat/completions", "messages", "https://h/i/v1/t/c/v1/messages"),
        ("https://h/i/v1/t/chat/completions?cid=c", "responses", "https://h/i/v1/t/responses?cid=c"),
        ("http://h:1/v1/chat/completions", "messages", "http://h:1/v1/messages"),
    ],
)
def test_the_other_apis_are_beside_chat_completions(chat_url: str, operation: str, url: str) -> None:
    assert RelayTarget(chat_url).url_of(operation) == url


@pytest.mark.parametrize("url", ["ftp://h/chat/completions", "https://h/v1", "/chat/completions", ""])
def test_what_is_no_url_of_chat_completions_is_refused(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        RelayTarget(url)
    assert str(caught.value) == (
        "a relayed rollout needs the http(s) URL of its chat completions, .../chat/completions"
    )


def test_a_running_backend_relays_for_other_threads() -> None:
    provider = FakeProvider()

    async def use(url: str) -> RelayUse:
        import aiohttp

        with start(BackendSettings(environ={})) as backend:
            opened = await backend.open_relay(
                f"{url}/v1/chat/completions", prompt=Prompt.parse("P"), correlation_id="trace_1"
            )
            assert opened.inference_url.startswith(f"{backend.url}/api/interceptor/v1/")
            url = f"{opened.inference_url}/chat/completions"
            async with aiohttp.ClientSession() as http, http.post(url, json=chat()) as answer:
                assert answer.status == 200
            return await opened.close()

    with ServerThread(provider.app) as server:
        found = asyncio.run(use(server.url))
    assert found.prompt_applied
    assert provider.seen[0].body["messages"][0]["content"] == "P"
