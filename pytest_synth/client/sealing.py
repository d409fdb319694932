"""Sealing a text for the backend: only its private key opens it (X25519 sealed box of libsodium)."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable

from pytest_synth.errors import ConfigError, UnexpectedAnswer

ALGORITHM = "libsodium.sealedbox.v1"
_KEY_BYTES = 32


def sealer() -> Callable[[object, str], str]:
    """Return `seal(public key, text) -> ciphertext`, keys and ciphertext in base64.

    Asked for before the first request is sent, so that a missing PyNaCl ends in no half-done upload.

    Raises:
        ConfigError: If PyNaCl is not installed.
    """
    try:
        from nacl.public import PublicKey, SealedBox
    except ImportError as error:
        raise ConfigError(
            "uploading ENVIRONMENT_API_KEY needs PyNaCl: pip install 'pytest-synth[hosted]'"
        ) from error

    def seal(public_key: object, text: str) -> str:
        box = SealedBox(PublicKey(read_public_key(public_key)))
        return base64.b64encode(box.encrypt(text.encode())).decode("ascii")

    return seal


def read_public_key(text: object) -> bytes:
    """Decode a public key as the backend gives it.

    Raises:
        UnexpectedAnswer: If it is not base64 of 32 bytes.
    """
    try:
        key = base64.b64decode(text, validate=True) if isinstance(text, str) else b""
    except binascii.Error as error:
        raise UnexpectedAnswer(f"the backend's public key {text!r} is not base64") from error
    if len(key) != _KEY_BYTES:
        raise UnexpectedAnswer(f"the backend's public key {text!r} is not base64 of {_KEY_BYTES} bytes")
    return key
