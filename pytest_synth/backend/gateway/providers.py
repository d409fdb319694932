"""Providers by name, their quirks, and which of them a policy means. No network here."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final
from urllib.parse import urlsplit, urlunsplit

from pytest_synth.backend.gateway.refusals import PolicyRefused
from pytest_synth.errors import ConfigError

OFFLINE: Final = "offline"
OFFLINE_MODELS: Final = ("lexical", "reflect")
CHAT, RESPONSES, MESSAGES = "chat/completions", "responses", "messages"


@dataclass(frozen=True)
class Provider:
    """Where a provider is, and what it is called with.

    Attributes:
        base_url: URL that the operation is appended to; None for the built-in models.
        url_variable: Environment variable that overrides `base_url`.
        url_path: Appended to an overriding URL that has no path, for variables that are known without it.
        key_variables: Environment variables of the key; the first that is set counts.
        needs_key: A key is required unless `url_variable` names another server.
        local: It runs on the user's machines: its calls cost nothing.
        operations: Which APIs it speaks.
        limit_field: Field of the most output tokens in chat completions, where it takes only one of the two.
        stream_usage: It understands `stream_options.include_usage`.
        left_out: Fields that are left out for models whose name fits the pattern, as the provider would
            refuse the call. A call's record tells which.
        message_key_header: Header of the key in calls of the messages API; others take Authorization.
        prices: Name of the provider in the price data.
    """

    name: str
    base_url: str | None = None
    url_variable: str | None = None
    url_path: str = ""
    key_variables: tuple[str, ...] = ()
    needs_key: bool = True
    local: bool = False
    operations: frozenset[str] = frozenset({CHAT})
    limit_field: str | None = None
    stream_usage: bool = True
    left_out: tuple[tuple[str, tuple[str, ...]], ...] = ()
    message_key_header: str | None = None
    prices: str | None = None


# Reasoning models take no other sampling settings than their own, and answer 400 where one is sent.
_REASONING = (
    r"(o[134]|gpt-5(?![.\d]|.*chat))(-|$)",
    (
        "temperature",
        "top_p",
        "presence_penalty",
        "frequency_penalty",
        "logprobs",
        "top_logprobs",
        "logit_bias",
    ),
)

PROVIDERS: Final[Mapping[str, Provider]] = {
    provider.name: provider
    for provider in (
        Provider(OFFLINE, needs_key=False, local=True),
        Provider(
            "openai",
            "https://api.openai.com/v1",
            "OPENAI_BASE_URL",
            key_variables=("OPENAI_API_KEY",),
            operations=frozenset({CHAT, RESPONSES}),
            limit_field="max_completion_tokens",
            left_out=(_REASONING,),
            prices="openai",
        ),
        Provider(
            "groq",
            "https://api.groq.com/openai/v1",
            "GROQ_BASE_URL",
            url_path="/openai/v1",
            key_variables=("GROQ_API_KEY",),
            operations=frozenset({CHAT, RESPONSES}),
            prices="groq",
        ),
        Provider(
            "openrouter",
            "https://openrouter.ai/api/v1",
            "OPENROUTER_BASE_URL",
            key_variables=("OPENROUTER_API_KEY",),
            operations=frozenset({CHAT, RESPONSES, MESSAGES}),
            prices="openrouter",
        ),
        Provider(
            "gemini",
            "https://generativelanguage.googleapis.com/v1beta/openai",
            "GEMINI_BASE_URL",
            key_variables=("GEMINI_API_KEY", "GOOGLE_API_KEY"),
            prices="google",
        ),
        Provider(
            "anthropic",
            "https://api.anthropic.com/v1",
            "ANTHROPIC_BASE_URL",
            url_path="/v1",
            key_variables=("ANTHROPIC_API_KEY",),
            operations=frozenset({CHAT, MESSAGES}),
            message_key_header="x-api-key",
            prices="anthropic",
        ),
        Provider(
            "ollama",
            "http://127.0.0.1:11434/v1",
            "OLLAMA_BASE_URL",
            url_path="/v1",
            key_variables=("OLLAMA_API_KEY",),
            needs_key=False,
            local=True,
            operations=frozenset({CHAT, RESPONSES, MESSAGES}),
            limit_field="max_tokens",
        ),
        Provider(
            "vllm",
            "http://127.0.0.1:8000/v1",
            "VLLM_BASE_URL",
            url_path="/v1",
            key_variables=("VLLM_API_KEY",),
            needs_key=False,
            local=True,
            operations=frozenset({CHAT, RESPONSES, MESSAGES}),
        ),
    )
}
_ALIASES: Final = {"google": "gemini"}  # the published SDK's name
# These have models of their own whose names begin with the provider's: `groq/compound`, `openrouter/auto`.
_KEEPS_PREFIX: Final = frozenset({"groq", "openrouter"})
# Names that say who makes the model; an open-weights one (`gpt-oss-20b`) is served by many.
_MAKERS: Final = ((r"gpt-\d|chatgpt-|o\d(-|$)", "openai"), (r"gemini-", "gemini"), (r"claude-", "anthropic"))

# What a user may set: `name`, `operations` and the like stay the table's.
_SETTINGS: Final = ("base_url", "url_variable", "key_variable", "local", "limit_field", "stream_usage")


def extend(table: Mapping[str, Mapping[str, Any]]) -> dict[str, Provider]:
    """Add a user's providers to ours, or change settings of ours.

    Args:
        table: Settings by provider name: `base_url`, `url_variable`, `key_variable` (texts), `local`,
            `stream_usage` (booleans), `limit_field` (`max_tokens` or `max_completion_tokens`). A new
            provider needs `base_url`, and speaks all operations as far as its server does.

    Raises:
        ConfigError: If a setting is unknown or ill-typed, or a new provider has no URL; it names both.
    """
    providers = dict(PROVIDERS)
    for name, settings in table.items():
        if not re.fullmatch(r"[a-z0-9][a-z0-9_.-]*", name) or name == OFFLINE or name in _ALIASES:
            raise ConfigError(
                f"provider {name!r}: a name is of lower-case letters, digits, '_', '.', '-'; not 'offline'"
            )
        for setting, value in settings.items():
            _check_setting(name, setting, value)
        known = providers.get(name)
        if known is None and "base_url" not in settings:
            raise ConfigError(f"provider {name!r} is not one of ours, and has no base_url")
        base = known or Provider(
            name, needs_key="key_variable" in settings, operations=frozenset({CHAT, RESPONSES, MESSAGES})
        )
        changes = dict(settings)
        if "key_variable" in changes:
            changes["key_variables"] = (changes.pop("key_variable"),)
        providers[name] = replace(base, **changes)
    return providers


def _check_setting(name: str, setting: str, value: object) -> None:
    where = f"provider {name!r}: {setting}"
    if setting not in _SETTINGS:
        raise ConfigError(f"{where} is unknown; allowed: {', '.join(_SETTINGS)}")
    if setting in ("local", "stream_usage"):
        if not isinstance(value, bool):
            raise ConfigError(f"{where} is {value!r}, not true or false")
    elif not isinstance(value, str) or not value:
        raise ConfigError(f"{where} is {value!r}, not a text")
    elif setting == "base_url" and not value.startswith(("http://", "https://")):
        raise ConfigError(f"{where} is {value!r}; it must start with http:// or https://")
    elif setting == "limit_field" and value not in ("max_tokens", "max_completion_tokens"):
        raise ConfigError(f"{where} is {value!r}; allowed: max_tokens, max_completion_tokens")


@dataclass(frozen=True)
class Target:
    """A provider and a model; without a model the call's body names it."""

    provider: Provider
    model: str | None


