"""Providers by name, and which of them a policy means. No network here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit, urlunsplit

from pytest_synth.backend.gateway.refusals import PolicyRefused

OFFLINE: Final = "offline"
OFFLINE_MODELS: Final = ("lexical", "reflect")


@dataclass(frozen=True)
class Provider:
    """Where a provider is and what it is called with.

    Attributes:
        base_url: URL that `/chat/completions` is appended to; None for the built-in model.
        url_variable: Environment variable that overrides `base_url`.
        key_variable: Environment variable of the key.
        needs_key: A key is required unless `url_variable` names another server.
    """

    name: str
    base_url: str | None = None
    url_variable: str | None = None
    key_variable: str | None = None
    needs_key: bool = True


PROVIDERS: Final[Mapping[str, Provider]] = {
    provider.name: provider
    for provider in (
        Provider(OFFLINE, needs_key=False),
        Provider("openai", "https://api.openai.com/v1", "OPENAI_BASE_URL", "OPENAI_API_KEY"),
    )
}


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
    if name is not None and not isinstance(name, str):
        raise PolicyRefused(f"policy.provider is {name!r}, not a text")
    if model is not None and not isinstance(model, str):
        raise PolicyRefused(f"policy.model is {model!r}, not a text")
    known = ", ".join(providers)
    if not name:
        if not model:
            return Target(providers[OFFLINE], OFFLINE_MODELS[0])
        name, _, rest = model.partition("/")
        if not rest or name not in providers:
            raise PolicyRefused(
                f"policy.model {model!r} names no provider; name policy.provider, or write "
                f"'provider/model'; providers: {known}"
            )
        model = rest
    provider = providers.get(name)
    if provider is None:
        raise PolicyRefused(f"policy.provider {name!r} is unknown; providers: {known}")
    if model:
        model = model.removeprefix(f"{name}/")
    if name == OFFLINE:
        model = model or OFFLINE_MODELS[0]
        if model not in OFFLINE_MODELS:
            raise PolicyRefused(
                f"policy.model {model!r} is no offline model ({', '.join(OFFLINE_MODELS)}); "
                "for a real model name its provider in policy.provider"
            )
    return Target(provider, model or None)


@dataclass(frozen=True)
class Access:
    """How to reach a provider: its base URL, and the key, which is never shown."""

    base_url: str
    key: str | None

    def __repr__(self) -> str:
        return f"Access(base_url={public_url(self.base_url)!r}, key={'given' if self.key else 'none'})"


def access(provider: Provider, environ: Mapping[str, str]) -> Access:
    """Read a provider's base URL and key from the environment.

    Raises:
        PolicyRefused: If it has neither a key nor a base URL of its own; the message names both variables.
    """
    key = environ.get(provider.key_variable or "", "").strip() or None
    own_url = environ.get(provider.url_variable or "", "").strip() or None
    if provider.needs_key and key is None and own_url is None:
        raise PolicyRefused(
            f"provider {provider.name!r} has no key: set {provider.key_variable}, or {provider.url_variable} "
            "for a server that needs none (Ollama, vLLM)"
        )
    base_url = own_url or provider.base_url
    assert base_url is not None, provider.name
    if not base_url.startswith(("http://", "https://")):
        raise PolicyRefused(
            f"{provider.url_variable} is {base_url!r}; it must start with http:// or https://"
        )
    if key is not None and "@" in urlsplit(base_url).netloc:
        raise PolicyRefused(
            f"{provider.url_variable} holds a user beside the key {provider.key_variable}; give one of them"
        )
    return Access(base_url.rstrip("/"), key)


def public_url(url: str) -> str:
    """A URL without user, password and query."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if ":" in host:
        host = f"[{host}]"
    return urlunsplit((parts.scheme, f"{host}:{parts.port}" if parts.port else host, parts.path, "", ""))
