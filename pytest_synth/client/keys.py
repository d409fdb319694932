"""Minting keys and uploading the task app's key; each happens only when it is asked for by name.

Two keys exist: SYNTH_API_KEY lets a client in at the backend, ENVIRONMENT_API_KEY lets the backend in at
the task app.
"""

from __future__ import annotations

import os
import secrets

from pytest_synth.client.api import SynthClient
from pytest_synth.client.flows import Json
from pytest_synth.errors import ConfigError


def mint_demo_api_key(backend_url: str | None = None, ttl_hours: int = 4, timeout: float = 30.0) -> str:
    """Let the backend make a SYNTH_API_KEY that expires, and return it; it is stored nowhere.

    Args:
        backend_url: Default: SYNTH_BACKEND_URL, else the hosted service.
        timeout: Seconds.
    """
    return SynthClient(backend_url, timeout=timeout).mint_demo_key(ttl_hours)


def mint_environment_api_key() -> str:
    """Make a random ENVIRONMENT_API_KEY of 64 hex digits; it is stored nowhere and uploaded nowhere."""
    return secrets.token_hex(32)


def setup_environment_api_key(
    backend_base: str | None = None,
    synth_api_key: str | None = None,
    token: str | None = None,
    *,
    timeout: float = 15.0,
) -> Json:
    """Upload the key that the task app expects, sealed, so that the backend can send it there.

    Args:
        backend_base, synth_api_key: Default: SYNTH_BACKEND_URL and SYNTH_API_KEY.
        token: The key; default: ENVIRONMENT_API_KEY.
        timeout: Seconds for each of the two requests.

    Returns:
        `stored` (True), and `id`, `name`, `updated_at` as the backend gives them.

    Raises:
        ConfigError: If there is no key, it is longer than 8 KiB, or PyNaCl (extra `hosted`) is missing.
    """
    key = token if token is not None else os.environ.get("ENVIRONMENT_API_KEY", "").strip()
    if not key:
        raise ConfigError("there is no key to upload: pass token, or set ENVIRONMENT_API_KEY")
    return SynthClient(backend_base, synth_api_key, timeout=timeout).upload_environment_key(key)
