"""Calls to model providers over HTTP: one session, time-outs, limits, retries. Knows no rollouts."""

from __future__ import annotations

import asyncio
import json
import random
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, Protocol, TypeVar
from urllib.parse import urlsplit

import aiohttp

from pytest_synth.backend.gateway.limiter import Limiter
from pytest_synth.backend.gateway.providers import MESSAGES, Access, public_url
from pytest_synth.backend.gateway.refusals import CallRefused
from pytest_synth.backend.gateway.waits import pause, retry_after

RATE: Final = 429
WORTH_RETRYING: Final = frozenset({408, 502, 503, 504, 529})  # 529: Anthropic's "overloaded"
FATAL: Final = frozenset({401, 402, 403, 404})  # the next call would get the same answer
ATTEMPTS: Final = 5  # but for 429, which is bounded by `Patience`
BACKOFF_S: Final = 0.5  # doubled at each further attempt, with jitter
LONGEST_BACKOFF_S: Final = 30.0
LEAST_S: Final = 1.0  # for an answer, however little time its caller has left
BYTES_PER_TOKEN: Final = 4  # roughly, for rate limits only
_MASKED = re.compile(r"[\w-]*\*{3,}[\w-]*")  # how providers show a key that they refuse
_KEY_HEADERS = frozenset({"authorization", "x-api-key"})
_BODIES = frozenset({"application/json", "text/html"})
_KEY_CHARS = 6  # what is shorter is a word that stands for "no key"
_KIND = re.compile(r"[a-z_]{1,64}")  # an error's type; what else stands there is not passed on
_NO_QUOTA = frozenset({"insufficient_quota", "billing_hard_limit_reached", "credit_balance_too_low"})


@dataclass(frozen=True)
class Patience:
    """How long, and how many at once.

    Attributes:
        connect_s: To connect.
        first_byte_s: From the request to the first byte of the answer; models that think are slow.
        read_s: Between two reads of an answer.
        total_s: For one attempt.
        rate_wait_s: All waits of one call for a provider's rate limit together; 0: do not wait.
        most_concurrent: Calls in flight for one provider and key.
    """

    connect_s: float = 10.0
    first_byte_s: float = 180.0
    read_s: float = 120.0
    total_s: float = 600.0
    rate_wait_s: float = 300.0
    most_concurrent: int = 256


@dataclass(frozen=True)
class Outgoing:
    """A call as it leaves.

    Attributes:
        url: Where to; None: the operation at the provider's base URL.
        ends_at: When the caller's time is up, on the loop's clock; None: not known.
    """

    provider: str
    access: Access
    operation: str
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    url: str | None = field(default=None, repr=False)
    ends_at: float | None = None


class Guard(Protocol):
    """What is asked before each attempt, and told when one ends without an answer."""

    async def before(self) -> None:
        """May wait, and may refuse by a `CallRefused`."""

    def failed(self, *, perhaps_paid: bool) -> None:
        """The attempt has no answer; `perhaps_paid`: the provider may have worked on it."""


class _Late(TimeoutError):
    """No first byte of an answer; `is_half`: within half of the time that the caller had left."""

    def __init__(self, seconds: float, *, is_half: bool) -> None:
        why = "half of what its rollout had left; raise the rollout's timeout for slow models"
        super().__init__(f"within {seconds:.3g} s" + (f" ({why})" if is_half else ""))


Sleep = Callable[[float], Awaitable[None]]
_T = TypeVar("_T")


class Stream:
    """The chunks of an answer that has begun. `close` it, read or not."""

    def __init__(
        self, call: Outgoing, response: aiohttp.ClientResponse, read_s: float, leave: Callable[[], None]
    ) -> None:
        self._call = call
        self._response = response
        self._read_s = _at_most(read_s, call)
        self._leave = leave
        self._is_closed = False

    async def chunks(self) -> AsyncIterator[bytes]:
        """Chunks as they come.

        Raises:
            CallRefused: If the answer is cut short, or nothing comes for `read_s` seconds.
        """
        content = self._response.content
        try:
            while True:
                async with asyncio.timeout(self._read_s):
                    chunk = await content.readany()
                if not chunk:
                    return
                yield chunk
        except (aiohttp.ClientError, TimeoutError) as error:
            raise _broken_off(self._call, error, self._read_s) from error

    @property
    def is_none(self) -> bool:
        """The provider answered with one body, and not with a stream: an error, or it cannot stream."""
        return self._response.content_type in _BODIES

    def close(self) -> None:
        if not self._is_closed:
            self._is_closed = True
            self._response.close()
            self._leave()