def resolve(policy: Mapping[str, Any], providers: Mapping[str, Provider] = PROVIDERS) -> Target:
    """Find the provider and model of a policy.

    Neither given means `offline/lexical`. `model` may carry the provider (`openai/gpt-4.1-nano`).

    Raises:
        PolicyRefused: If a model has no provider, or the provider or offline model is unknown.
    """
    name, model = policy.get("provider"), policy.get("model")
    for field_name, value in (("provider", name), ("model", model)):
        if value is not None and not isinstance(value, str):
            raise PolicyRefused(f"policy.{field_name} is {value!r}, not a text")
    known = ", ".join(providers)
    if not name:
        if not model:
            return Target(providers[OFFLINE], OFFLINE_MODELS[0])
        first, _, rest = model.partition("/")
        name = _ALIASES.get(first, first)
        if not rest or name not in providers:
            raise PolicyRefused(
                f"policy.model {model!r} names no provider; name policy.provider, or write "
                f"'provider/model'; providers: {known}"
            )
        model = rest
    else:
        name = _ALIASES.get(name, name)
        if name not in providers:
            raise PolicyRefused(f"policy.provider {name!r} is unknown; providers: {known}")
        if model and name not in _KEEPS_PREFIX:
            model = model.removeprefix(f"{name}/")
    if name == OFFLINE:
        model = model or OFFLINE_MODELS[0]
        if model not in OFFLINE_MODELS:
            raise PolicyRefused(
                f"policy.model {model!r} is no offline model ({', '.join(OFFLINE_MODELS)}); "
                "for a real model name its provider in policy.provider"
            )
    return Target(providers[name], model or None)


