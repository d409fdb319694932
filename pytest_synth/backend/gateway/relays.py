"""Relayed rollouts: those of another backend, whose model calls pass through this gateway on their way there.

The prompt is substituted and the calls are noted as in our own rollouts; who answers them, with which model
and key, is the other backend's affair, so nothing else of a call is changed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit, urlunsplit

from pytest_synth.backend.gateway.providers import CHAT, MESSAGES, RESPONSES, Access, Provider, Target
from pytest_synth.errors import ConfigError

# No model of its own: a call keeps the one that it names. `stream_usage`: nothing is added to a stream.
THERE: Final = Target(
    Provider(
        "the backend",
        needs_key=False,
        operations=frozenset({CHAT, RESPONSES, MESSAGES}),
        stream_usage=False,
    ),
    None,
)
# What each hop sets itself (RFC 9110 section 7.6.1), and what our own HTTP client sets.
_OURS: Final = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "host",
        "content-length",
        "content-type",
        "accept-encoding",
        "expect",
    }
)
_SEGMENT: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._~-]{2,199}")


@dataclass(frozen=True)
class RelayTarget:
    """Where the calls of a relayed rollout go.

    Attributes:
        chat_url: Whole URL of chat completions. It is a capability, so it stays out of messages.

    Raises:
        ConfigError: If it is none.
    """

    chat_url: str = field(repr=False)

    def __post_init__(self) -> None:
        parts = urlsplit(self.chat_url)
        if parts.scheme not in ("http", "https") or not parts.hostname or not parts.path.endswith(f"/{CHAT}"):
            raise ConfigError(f"a relayed rollout needs the http(s) URL of its chat completions, .../{CHAT}")

    @property
    def access(self) -> Access:
        """The other backend as a whole: what limits and messages are about."""
        parts = urlsplit(self.chat_url)
        return Access(f"{parts.scheme}://{parts.netloc}", None)

    def url_of(self, operation: str) -> str:
        """Whole URL of an operation; the query is kept.

        .../trial/trace_1/chat/completions?a=b  ->  .../trial/trace_1/responses?a=b
                                                    .../trial/trace_1/v1/messages?a=b
        .../v1/chat/completions                 ->  .../v1/messages
        """
        parts = urlsplit(self.chat_url)
        base = parts.path.removesuffix(f"/{CHAT}")
        if operation == MESSAGES and not base.endswith("/v1"):
            base += "/v1"
        return urlunsplit((parts.scheme, parts.netloc, f"{base}/{operation}", parts.query, ""))


def passed_on(headers: Mapping[str, str]) -> dict[str, str]:
    """The task app's headers that go along: its key for the other backend may be among them."""
    return {name: value for name, value in headers.items() if name.lower() not in _OURS}


def is_segment(correlation_id: str) -> bool:
    """Whether an id can stand in a URL's path as it is."""
    return _SEGMENT.fullmatch(correlation_id) is not None
