"""Keys that clients upload sealed: an X25519 sealed box whose private half follows from the root secret."""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING

from pytest_synth.backend.store.secrets import RootSecret

if TYPE_CHECKING:
    from nacl.public import PrivateKey

ALGORITHM = "libsodium.sealedbox.v1"
MAX_BYTES = 8 * 1024  # of one key, as clients know it
REMEDY = "uploading keys needs PyNaCl at the backend; run: pip install 'pytest-synth[hosted]'"


class NotSealed(ValueError):
    """What was uploaded cannot be opened, or holds no key; the message says which."""


def private_key(seed: bytes) -> PrivateKey | None:
    """Make the private key of 32 bytes; None where PyNaCl is not installed."""
    try:
        from nacl.public import PrivateKey
    except ImportError:
        return None
    return PrivateKey(seed)


class UploadBox:
    """Opens uploads. `public_key` is None where PyNaCl is not installed: then nothing can be uploaded."""

    def __init__(self, root: RootSecret) -> None:
        self._key = private_key(root.derive("sealed box of uploads"))

    @property
    def public_key(self) -> str | None:
        """The public key in base64."""
        return None if self._key is None else base64.b64encode(bytes(self._key.public_key)).decode()

    def open(self, ciphertext_b64: str) -> str:
        """Return the key that was sealed.

        Raises:
            NotSealed: If it was not sealed for this backend, or holds no key that a header can carry.
        """
        from nacl.exceptions import CryptoError
        from nacl.public import SealedBox

        assert self._key is not None
        try:
            sealed = base64.b64decode(ciphertext_b64, validate=True)
        except (binascii.Error, ValueError):
            raise NotSealed("ciphertext_b64 is not base64") from None
        try:
            content = SealedBox(self._key).decrypt(sealed)
        except CryptoError:
            raise NotSealed(
                "ciphertext_b64 cannot be opened: seal it with this backend's present public key"
            ) from None
        if len(content) > MAX_BYTES:
            raise NotSealed(f"the sealed key has {len(content)} bytes; at most {MAX_BYTES} are allowed")
        try:
            key = content.decode("ascii")
        except UnicodeDecodeError:
            key = ""
        if not is_header_text(key):
            raise NotSealed("the sealed key is empty, or holds characters that a header cannot carry")
        return key


def is_header_text(key: str) -> bool:
    """Whether a key can be sent in a header: printable ASCII without spaces, not empty."""
    return key.isascii() and key.isprintable() and bool(key) and " " not in key
