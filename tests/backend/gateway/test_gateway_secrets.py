"""A planted key: nowhere but in the calls to its provider."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from fakes.gateway_server import KEY, GatewayUnderTest, chat
from fakes.model_provider import completion

from pytest_synth.backend.gateway import PolicyRefused

MASKED = KEY[:5] + "*" * 8 + KEY[-4:]


def test_a_planted_key_is_found_nowhere(
    make_gateway: Callable[..., GatewayUnderTest], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    served = make_gateway(cassettes=tmp_path)
    name = "cassettes/c.jsonl"
    found: list[str] = []
    replies: list[Any] = [
        completion("hello"),
        (401, {}, f"Incorrect API key provided: {KEY}"),
        (401, {}, json.dumps({"error": {"message": f"Incorrect API key provided: {MASKED}", "code": KEY}})),
        (400, {"x-echo": KEY}, f"bad request, authorization: Bearer {KEY}"),
        (200, {}, f"<html>{KEY}</html>"),
        completion(usage=None, system_fingerprint=KEY),
        {"error": {"message": f"no route for {KEY}", "type": KEY}},
    ]
    for number, reply in enumerate(replies):
        served.provider.script = [reply]
        rollout = served.open(cassette=name, record_mode="new_episodes")
        answer = served.post(rollout, chat(f"query {number}"), headers={"Authorization": "Bearer of the app"})
        if answer.status_code != 200:
            found += [answer.text, repr(dict(answer.headers))]
        use = served.gateway.close_rollout(rollout)
        # What a model says is its caller's; a key in it goes no further than a cassette's redaction.
        calls = [{**asdict(call), "response": None} for call in use.calls]
        found += [repr(calls), repr(use.failure), repr(use.fatal), repr(use.prompt_reason)]
    served.stage.run(served.gateway.finish_cassette(name, record_mode="new_episodes", is_complete=True))
    found += [path.read_text("utf-8") for path in tmp_path.rglob("*") if path.is_file()]
    found += [caplog.text, repr(served.gateway), repr(served.gateway._caller), repr(served.gateway._upstream)]
    served.environ["OPENAI_BASE_URL"] = "http://user:word@h/v1"
    with pytest.raises(PolicyRefused) as refused:
        served.gateway.check_policy({"provider": "openai", "model": "m"})
    found.append(str(refused.value))

    assert len(found) > 20
    assert all(seen.headers["authorization"] == f"Bearer {KEY}" for seen in served.provider.seen)
    assert len(served.provider.seen) == len(replies)
    for text in found:
        assert KEY not in text
        assert MASKED not in text
