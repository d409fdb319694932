"""Model calls of a rollout: where they go, how they are sent, what a refusal becomes."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import aiohttp

from pytest_synth.contracts.rollouts import RolloutRequest
from pytest_synth.errors import ConfigError, ModelAnswerError, ModelCallError
from pytest_synth.localapi.replies import Reply

_CONNECT_S = 10.0
_KEEP_ALIVE_S = 4.0  # below uvicorn's 5 s, so that no call goes out on a connection that is just being closed
_QUOTED = 500  # characters of an error answer that are passed on

# Parameters of the policy that are sent with each call unless the call names its own.
_POLICY_DEFAULTS = (
    "model",
    "temperature",
    "top_p",
    "max_completion_tokens",
    "max_tokens",
    "seed",
    "stop",
    "reasoning_effort",
)


def chat_completions_url(inference_url: str) -> str:
    """Make the URL for chat completions of a policy's `inference_url`; the query is kept.

        https://host                       -> https://host/v1/chat/completions
        https://host/v1                    -> https://host/v1/chat/completions
        https://host/v1/trial/trace_1?a=b  -> https://host/v1/trial/trace_1/chat/completions?a=b
        https://host/x/chat                -> https://host/x/chat/completions
        https://host/x/chat/completions    -> unchanged
        https://host?cid=1/v1              -> https://host/v1/chat/completions?cid=1

    Raises:
        ConfigError: If it is no http(s) URL. An empty one does not mean a public service here.
    """
    parts = urlsplit(inference_url.strip())
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(f"inference_url is {inference_url!r}, not an http or https URL")
    path, query = parts.path.rstrip("/"), parts.query
    if "/" in query:  # somebody appended a path to a URL that had a query
        query, _, glued = query.partition("/")
        glued, _, rest = glued.replace("?", "&", 1).partition("&")
        path = f"{path}/{glued}".rstrip("/")
        query = "&".join(part for part in (query, rest) if part)
    if path.endswith("/chat/completions"):
        pass
    elif path.endswith("/chat"):
        path += "/completions"
    elif "/v1/" in f"{path}/":
        path += "/chat/completions"
    else:
        path += "/v1/chat/completions"
    return urlunsplit((parts.scheme, parts.netloc, path, query, ""))


class Sessions:
    """The one HTTP session of an app; a rollout of an app without lifespan gets one of its own."""

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None

    async def open(self) -> None:
        self._session = _new_session()

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    @asynccontextmanager
    async def lease(self) -> AsyncIterator[aiohttp.ClientSession]:
        if self._session is not None:
            yield self._session
            return
        async with _new_session() as session:
            yield session


class ChatCalls:
    """Sends the chat completions of one rollout to the `inference_url` of its policy."""

    def __init__(self, request: RolloutRequest, session: aiohttp.ClientSession) -> None:
        self.policy: Mapping[str, Any] = request.policy.config
        self._session = session
        self._timeout = aiohttp.ClientTimeout(total=request.safety.max_time_s, sock_connect=_CONNECT_S)

    async def send(self, messages: Sequence[Mapping[str, Any]], parameters: Mapping[str, Any]) -> Reply:
        """Send one call.

        Raises:
            ModelCallError: If it is refused, or not answered.
            ConfigError: If the policy has no usable `inference_url`, or no model is named.
        """
        url = self._url()
        body = self._body(messages, parameters)
        key = self.policy.get("api_key")
        headers = {"X-API-Key": key} if isinstance(key, str) and key else None
        try:
            async with self._session.post(
                url, json=body, headers=headers, timeout=self._timeout, allow_redirects=False
            ) as response:
                text = await response.text(errors="replace")
        except TimeoutError as error:
            raise ModelCallError(f"model call failed: no answer from {_origin(url)} in time") from error
        except aiohttp.ClientError as error:
            raise ModelCallError(
                f"model call failed: no answer from {_origin(url)}: {type(error).__name__}: {error}"
            ) from error
        if response.status != 200:
            raise ModelCallError(
                f"model call failed with {response.status}: {_problem(text)}", status_code=response.status
            )
        try:
            return Reply.parse(text)
        except ModelAnswerError as error:
            raise ModelCallError(f"model call failed: {error}", status_code=response.status) from error

    def _url(self) -> str:
        url = self.policy.get("inference_url")
        if not isinstance(url, str) or not url.strip():
            raise ConfigError("policy.config has no inference_url: the caller must say where model calls go")
        return chat_completions_url(url)

    def _body(self, messages: Sequence[Mapping[str, Any]], parameters: Mapping[str, Any]) -> dict[str, Any]:
        if parameters.get("stream"):
            raise ConfigError("llm.chat gives whole answers and cannot stream; leave stream=True out")
        body: dict[str, Any] = {
            name: self.policy[name] for name in _POLICY_DEFAULTS if self.policy.get(name) is not None
        }
        given = {name: value for name, value in parameters.items() if value is not None}
        if "max_tokens" in given or "max_completion_tokens" in given:  # two names of one limit
            body.pop("max_tokens", None)
            body.pop("max_completion_tokens", None)
        body.update(given)
        if "model" not in body:
            raise ConfigError("no model: neither policy.config nor the call names one")
        return {**body, "messages": [dict(message) for message in messages]}


def _new_session() -> aiohttp.ClientSession:
    # No limit here: the backend bounds the rollouts in flight. No cookies between rollouts.
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=_KEEP_ALIVE_S),
        cookie_jar=aiohttp.DummyCookieJar(),
    )


def _origin(url: str) -> str:
    """Scheme and host: the path of a gateway's URL is a capability and belongs in no message."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def _problem(text: str) -> str:
    """Read the message of an error answer: `error.message`, else `detail`, else its text."""
    try:
        document = json.loads(text)
    except ValueError:
        document = None
    found: object = document
    if isinstance(document, Mapping):
        found = document.get("error") or document.get("detail") or document.get("message")
        if isinstance(found, Mapping) and isinstance(found.get("error"), Mapping):
            found = found["error"]
        if isinstance(found, Mapping):
            found = found.get("message") or json.dumps(found)
    message = found if isinstance(found, str) and found else text.strip()
    return message[:_QUOTED] if message else "no message"
