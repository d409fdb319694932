"""Calls to model providers over HTTP: one session, time-outs, retries. Knows no prompt and no rollout."""

from __future__ import annotations

import asyncio
import json
import random
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Final, TypeVar

import aiohttp

from pytest_synth.backend.gateway.providers import Access, public_url
from pytest_synth.backend.gateway.refusals import CallRefused

WORTH_RETRYING: Final = frozenset({429, 502, 503, 504})
ATTEMPTS: Final = 5
BACKOFF_S: Final = 0.5  # doubled at each further attempt, with full jitter
LONGEST_WAIT_S: Final = 60.0  # a Retry-After beyond this is passed on to the caller instead
_MASKED = re.compile(r"[\w-]*\*{3,}[\w-]*")  # how providers show a key that they refuse


@dataclass(frozen=True)
class Timeouts:
    """Seconds: to connect, between two reads of an answer (the first included), and for a whole call."""

    connect: float = 10.0
    read: float = 300.0
    total: float = 900.0


Sleep = Callable[[float], Awaitable[None]]
_T = TypeVar("_T")


class Upstream:
    """The HTTP side of all providers; `open` and `close` it on the loop that uses it."""

    def __init__(self, *, timeouts: Timeouts | None = None, sleep: Sleep = asyncio.sleep) -> None:
        self._timeouts = timeouts or Timeouts()
        self._sleep = sleep
        self._session: aiohttp.ClientSession | None = None

    async def open(self) -> None:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
            timeout=aiohttp.ClientTimeout(
                total=self._timeouts.total,
                sock_connect=self._timeouts.connect,
                sock_read=self._timeouts.read,
            ),
        )

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def post(self, provider: str, access: Access, operation: str, body: bytes) -> bytes:
        """Send a call and read its whole answer.

        Raises:
            CallRefused: With the provider's status and message, or 502/504 if it does not answer.
        """

        async def attempt() -> bytes:
            async with self._request(access, operation, body) as response:
                if response.status >= 400:
                    raise await _refusal(provider, access, response)
                return await response.read()

        return await self._retried(provider, access, attempt)

    async def stream(
        self, provider: str, access: Access, operation: str, body: bytes
    ) -> AsyncIterator[bytes]:
        """Send a call and return the chunks of its answer once it has begun; only the beginning is retried.

        Raises:
            CallRefused: As `post` does. The chunks raise it too, if the answer is cut short.
        """

        async def attempt() -> aiohttp.ClientResponse:
            response = await self._request(access, operation, body)
            if response.status >= 400:
                async with response:
                    raise await _refusal(provider, access, response)
            return response

        return self._chunks(provider, access, await self._retried(provider, access, attempt))

    async def _chunks(
        self, provider: str, access: Access, response: aiohttp.ClientResponse
    ) -> AsyncIterator[bytes]:
        try:
            async for chunk in response.content.iter_any():
                yield chunk
        except (aiohttp.ClientError, TimeoutError) as error:
            raise _no_answer(provider, access, error) from error
        finally:
            response.close()

    def _request(
        self, access: Access, operation: str, body: bytes
    ) -> aiohttp.client._RequestContextManager:  # aiohttp gives it no public name
        assert self._session is not None, "the gateway has not been started"
        headers = {"Content-Type": "application/json"}
        if access.key is not None:
            headers["Authorization"] = f"Bearer {access.key}"
        return self._session.post(f"{access.base_url}/{operation}", data=body, headers=headers)

    async def _retried(self, provider: str, access: Access, attempt: Callable[[], Awaitable[_T]]) -> _T:
        for number in range(1, ATTEMPTS + 1):
            try:
                return await attempt()
            except CallRefused as refused:
                wait = _retry_after(refused)
                if refused.status not in WORTH_RETRYING or number == ATTEMPTS or (wait or 0) > LONGEST_WAIT_S:
                    raise
            except (aiohttp.ClientError, TimeoutError) as error:
                wait = None
                if number == ATTEMPTS:
                    raise _no_answer(provider, access, error) from error
            await self._sleep(wait if wait is not None else _backoff(number))
        raise AssertionError("the last attempt returns or raises")


def _backoff(number: int) -> float:
    return random.uniform(0.5, 1.0) * BACKOFF_S * 2.0 ** (number - 1)  # noqa: S311 - no secret


def _retry_after(refused: CallRefused) -> float | None:
    value = refused.headers.get("Retry-After")
    if value is None:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return None


async def _refusal(provider: str, access: Access, response: aiohttp.ClientResponse) -> CallRefused:
    text = (await response.read()).decode(errors="replace")
    message, kind = text.strip()[:1000], "upstream_error"
    try:
        error = json.loads(text)["error"]
        message = error if isinstance(error, str) else str(error["message"])
        kind = str(error.get("type") or kind) if isinstance(error, dict) else kind
    except (ValueError, KeyError, TypeError):
        pass  # not OpenAI's shape: the text as it is
    after = response.headers.get("Retry-After")
    return CallRefused(
        response.status,
        f"{provider} answered {response.status}: {hide_key(message, access) or 'no text'}",
        kind=kind,
        headers={} if after is None else {"Retry-After": after},
    )


def _no_answer(provider: str, access: Access, error: Exception) -> CallRefused:
    where = f"{provider} at {public_url(access.base_url)}"
    if isinstance(error, TimeoutError):
        return CallRefused(504, f"{where} did not answer in time", kind="upstream_timeout")
    text = hide_key(str(error), access) or type(error).__name__
    return CallRefused(502, f"{where} does not answer: {text}", kind="upstream_unreachable")


def hide_key(text: str, access: Access) -> str:
    """Blot the key out of a text, whole or masked by the provider."""
    if access.key:
        text = text.replace(access.key, "[key]")
    return _MASKED.sub("[key]", text)
