"""The task app as a backend without prompt substitution sees it: each job below a path of its own.

A rollout that arrives there gets, in place of the `inference_url` that the backend gave, one of our own
gateway, which puts the job's prompt in and hands the model calls on to the backend's URL. What was seen of
the rollout is noted before the backend gets the answer.
"""

from __future__ import annotations

import json
import secrets
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar, cast
from urllib.parse import urlsplit

from pytest_synth._serving import monotonic
from pytest_synth.contracts.rewards import read_reward
from pytest_synth.errors import ConfigError
from pytest_synth.localapi.inference import chat_completions_url

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from pytest_synth.backend import RunningBackend
    from pytest_synth.prompts import Prompt

_CHAT = "/chat/completions"
_HIDDEN = "[hidden]"
_SECRET_CHARS = 6  # what is shorter is a word
T = TypeVar("T")


@dataclass(frozen=True)
class Note:
    """What was seen of one rollout on this machine.

    Attributes:
        correlation_id: The backend's.
        is_answered: The task app answered with status 200.
        reward: Of that answer, if it has one.
        latency_ms: From the request to the end of the answer.
        calls, tokens: Of the model calls; 0 tokens when no usage was reported.
        prompt_applied: None when no prompt was to be applied.
        prompt_reason: Why the prompt was not applied.
        prompt_fingerprint, replaced_fingerprint, query, answer: As in `EvalRow`.
        model_error: Why no model call was answered; None if one was, or none was made.
        objectives, details: As the task app gave them with its reward.
    """

    seed: int
    correlation_id: str
    is_answered: bool
    reward: float | None = None
    latency_ms: float = 0.0
    calls: int = 0
    tokens: int = 0
    prompt_applied: bool | None = None
    prompt_reason: str | None = None
    prompt_fingerprint: str | None = None
    replaced_fingerprint: str | None = None
    query: str | None = None
    answer: str | None = None
    model_error: str | None = None
    objectives: Mapping[str, float] = field(default_factory=dict)
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass
class _Job:
    prompt: Prompt | None
    notes: list[Note] = field(default_factory=list)


