"""The table of providers, and what a user adds to it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from fakes.gateway_server import GatewayUnderTest, chat

from pytest_synth.backend.gateway.providers import (
    PROVIDERS,
    Target,
    access,
    adapt,
    extend,
    resolve,
    with_maker,
)
from pytest_synth.backend.gateway.upstream import proxy_of
from pytest_synth.errors import ConfigError


def test_the_table_has_the_documented_providers() -> None:
    assert list(PROVIDERS) == [
        "offline",
        "openai",
        "groq",
        "openrouter",
        "gemini",
        "anthropic",
        "ollama",
        "vllm",
    ]


@pytest.mark.parametrize(
    ("name", "environ", "url"),
    [
        ("openai", {"OPENAI_API_KEY": "k"}, "https://api.openai.com/v1"),
        ("groq", {"GROQ_API_KEY": "k"}, "https://api.groq.com/openai/v1"),
        ("groq", {"GROQ_API_KEY": "k", "GROQ_BASE_URL": "http://h"}, "http://h/openai/v1"),
        ("openrouter", {"OPENROUTER_API_KEY": "k"}, "https://openrouter.ai/api/v1"),
        ("gemini", {"GEMINI_API_KEY": "k"}, "https://generativelanguage.googleapis.com/v1beta/openai"),
        ("gemini", {"GOOGLE_API_KEY": "k"}, "https://generativelanguage.googleapis.com/v1beta/openai"),
        ("anthropic", {"ANTHROPIC_API_KEY": "k"}, "https://api.anthropic.com/v1"),
        ("anthropic", {"ANTHROPIC_API_KEY": "k", "ANTHROPIC_BASE_URL": "http://h/"}, "http://h/v1"),
        ("anthropic", {"ANTHROPIC_API_KEY": "k", "ANTHROPIC_BASE_URL": "http://h/x"}, "http://h/x"),
        ("ollama", {}, "http://127.0.0.1:11434/v1"),
        ("ollama", {"OLLAMA_BASE_URL": "http://gpu:11434"}, "http://gpu:11434/v1"),
        ("vllm", {}, "http://127.0.0.1:8000/v1"),
    ],
)
def test_a_provider_is_reached_at_its_url(name: str, environ: dict[str, str], url: str) -> None:
    assert access(PROVIDERS[name], environ).base_url == url


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ({"provider": "google", "model": "gemini-2.5-flash"}, ("gemini", "gemini-2.5-flash")),
        ({"model": "google/gemini-2.5-flash"}, ("gemini", "gemini-2.5-flash")),
        ({"provider": "groq", "model": "groq/compound"}, ("groq", "groq/compound")),
        ({"model": "groq/openai/gpt-oss-20b"}, ("groq", "openai/gpt-oss-20b")),
        ({"provider": "openrouter", "model": "openai/gpt-4o-mini"}, ("openrouter", "openai/gpt-4o-mini")),
    ],
)
def test_names_of_models_that_begin_like_providers(policy: dict[str, str], expected: tuple[str, str]) -> None:
    target = resolve(policy)
    assert (target.provider.name, target.model) == expected


@pytest.mark.parametrize(
    ("provider", "model", "body", "sent", "left_out"),
    [
        pytest.param(
            "openai",
            "gpt-4.1-nano",
            {"max_tokens": 5, "temperature": 0},
            {"max_completion_tokens": 5, "temperature": 0},
            (),
            id="openai-limit",
        ),
        pytest.param("ollama", "m", {"max_completion_tokens": 5}, {"max_tokens": 5}, (), id="ollama-limit"),
        pytest.param(
            "vllm", "m", {"max_completion_tokens": 5}, {"max_completion_tokens": 5}, (), id="vllm-limit"
        ),
        pytest.param(
            "openai",
            "gpt-5-mini",
            {"temperature": 0.0, "top_p": 1, "seed": 3},
            {"seed": 3},
            ("temperature", "top_p"),
            id="gpt-5",
        ),
        pytest.param("openai", "o4-mini", {"temperature": 0.0}, {}, ("temperature",), id="o4"),
        pytest.param(
            "openai", "gpt-5-chat-latest", {"temperature": 0.0}, {"temperature": 0.0}, (), id="gpt-5-chat"
        ),
        pytest.param("openai", "gpt-5.1", {"temperature": 0.0}, {"temperature": 0.0}, (), id="gpt-5.1"),
        pytest.param("openai", "gpt-4o", {"temperature": 0.0}, {"temperature": 0.0}, (), id="gpt-4o"),
    ],
)
def test_a_body_is_adapted(
    provider: str, model: str, body: dict[str, Any], sent: dict[str, Any], left_out: tuple[str, ...]
) -> None:
    assert (
        adapt(body, "chat/completions", Target(PROVIDERS[provider], model), model, own_url=False) == left_out
    )
    assert body == sent


def test_at_a_url_of_the_users_the_older_limit_stays() -> None:
    body = {"max_tokens": 5}
    adapt(body, "chat/completions", Target(PROVIDERS["openai"], "m"), "m", own_url=True)
    assert body == {"max_tokens": 5}


def test_what_was_left_out_is_told(served: GatewayUnderTest) -> None:
    rollout = served.open({"provider": "openai", "model": "gpt-5-nano", "temperature": 0.0})
    served.post(rollout)
    assert "temperature" not in served.provider.seen[0].body
    assert served.gateway.close_rollout(rollout).calls[0].left_out == ("temperature",)


def test_a_user_adds_a_provider_and_changes_one(make_gateway: Callable[..., GatewayUnderTest]) -> None:
    served = make_gateway(
        providers={
            "together": {
                "base_url": "http://unused/v1",
                "url_variable": "TOGETHER_URL",
                "key_variable": "TOGETHER_KEY",
            },
            "ollama": {"stream_usage": False},
        }
    )
    served.environ["TOGETHER_URL"] = served.environ["OPENAI_BASE_URL"]
    served.environ["TOGETHER_KEY"] = "sk-together"
    assert served.post(served.open({"provider": "together", "model": "org/m"})).status_code == 200
    (seen,) = served.provider.seen
    assert (seen.headers["authorization"], seen.body["model"]) == ("Bearer sk-together", "org/m")


def test_a_provider_that_knows_no_usage_in_streams_is_not_asked_for_it(
    make_gateway: Callable[..., GatewayUnderTest],
) -> None:
    served = make_gateway(providers={"ollama": {"stream_usage": False}})
    served.environ["OLLAMA_BASE_URL"] = served.environ["OPENAI_BASE_URL"]
    served.post(served.open({"provider": "ollama", "model": "m"}), chat(stream=True))
    assert "stream_options" not in served.provider.seen[0].body


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"mine": {}}, "provider 'mine' is not one of ours, and has no base_url"),
        ({"offline": {"base_url": "http://h"}}, "provider 'offline': a name is of lower-case letters"),
        ({"My": {"base_url": "http://h"}}, "provider 'My': a name is of lower-case letters"),
        ({"m": {"base_url": "h"}}, "provider 'm': base_url is 'h'; it must start with http:// or https://"),
        ({"m": {"url": "http://h"}}, "provider 'm': url is unknown; allowed: base_url, "),
        ({"m": {"base_url": "http://h", "local": "yes"}}, "provider 'm': local is 'yes', not true or false"),
        (
            {"m": {"base_url": "http://h", "limit_field": "n"}},
            "provider 'm': limit_field is 'n'; allowed: max",
        ),
        ({"m": {"base_url": "http://h", "key_variable": ""}}, "provider 'm': key_variable is '', not a text"),
    ],
)
def test_a_table_with_a_mistake_is_refused(table: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        extend(table)
    assert str(refused.value).startswith(message)


@pytest.mark.parametrize(
    ("url", "environ", "proxy"),
    [
        ("https://api.openai.com/v1", {}, None),
        ("https://api.openai.com/v1", {"HTTPS_PROXY": "http://p:3128"}, "http://p:3128"),
        ("https://api.openai.com/v1", {"https_proxy": "p:3128"}, "http://p:3128"),
        ("https://api.openai.com/v1", {"ALL_PROXY": "http://p:1"}, "http://p:1"),
        ("https://api.openai.com/v1", {"HTTP_PROXY": "http://p:1"}, None),
        ("https://api.openai.com/v1", {"HTTPS_PROXY": "http://p:1", "NO_PROXY": "x.org, .openai.com"}, None),
        ("https://api.openai.com/v1", {"HTTPS_PROXY": "http://p:1", "NO_PROXY": "*"}, None),
        ("http://127.0.0.1:11434/v1", {"HTTP_PROXY": "http://p:1"}, None),
        ("http://localhost:11434/v1", {"HTTP_PROXY": "http://p:1"}, None),
    ],
)
def test_the_environments_proxy_is_used(url: str, environ: dict[str, str], proxy: str | None) -> None:
    assert proxy_of(url, environ) == proxy


@pytest.mark.parametrize(
    ("model", "named"),
    [
        ("gpt-4.1-nano", "openai/gpt-4.1-nano"),
        ("chatgpt-4o-latest", "openai/chatgpt-4o-latest"),
        ("gemini-2.5-flash", "gemini/gemini-2.5-flash"),
        ("claude-haiku-4-5", "anthropic/claude-haiku-4-5"),
        ("openai/gpt-4.1-nano", "openai/gpt-4.1-nano"),
        ("gpt-oss-20b", "gpt-oss-20b"),
    ],
)
def test_the_maker_of_a_model_is_told_by_its_name(model: str, named: str) -> None:
    assert with_maker(model) == named
