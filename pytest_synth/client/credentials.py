"""Where the backend's address and the keys come from: an argument, else the environment.

Everything is read when it is asked for, never at import. Nothing is read from the home directory,
written, minted or uploaded here.
"""

from __future__ import annotations

import os

import httpx

from pytest_synth.errors import ConfigError

DEFAULT_BACKEND_URL = "https://api.usesynth.ai"


def backend_url(given: str | None = None) -> str:
    """Return the backend's base URL, without a trailing slash and without `/api`.

    Order: the argument, SYNTH_BACKEND_URL, the hosted service. A base may be written with or without
    `/api` and a trailing slash.

    Raises:
        ConfigError: If it is no http(s) URL, or holds a user name, a query or a fragment.
    """
    if given is not None and given.strip():
        text, source = given.strip(), "base_url"
    else:
        text, source = _environment("SYNTH_BACKEND_URL") or DEFAULT_BACKEND_URL, "SYNTH_BACKEND_URL"
    try:
        url = httpx.URL(text)
    except httpx.InvalidURL as error:
        raise ConfigError(f"{source} is {text!r}: {error}") from error
    if url.userinfo:
        raise ConfigError(f"{source} holds a user name or password; give the key as api_key")
    if url.scheme not in ("http", "https") or not url.host:
        raise ConfigError(f"{source} is {text!r}, not a URL that starts with http:// or https://")
    if url.query or url.fragment:
        raise ConfigError(f"{source} is {text!r}; a base URL has no query and no fragment")
    return text.rstrip("/").removesuffix("/api").rstrip("/")


def synth_api_key(given: str | None = None) -> str:
    """Return the key for the backend: the argument, else SYNTH_API_KEY.

    Raises:
        ConfigError: If there is none, or it cannot be sent in a header.
    """
    key = (given or "").strip() or _environment("SYNTH_API_KEY")
    if not key:
        raise ConfigError("api_key is required: pass it, or set SYNTH_API_KEY")
    if not key.isascii() or not key.isprintable() or " " in key:
        # Not shown, and refused here: an HTTP library would name it in its own message.
        raise ConfigError("api_key holds a space, a line break or a non-ASCII character")
    return key


def environment_api_key(given: str | None = None) -> str | None:
    """Return the key that task apps expect, or None if none is known.

    Order: the argument, ENVIRONMENT_API_KEY, DEV_ENVIRONMENT_API_KEY (in lower case too), the first of
    ENVIRONMENT_API_KEY_ALIASES (a comma-separated list); a task app reads them in the same order.
    """
    aliases = (alias.strip() for alias in _environment("ENVIRONMENT_API_KEY_ALIASES").split(","))
    return (
        (given or "").strip()
        or _environment("ENVIRONMENT_API_KEY")
        or _environment("DEV_ENVIRONMENT_API_KEY")
        or _environment("dev_environment_api_key")
        or next((alias for alias in aliases if alias), None)
    )


def identity_headers() -> dict[str, str]:
    """Return the optional headers that name user and organisation, where the environment sets them."""
    headers = {
        "X-User-ID": _environment("SYNTH_USER_ID") or _environment("X_USER_ID"),
        "X-Org-ID": _environment("SYNTH_ORG_ID") or _environment("X_ORG_ID"),
    }
    return {name: value for name, value in headers.items() if value}


def _environment(name: str) -> str:
    return os.environ.get(name, "").strip()
