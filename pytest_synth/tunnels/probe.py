"""Ask over HTTP whether a tunnel is up: cloudflared's own metrics, and the task app through its public URL.

`http.client` with classes taken at import: what a user's test patches (respx, vcr) must not reach it.
"""

from __future__ import annotations

import json
import socket
import ssl
from collections.abc import Callable, Mapping, Sequence
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Any
from urllib.parse import quote, urlsplit

TIMEOUT_S = 5.0
_BODY_BYTES = 64 * 1024
# 400 is the task app's answer to a wrong key, so the task app did answer.
UP = frozenset({200, 400, 401, 403})

Address = tuple[str, int]
Resolve = Callable[[str, int], list[Address]]
"""Host and port to addresses, best first; raises OSError if the name is not known."""


class _Pinned(HTTPSConnection):
    """HTTPS to given addresses; name and certificate are checked against the host all the same."""

    def __init__(self, host: str, port: int, addresses: Sequence[Address]) -> None:
        import httpx

        # The authorities of all our HTTP: certifi's, or those of SSL_CERT_FILE.
        self._tls = httpx.create_ssl_context()
        super().__init__(host, port, timeout=TIMEOUT_S, context=self._tls)
        self._addresses = addresses

    def connect(self) -> None:
        raw = _connect(self._addresses)
        try:
            self.sock = self._tls.wrap_socket(raw, server_hostname=self.host)
        except BaseException:
            raw.close()
            raise


def _connect(addresses: Sequence[Address]) -> socket.socket:
    failure: OSError | None = None
    for address in addresses:
        try:
            return socket.create_connection(address, TIMEOUT_S)
        except OSError as error:
            failure = error
    raise failure or OSError("the name has no address")


def get_local(port: int, path: str, headers: Mapping[str, str] | None = None) -> tuple[int, bytes] | None:
    """GET from a server on 127.0.0.1; None if it does not answer."""
    connection = HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)
    try:
        connection.request("GET", path, headers=dict(headers or {}))
        answer = connection.getresponse()
        return answer.status, answer.read(_BODY_BYTES)
    except (OSError, HTTPException):
        return None
    finally:
        connection.close()


def get_public(url: str, headers: Mapping[str, str], resolve: Resolve) -> tuple[int, bytes]:
    """GET an https URL, with its certificate verified.

    Raises:
        OSError, HTTPException: If there is no answer; `ssl.SSLError` and `socket.gaierror` are OSErrors.
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    port = parts.port or 443
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    connection = _Pinned(host, port, resolve(host, port))
    try:
        connection.request("GET", target, headers=dict(headers))
        answer = connection.getresponse()
        return answer.status, answer.read(_BODY_BYTES)
    finally:
        connection.close()


def ask_health(url: str, key: str | None, resolve: Resolve) -> str | None:
    """Ask the task app's `/health` through its public URL.

    Returns:
        None if the task app answered; else why not yet. 502 is Cloudflare's answer when it does not reach
        the task app, so it is no more an answer of the task app than 530.
    """
    try:
        status, _ = get_public(f"{url}/health", {"X-API-Key": key} if key else {}, resolve)
    except socket.gaierror:
        return "its name is not in the DNS yet"
    except ssl.SSLCertVerificationError as error:
        return f"its certificate is not trusted ({error.verify_message})"
    except (OSError, HTTPException) as error:
        return f"no answer ({str(error) or type(error).__name__})"
    return None if status in UP else f"it answered {status}"


def ask_system(host: str, port: int) -> list[Address]:
    """Resolve a name as every program on this machine does."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [(str(entry[4][0]), int(entry[4][1])) for entry in found]


class PublicResolver:
    """Resolve the names of new quick tunnels at Cloudflare's public resolver, all others as usual.

    A resolver that is asked for a name before it exists remembers "no such name", for minutes. So this
    machine's own is not asked for names made a second ago, unless 1.1.1.1 cannot be reached.
    """

    def __init__(
        self, get: Callable[[str, Mapping[str, str], Resolve], tuple[int, bytes]] = get_public
    ) -> None:
        self._get = get
        self._is_reachable = True

    def __call__(self, host: str, port: int) -> list[Address]:
        if self._is_reachable and host.endswith(".trycloudflare.com"):
            try:
                return [(address, port) for address in self._ask(host)]
            except socket.gaierror:
                raise
            except (OSError, HTTPException, ValueError):
                self._is_reachable = False
        return ask_system(host, port)

    def _ask(self, host: str) -> list[str]:
        status, body = self._get(
            f"https://1.1.1.1/dns-query?name={quote(host)}&type=A",
            {"Accept": "application/dns-json"},
            lambda host, port: [(host, port)],
        )
        if status != 200:
            raise ValueError(f"the resolver answered {status}")
        document = json.loads(body)
        if not isinstance(document, dict):
            raise ValueError("the resolver answered no object")
        answers: list[dict[str, Any]] = document.get("Answer") or []
        found = [str(entry.get("data")) for entry in answers if entry.get("type") == 1]  # 1 is an A record
        if not found:
            raise socket.gaierror(socket.EAI_NONAME, f"{host} has no address yet")
        return found
