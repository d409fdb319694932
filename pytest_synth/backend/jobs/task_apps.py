"""HTTP to task apps: authenticated requests, retries of what is worth it, and what their answers say."""

from __future__ import annotations

import asyncio
import json
import os
import random
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from yarl import URL

from pytest_synth.backend.jobs.retry import ATTEMPTS, RETRIED_STATUSES, wait_s
from pytest_synth.errors import TaskAppError

CONNECT_S = 10.0  # a first connection through a fresh tunnel may need a DNS lookup and TLS
_SHOWN_CHARS = 300


class Unreachable(TaskAppError):
    """No HTTP answer: connection refused, reset, no such host."""


@dataclass(frozen=True)
class TaskApp:
    """Where a task app is, and the environment keys that it may accept, newest first."""

    url: str
    keys: Sequence[str] = field(default=(), repr=False)

    @property
    def shown(self) -> str:
        """The URL for messages: without user name and password."""
        try:
            return str(URL(self.url).with_user(None)).rstrip("/")
        except ValueError:
            return self.url

    def headers(self) -> dict[str, str]:
        if not self.keys:
            return {}
        return {"X-API-Key": self.keys[0], "X-API-Keys": ",".join(self.keys)}


@dataclass(frozen=True)
class Answer:
    """An HTTP answer of a task app, read whole."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> object:
        """Decode the body.

        Raises:
            ValueError: If it is no JSON, or nested deeper than can be read.
        """
        try:
            return json.loads(self.body)
        except RecursionError:
            raise ValueError("nested too deep") from None

    @property
    def text(self) -> str:
        """What the answer says, in one line: the message of a JSON error, else the text itself."""
        try:
            said = _message(self.json())
        except ValueError:
            said = None
        if said is None:
            said = self.body.decode("utf-8", "replace")
        return shorten(" ".join(said.split())) or "no text"

    @property
    def is_refusal(self) -> bool:
        """Whether the task app did not accept the key (400 with a code is how the SDK says it)."""
        if self.status in (401, 403):
            return True
        if self.status != 400:
            return False
        try:
            return _code(self.json()) in ("unauthorised", "unauthorized")
        except ValueError:
            return False


def shorten(text: str, limit: int = _SHOWN_CHARS) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _error_block(document: object) -> object:
    block = document
    for name in ("detail", "error"):
        if isinstance(block, Mapping) and block.get(name) is not None:
            block = block[name]
    return block


def _code(document: object) -> object:
    block = _error_block(document)
    return block.get("code") if isinstance(block, Mapping) else None


def _message(document: object) -> str | None:
    block = _error_block(document)
    if isinstance(block, str):
        return block
    if isinstance(block, Mapping):
        message, code = block.get("message"), block.get("code")
        if isinstance(message, str):
            return f"{code}: {message}" if isinstance(code, str) and code not in message else message
    if isinstance(block, list):  # FastAPI's list of what is wrong with a body
        parts = [
            f"{'.'.join(str(piece) for piece in item.get('loc', ()))}: {item.get('msg')}"
            for item in block
            if isinstance(item, Mapping)
        ]
        return "; ".join(parts) or None
    return None


def refusal(app: TaskApp, what: str, status: int) -> str:
    """Say that a task app does not accept the backend's key."""
    if not app.keys:
        return (
            f"task app at {app.shown} refused {what} with {status}; the backend has no ENVIRONMENT_API_KEY"
            " for it: send task_app_api_key with the job, or upload the key"
        )
    return (
        f"task app at {app.shown} refused {what} with {status};"
        " its ENVIRONMENT_API_KEY differs from the backend's"
    )


class TaskAppCaller:
    """Sends requests to task apps; one for a backend, on its loop, between `open` and `close`.

    Args:
        sleep, luck: For tests; waiting between attempts, and the jitter's random number in [0, 1).
    """

    def __init__(
        self,
        *,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
        luck: Callable[[], float] = random.random,
    ) -> None:
        self._session: aiohttp.ClientSession | None = None
        self._sleep = sleep
        self._luck = luck

    def open(self) -> None:
        """Make the session that all requests share; the scheduler bounds them, not the pool."""
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S),
        )

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def get(self, app: TaskApp, path: str, *, timeout_s: float) -> Answer:
        return await self._send("GET", app, path, None, timeout_s=timeout_s)

    async def post(self, app: TaskApp, path: str, body: Mapping[str, Any], *, timeout_s: float) -> Answer:
        return await self._send("POST", app, path, body, timeout_s=timeout_s)

    async def _send(
        self, method: str, app: TaskApp, path: str, body: Mapping[str, Any] | None, *, timeout_s: float
    ) -> Answer:
        """Send until there is an answer that is worth keeping.

        Connection errors, 429, 502, 503 and 504 are tried again, with growing waits and never past
        the deadline; any other answer is returned as it is, redirects too (they could carry the key
        elsewhere).

        Raises:
            TimeoutError: If there is no answer within `timeout_s` seconds.
            Unreachable: If the last attempt got no HTTP answer.
        """
        async with asyncio.timeout(timeout_s) as deadline:
            attempt = 1
            while True:
                answer, failure = await self._once(method, app, path, body)
                if answer is not None and answer.status not in RETRIED_STATUSES:
                    return answer
                headers = answer.headers if answer is not None else {}
                pause = wait_s(attempt, headers, luck=self._luck(), now=time.time())
                ends_at = deadline.when()
                assert ends_at is not None
                if attempt == ATTEMPTS or asyncio.get_running_loop().time() + pause >= ends_at:
                    if answer is not None:
                        return answer
                    raise Unreachable(f"{method} {app.shown}{path}: {failure}")
                await self._sleep(pause)
                attempt += 1

    async def _once(
        self, method: str, app: TaskApp, path: str, body: Mapping[str, Any] | None
    ) -> tuple[Answer | None, str]:
        assert self._session is not None, "the caller is not open"
        try:
            async with self._session.request(
                method,
                app.url.rstrip("/") + path,
                headers=app.headers(),
                json=body,
                allow_redirects=False,
            ) as response:
                return Answer(response.status, response.headers, await response.read()), ""
        except (aiohttp.InvalidURL, UnicodeError):  # the latter: a host name with a label that is too long
            raise Unreachable(f"task app URL {app.shown!r} is not a URL") from None
        except (aiohttp.ClientError, OSError) as error:
            return None, describe(error)


def describe(error: BaseException) -> str:
    """Say in a few words why there was no answer."""
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return f"the host {error.host!r} is not known"
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return f"its certificate is not trusted ({error.certificate_error})"
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return f"no connection within {CONNECT_S:.0f} s"
    if isinstance(error, aiohttp.ClientConnectorError):
        return _words(error.os_error)
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return "the connection was closed before an answer came"
    if isinstance(error, OSError):
        return _words(error)
    return f"{type(error).__name__}: {error}"


def _words(error: OSError) -> str:
    """Say what the system says; asyncio puts the address in its place."""
    return (os.strerror(error.errno) if error.errno else str(error)).lower()