class JobRoutes:
    """An ASGI app around a task app; `open` and `close` are called from any thread.

    Args:
        app: The task app.
        gateway: The backend of ours whose gateway the model calls go through.
        hidden: Keys that must not get into a note, whatever the task app echoes.
    """

    def __init__(self, app: ASGIApp, gateway: RunningBackend, *, hidden: Sequence[str] = ()) -> None:
        self._app = app
        self._gateway = gateway
        self._hidden = hidden
        self._jobs: dict[str, _Job] = {}
        self._lock = threading.Lock()

    def open(self, prompt: Prompt | None) -> str:
        """Give a job its path, such as `/synth-Qp3...`, which cannot be guessed."""
        path = f"/synth-{secrets.token_urlsafe(16)}"
        with self._lock:
            self._jobs[path] = _Job(prompt)
        return path

    def close(self, path: str) -> tuple[Note, ...]:
        """Say what was seen of a job's rollouts, in the order of their ends; later ones get 404."""
        with self._lock:
            return tuple(self._jobs.pop(path).notes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["path"].startswith("/synth-"):
            await self._app(scope, receive, send)
            return
        path, _, rest = scope["path"][1:].partition("/")
        job = self._jobs.get(f"/{path}")
        if job is None:
            await _refuse(send, "no job has this path: it never existed, or is over")
            return
        raw: bytes = scope.get("raw_path") or scope["path"].encode()
        inner = {**scope, "path": f"/{rest}", "raw_path": raw[len(path) + 1 :] or b"/"}
        if scope["method"] == "POST" and rest.rstrip("/") == "rollout":
            await self._rollout(job, inner, receive, send)
        else:
            await self._app(inner, receive, send)

    async def _rollout(self, job: _Job, scope: Scope, receive: Receive, send: Send) -> None:
        body = await _body(receive)
        rollout = _Rollout.read(body)
        if rollout is None:  # the task app says what is wrong with it
            await self._app(scope, _replayed(body, receive), send)
            return
        relay, reason = None, None
        try:
            relay = await self._gateway.open_relay(
                chat_completions_url(rollout.inference_url),
                prompt=job.prompt,
                correlation_id=rollout.correlation_id,
            )
            rollout.redirect(relay.inference_url)
        except ConfigError:
            reason = "the backend gave the rollout no inference_url to which model calls could be handed on"
        status, answer, is_noted = 0, bytearray(), False

        async def note() -> None:
            nonlocal is_noted
            if is_noted:
                return
            is_noted = True
            seen = {"prompt_applied": None if job.prompt is None else False, "prompt_reason": reason}
            if relay is not None:
                seen = vars(await relay.close())
            job.notes.append(rollout.note(status, bytes(answer), seen, self._hidden))

        async def send_on(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            elif message["type"] == "http.response.body":
                answer.extend(message.get("body", b""))
                if not message.get("more_body", False):
                    await note()  # before the backend knows that the rollout is over
            await send(message)

        try:
            await self._app(_with_length(scope, len(rollout.body)), _replayed(rollout.body, receive), send_on)
        finally:
            await note()


class _Rollout:
    """A rollout request, as far as it concerns us."""

    def __init__(self, document: dict[str, Any]) -> None:
        self._started = monotonic()
        self._document = document
        self._config: dict[str, Any] = document["policy"]["config"]
        self.seed = int(document["env"]["seed"])
        self.correlation_id = str(document.get("trace_correlation_id") or "")
        self.inference_url = str(self._config.get("inference_url") or "")
        self.body = json.dumps(document).encode()

    @classmethod
    def read(cls, body: bytes) -> _Rollout | None:
        """Read a request; None if it is not of the form that every backend sends."""
        try:
            return cls(json.loads(body))
        except (ValueError, LookupError, TypeError, AttributeError):
            return None

    def redirect(self, inference_url: str) -> None:
        """Give the task app another URL, which it makes the same of as of the backend's."""
        is_whole = urlsplit(self.inference_url).path.rstrip("/").endswith(_CHAT)
        self._config["inference_url"] = inference_url + (_CHAT if is_whole else "")
        self.body = json.dumps(self._document).encode()

    def note(self, status: int, answer: bytes, seen: Mapping[str, Any], hidden: Sequence[str]) -> Note:
        """Make the note; what the task app echoes of its key, or of the policy's, is taken out."""
        try:
            reading = read_reward(json.loads(answer))
        except ValueError:
            reading = read_reward(None)
        keys = [key for key in (self._config.get("api_key"), *hidden) if isinstance(key, str)]
        hidden = [key for key in keys if len(key) >= _SECRET_CHARS]
        return Note(
            seed=self.seed,
            correlation_id=self.correlation_id,
            is_answered=status == 200,
            reward=reading.reward if status == 200 else None,
            latency_ms=round((monotonic() - self._started) * 1000, 3),
            objectives=dict(reading.objectives),
            **{name: _without(value, hidden) for name, value in seen.items()},
            details=_without(dict(reading.details), hidden),
        )


async def _body(receive: Receive) -> bytes:
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] != "http.request":  # the backend has gone away
            return bytes(body)
        body.extend(message.get("body", b""))
        if not message.get("more_body", False):
            return bytes(body)


def _replayed(body: bytes, receive: Receive) -> Receive:
    """The rest of a connection whose request body was read already: the body again, then what comes."""
    is_given = False

    async def again() -> Message:
        nonlocal is_given
        if is_given:
            return await receive()
        is_given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again


def _with_length(scope: Scope, length: int) -> Scope:
    kept = [(n, v) for n, v in scope["headers"] if n not in (b"content-length", b"transfer-encoding")]
    return {**scope, "headers": [*kept, (b"content-length", str(length).encode())]}


async def _refuse(send: Send, message: str) -> None:
    body = json.dumps({"detail": message}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 404, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _without(value: T, hidden: Sequence[str]) -> T:
    found: Any = value
    if isinstance(found, str):
        for key in hidden:
            found = found.replace(key, _HIDDEN)
    elif isinstance(found, dict):
        found = {_without(name, hidden): _without(inner, hidden) for name, inner in found.items()}
    elif isinstance(found, list):
        found = [_without(inner, hidden) for inner in found]
    return cast(T, found)
