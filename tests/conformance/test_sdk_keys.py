"""The published SDK's keys, tenancy, raw example and inference client against `pytest-synth serve`."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from fakes.model_provider import FakeProvider
from processes import PROVIDER_KEY, Served, Story, sdk_python

sdk_python()


@pytest.fixture(scope="module")
def keys(drive: Callable[..., Story]) -> Story:
    return drive("sdk_keys.py")


def test_demo_keys_are_minted_at_every_spelling_of_the_base(keys: Story, served: Served) -> None:
    minted = keys["minted"]
    assert len({*minted, served.key}) == 4
    assert all(key.startswith("synth_demo_") for key in minted)


def test_an_environment_key_is_uploaded_again_and_again(keys: Story) -> None:
    documents = keys["uploaded"]
    assert [set(document) for document in documents] == [{"stored", "id", "name", "updated_at"}] * 3
    assert {document["name"] for document in documents} == {"ENVIRONMENT_API_KEY"}
    assert len({document["id"] for document in documents}) == 1
    assert all(document["stored"] and document["updated_at"] for document in documents)


def test_uploads_are_refused_without_key_and_without_seal(keys: Story) -> None:
    refused = keys["refused_uploads"]
    assert refused["wrong key"]["kind"] == "HTTPError"
    assert "401 Client Error" in refused["wrong key"]["text"]
    assert "missing or unknown API key" in refused["wrong key"]["text"]
    status, document = refused["not sealed"]
    assert status == 400
    assert document["detail"].startswith("ciphertext_b64 cannot be opened")


def test_a_key_is_minted_once_and_found_again(keys: Story) -> None:
    assert keys["ensured"] == {"same": True, "length": 64}


def test_a_job_without_a_key_uses_the_stored_one_also_when_others_were_uploaded(keys: Story) -> None:
    story = keys["stored_key_used"]
    assert [result["status"] for result in story["results"]] == ["completed", "completed"]
    assert [result["error"] for result in story["results"]] == [None, None]
    assert story["keys"] == [2, 4]  # the uploads of the scenario before, and two more


def test_another_key_does_not_see_a_job(keys: Story) -> None:
    tenancy = keys["tenancy"]
    missing = f"no eval job '{tenancy['job_id']}'"
    for call in ("status", "results"):
        assert tenancy[call]["kind"] == "RuntimeError"
        assert "404" in tenancy[call]["text"]
        assert missing in tenancy[call]["text"]
    assert tenancy["cancel"]["kind"] == "HTTPStatusError"
    assert "404 Not Found" in tenancy["cancel"]["text"]
    assert tenancy["state"]["workflow_state"] is None
    assert tenancy["state"]["error"].startswith("HTTP 404: ")


def test_health_is_told_with_and_without_a_key(keys: Story) -> None:
    for status, document in keys["health"]:
        assert status == 200
        assert document["status"] == "ok"


def test_the_inference_client_reaches_the_models_maker(keys: Story, provider: FakeProvider) -> None:
    inference = keys["inference"]
    calls = [call for call in provider.seen if call.body["messages"][-1]["content"] == "This is about refund"]
    assert [call.body["model"] for call in calls] == ["gpt-4.1-nano", "gpt-4.1-nano"]
    assert [call.body.get("temperature") for call in calls] == [0.5, None]
    assert not any("thinking_budget" in call.body for call in calls)
    assert {call.headers["authorization"] for call in calls} == {f"Bearer {PROVIDER_KEY}"}
    for answer in (inference["plain"], inference["below api"]):
        assert answer["choices"][0]["message"]["content"] == "heard This is about refund"
        assert answer["usage"]["total_tokens"] == 11


def test_the_inference_client_is_told_that_its_key_is_wrong(keys: Story) -> None:
    refused = keys["inference"]["wrong key"]
    assert refused["kind"] == "HTTPError"
    assert refused["text"].startswith("HTTP 401 for ")
    assert "the API key is missing or unknown" in refused["text"]