def with_maker(model: str) -> str:
    """Put the maker before a model's bare name; a name that does not tell its maker stays as it is.

    For calls outside of jobs: the published client sends `gpt-4o-mini`, and cannot name a provider.
    """
    maker = next((name for pattern, name in _MAKERS if re.match(pattern, model)), None)
    return model if maker is None else f"{maker}/{model}"


@dataclass(frozen=True)
class Access:
    """How to reach a provider: its base URL, and the key, which is never shown."""

    base_url: str
    key: str | None = field(repr=False)
    is_own_url: bool = False
    message_key_header: str | None = None

    def __repr__(self) -> str:
        return f"Access(base_url={public_url(self.base_url)!r}, key={'given' if self.key else 'none'})"


def access(provider: Provider, environ: Mapping[str, str]) -> Access:
    """Read a provider's base URL and key from the environment.

    Raises:
        PolicyRefused: If it has neither a key nor a base URL of its own; the message names both variables.
    """
    found = (environ.get(name, "").strip() for name in provider.key_variables)
    key = next((value for value in found if value), None)
    own_url = environ.get(provider.url_variable or "", "").strip() or None
    if provider.needs_key and key is None and own_url is None:
        remedy = f"set {' or '.join(provider.key_variables)}"
        if provider.url_variable is not None:
            remedy += f", or {provider.url_variable} for a server that needs none (Ollama, vLLM)"
        raise PolicyRefused(f"provider {provider.name!r} has no key: {remedy}")
    base_url = own_url or provider.base_url
    assert base_url is not None, provider.name
    if not base_url.startswith(("http://", "https://")):
        raise PolicyRefused(
            f"{provider.url_variable} is {base_url!r}; it must start with http:// or https://"
        )
    parts = urlsplit(base_url)
    if key is not None and "@" in parts.netloc:
        raise PolicyRefused(
            f"{provider.url_variable} holds a user beside the key {provider.key_variables[0]}; "
            "give one of them"
        )
    base_url = base_url.rstrip("/")
    if own_url is not None and parts.path in ("", "/"):
        base_url += provider.url_path
    return Access(base_url, key, own_url is not None, provider.message_key_header)


def adapt(
    body: dict[str, Any], operation: str, target: Target, model: str, *, own_url: bool
) -> tuple[str, ...]:
    """Change a body to what the provider takes; return the fields that were left out.

    At a URL of the user's `max_tokens` stays: the server behind it may be any, and knows the older name.
    """
    provider, limit = target.provider, target.provider.limit_field
    if operation == CHAT and limit is not None and not (own_url and limit == "max_completion_tokens"):
        for name in ("max_tokens", "max_completion_tokens"):
            if name in body and name != limit:
                body.setdefault(limit, body.pop(name))
    out = [
        name
        for pattern, names in provider.left_out
        if re.match(pattern, model)
        for name in names
        if body.pop(name, None) is not None
    ]
    return tuple(out)


def public_url(url: str) -> str:
    """A URL without user, password and query."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if ":" in host:
        host = f"[{host}]"
    return urlunsplit((parts.scheme, f"{host}:{parts.port}" if parts.port else host, parts.path, "", ""))