def _nothing() -> None:
    """The place is kept."""


class Upstream:
    """The HTTP side of all providers; `open` and `close` it on the loop that uses it.

    Args:
        environ: Where proxies are read from (`HTTPS_PROXY`, `NO_PROXY` and the like).
    """

    def __init__(
        self, *, environ: Mapping[str, str], patience: Patience | None = None, sleep: Sleep = asyncio.sleep
    ) -> None:
        self._environ = environ
        self._patience = patience or Patience()
        self._sleep = sleep
        self._session: aiohttp.ClientSession | None = None
        self._limiters: dict[tuple[str, str | None], Limiter] = {}

    async def open(self) -> None:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
        )

    async def close(self) -> None:
        for limiter in self._limiters.values():
            limiter.close()
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def post(self, call: Outgoing, guard: Guard) -> bytes:
        """Send a call and read its whole answer.

        Raises:
            CallRefused: With the provider's status and message, or 502/504 if it does not answer.
        """

        async def read(response: aiohttp.ClientResponse) -> bytes:
            async with response:
                return await response.read()

        answer, leave = await self._retried(call, guard, read)
        leave()
        return answer

    async def stream(self, call: Outgoing, guard: Guard) -> Stream:
        """Send a call and return its answer once it has begun; only the beginning is retried.

        Raises:
            CallRefused: As `post` does.
        """

        async def begun(response: aiohttp.ClientResponse) -> aiohttp.ClientResponse:
            return response

        response, leave = await self._retried(call, guard, begun)
        return Stream(call, response, self._patience.read_s, leave)

    async def _retried(
        self, call: Outgoing, guard: Guard, use: Callable[[aiohttp.ClientResponse], Awaitable[_T]]
    ) -> tuple[_T, Callable[[], None]]:
        """Try until there is an answer; return it with the function that gives its place to the next call."""
        limiter = self._limiter(call.access)
        waited, failures, refusals = 0.0, 0, 0
        while True:
            ticket = await limiter.enter(again=failures + refusals > 0)
            leave = limiter.leave_failed
            try:
                await guard.before()
                response = await self._send(call)
                if response.status < 400:
                    answer = await use(response)
                    limiter.hold(pause(response.headers, len(call.body) // BYTES_PER_TOKEN))
                    leave = _nothing
                    return answer, partial(limiter.leave_answered, ticket)
                refused = await _refusal(call, response)
                guard.failed(perhaps_paid=False)
                told = retry_after(response.headers)
                failures += refused.status != RATE
                refusals += refused.status == RATE
                wait = told if told is not None else _backoff(failures + refusals)
                if refused.status == RATE and not refused.is_fatal:
                    if wait > self._patience.rate_wait_s:  # a quota of a day: not for the limiter to wait for
                        raise refused
                    leave = partial(limiter.leave_refused, ticket, wait)
                    waited += wait
                    if waited > self._patience.rate_wait_s:
                        raise refused
                elif (
                    refused.status not in WORTH_RETRYING
                    or failures >= ATTEMPTS
                    or wait > self._patience.rate_wait_s
                ):
                    raise refused
            except (aiohttp.ClientError, TimeoutError) as error:
                guard.failed(perhaps_paid=not isinstance(error, aiohttp.ClientConnectorError))
                failures += 1
                wait = _backoff(failures + refusals)
                if failures >= ATTEMPTS:
                    raise _no_answer(call, error) from error
            except asyncio.CancelledError:
                guard.failed(perhaps_paid=True)
                raise
            finally:
                leave()
            await self._sleep(wait)

    async def _send(self, call: Outgoing) -> aiohttp.ClientResponse:
        assert self._session is not None, "the gateway has not been started"
        url = call.url or f"{call.access.base_url}/{call.operation}"
        headers = {"Content-Type": "application/json", **call.headers}
        if call.access.key is not None:
            if call.operation == MESSAGES and call.access.message_key_header is not None:
                headers[call.access.message_key_header] = call.access.key
            else:
                headers["Authorization"] = f"Bearer {call.access.key}"
        first_byte_s = _at_most(self._patience.first_byte_s, call)
        try:
            async with asyncio.timeout(first_byte_s):
                return await self._session.post(
                    url,
                    data=call.body,
                    headers=headers,
                    proxy=proxy_of(url, self._environ),
                    timeout=self._timeout(call),
                )
        except aiohttp.ClientError:  # its time-outs are both
            raise
        except TimeoutError as error:
            raise _Late(first_byte_s, is_half=first_byte_s < self._patience.first_byte_s) from error

    def _timeout(self, call: Outgoing) -> aiohttp.ClientTimeout:
        patience = self._patience
        return aiohttp.ClientTimeout(
            total=patience.total_s,
            sock_connect=patience.connect_s,
            sock_read=_at_most(max(patience.read_s, patience.first_byte_s), call),
        )

    def _limiter(self, access: Access) -> Limiter:
        key = (access.base_url, access.key)
        if key not in self._limiters:
            self._limiters[key] = Limiter(self._patience.most_concurrent)
        return self._limiters[key]


def proxy_of(url: str, environ: Mapping[str, str]) -> str | None:
    """The proxy that the environment names for a URL, as other programs read it; none for loopback."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if host in ("localhost", "::1") or host.startswith("127."):
        return None
    named = {
        name.lower().removesuffix("_proxy"): value
        for name, value in environ.items()
        if name.lower().endswith("_proxy") and value
    }
    proxy = named.get(parts.scheme) or named.get("all")
    direct = [name.strip().lower().lstrip("*.") for name in named.get("no", "").split(",") if name.strip()]
    if proxy is None or named.get("no", "").strip() == "*":
        return None
    if any(host == name or host.endswith(f".{name}") for name in direct):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


def _at_most(seconds: float, call: Outgoing) -> float:
    """So long, but for half of the time that the caller has left: the other half is for another try."""
    if call.ends_at is None:
        return seconds
    return min(seconds, max(LEAST_S, (call.ends_at - asyncio.get_running_loop().time()) / 2))


def _backoff(number: int) -> float:
    longest = min(LONGEST_BACKOFF_S, BACKOFF_S * 2.0 ** (number - 1))
    return random.uniform(0.5, 1.0) * longest  # noqa: S311 - no secret


async def _refusal(call: Outgoing, response: aiohttp.ClientResponse) -> CallRefused:
    async with response:
        text = (await response.read()).decode(errors="replace")
    try:
        body: Any = json.loads(text)
    except ValueError:
        body = None
    status = response.status
    message, kind, code = read_error(body)
    is_fatal = status in FATAL or (status == RATE and code in _NO_QUOTA)
    after = response.headers.get("Retry-After")
    return CallRefused(
        status,
        f"{call.provider} answered {status}: "
        f"{_without_keys(message or text.strip()[:1000], call) or 'no text'}",
        kind=kind or "upstream_error",
        headers={} if after is None else {"Retry-After": after},
        is_fatal=is_fatal,
    )


def read_error(body: object) -> tuple[str | None, str | None, str | None]:
    """Message, type and code of an error as providers write it; None for what is not there."""
    error = body.get("error") if isinstance(body, dict) else None
    if isinstance(error, str):
        return error, None, None
    if not isinstance(error, dict):
        return None, None, None
    found = (error.get("message"), error.get("type"), error.get("code"))
    message, kind, code = (value if isinstance(value, str) else None for value in found)
    return message, kind if kind is not None and _KIND.fullmatch(kind) else None, code or kind


def _no_answer(call: Outgoing, error: Exception) -> CallRefused:
    where = f"{call.provider} at {public_url(call.access.base_url)}"
    if isinstance(error, TimeoutError):
        when = str(error) if isinstance(error, _Late) else "in time"
        return CallRefused(504, f"{where} did not answer {when}", kind="upstream_timeout")
    text = _without_keys(str(error), call) or type(error).__name__
    return CallRefused(502, f"{where} does not answer: {text}", kind="upstream_unreachable")


def _broken_off(call: Outgoing, error: Exception, read_s: float) -> CallRefused:
    where = f"{call.provider} at {public_url(call.access.base_url)}"
    if isinstance(error, TimeoutError):
        message = f"{where} began its answer and then sent nothing for {read_s:.3g} s"
        return CallRefused(504, message, kind="upstream_timeout", is_cut_off=True)
    message = f"{where} broke its answer off: {_without_keys(str(error), call) or type(error).__name__}"
    return CallRefused(502, message, kind="upstream_unreachable", is_cut_off=True)


def _without_keys(text: str, call: Outgoing) -> str:
    """Blot out the provider's key, and the task app's own where its headers go along."""
    for name, value in call.headers.items():
        key = value.removeprefix("Bearer ")
        if name.lower() in _KEY_HEADERS and len(key) >= _KEY_CHARS:
            text = text.replace(key, "[key]")
    return hide_key(text, call.access)


def hide_key(text: str, access: Access) -> str:
    """Blot the key out of a text, whole or masked by the provider."""
    if access.key:
        text = text.replace(access.key, "[key]")
    return _MASKED.sub("[key]", text)
