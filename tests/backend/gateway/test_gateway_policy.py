"""Which provider and model a policy means, and which policies are refused."""

from __future__ import annotations

from typing import Any

import pytest

from pytest_synth.backend.gateway import Gateway, PolicyRefused
from pytest_synth.backend.gateway.providers import Provider, access, resolve

KEY = {"OPENAI_API_KEY": "sk-secret"}


def gateway(environ: dict[str, str]) -> Gateway:
    return Gateway(environ=environ, authorize=lambda headers: None)


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        pytest.param({}, ("offline", "lexical"), id="nothing"),
        pytest.param({"provider": None, "model": None}, ("offline", "lexical"), id="nulls"),
        pytest.param({"provider": "offline"}, ("offline", "lexical"), id="offline"),
        pytest.param({"provider": "offline", "model": "reflect"}, ("offline", "reflect"), id="reflect"),
        pytest.param({"model": "offline/lexical"}, ("offline", "lexical"), id="prefix-offline"),
        pytest.param({"model": "openai/gpt-4.1-nano"}, ("openai", "gpt-4.1-nano"), id="prefix"),
        pytest.param({"provider": "openai", "model": "openai/m"}, ("openai", "m"), id="both"),
        pytest.param({"provider": "openai", "model": "org/m"}, ("openai", "org/m"), id="slash-in-model"),
        pytest.param({"provider": "openai"}, ("openai", None), id="no-model"),
    ],
)
def test_a_policy_means_a_provider_and_a_model(policy: dict[str, Any], expected: tuple[str, str]) -> None:
    target = resolve(policy)
    assert (target.provider.name, target.model) == expected


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        pytest.param(
            {"provider": "opnai", "model": "m"},
            "policy.provider 'opnai' is unknown; providers: offline, ",
            id="unknown",
        ),
        pytest.param(
            {"model": "gpt-4.1-nano"},
            "policy.model 'gpt-4.1-nano' names no provider; name policy.provider, or write "
            "'provider/model'; providers: ",
            id="no-provider",
        ),
        pytest.param(
            {"model": "meta/llama"}, "policy.model 'meta/llama' names no provider; ", id="other-prefix"
        ),
        pytest.param(
            {"provider": "offline", "model": "gpt-4"},
            "policy.model 'gpt-4' is no offline model (lexical, reflect); "
            "for a real model name its provider in policy.provider",
            id="offline-model",
        ),
        pytest.param({"provider": 3}, "policy.provider is 3, not a text", id="provider-type"),
        pytest.param({"provider": "openai", "model": 3}, "policy.model is 3, not a text", id="model-type"),
    ],
)
def test_a_policy_that_means_nothing_is_refused(policy: dict[str, Any], message: str) -> None:
    with pytest.raises(PolicyRefused) as refused:
        gateway(KEY).check_policy(policy)
    assert str(refused.value).startswith(message)


def test_a_provider_with_neither_key_nor_url_is_refused_with_the_remedy() -> None:
    with pytest.raises(PolicyRefused) as refused:
        gateway({"OPENAI_API_KEY": " "}).check_policy({"provider": "openai", "model": "m"})
    assert str(refused.value) == (
        "provider 'openai' has no key: set OPENAI_API_KEY, or OPENAI_BASE_URL for a server that needs none "
        "(Ollama, vLLM)"
    )


@pytest.mark.parametrize("environ", [KEY, {"OPENAI_BASE_URL": "http://127.0.0.1:11434/v1"}, {}])
def test_a_key_or_a_url_or_the_offline_model_will_do(environ: dict[str, str]) -> None:
    policy = {"provider": "openai", "model": "m"} if environ else {}
    assert gateway(environ).check_policy(policy) is None  # type: ignore[func-returns-value]


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        (
            {"OPENAI_BASE_URL": "localhost:1"},
            "OPENAI_BASE_URL is 'localhost:1'; it must start with http:// or https://",
        ),
        (
            {"OPENAI_BASE_URL": "http://u:p@h/v1", **KEY},
            "OPENAI_BASE_URL holds a user beside the key OPENAI_API_KEY; give one of them",
        ),
    ],
)
def test_a_url_that_cannot_be_used_is_refused(environ: dict[str, str], message: str) -> None:
    with pytest.raises(PolicyRefused) as refused:
        gateway(environ).check_policy({"provider": "openai", "model": "m"})
    assert str(refused.value) == message


def test_a_key_is_not_in_the_repr_of_what_holds_it() -> None:
    provider = Provider("p", "http://u:word@h/v1", "P_URL", key_variables=("P_KEY",))
    assert repr(
        access(Provider("p", "http://h/v1", "P_URL", key_variables=("P_KEY",)), {"P_KEY": "sk-1"})
    ) == ("Access(base_url='http://h/v1', key=given)")
    assert "word" not in repr(access(provider, {"P_URL": "http://u:word@h/v1"}))
