"""The gateway: opens and closes rollouts, and answers their model calls over HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from pytest_synth.backend.gateway.addresses import PREFIX, parse_address
from pytest_synth.backend.gateway.calls import Answer, Caller
from pytest_synth.backend.gateway.cassette import CassetteError
from pytest_synth.backend.gateway.dialect import Dialect, dump
from pytest_synth.backend.gateway.plans import DIALECTS
from pytest_synth.backend.gateway.prices import Prices
from pytest_synth.backend.gateway.providers import CHAT, OFFLINE, access, extend, resolve
from pytest_synth.backend.gateway.recorder import (
    SAVE_S,
    CassetteSummary,
    CassetteUse,
    Recorder,
    Recorders,
    RecordMode,
)
from pytest_synth.backend.gateway.refusals import CallRefused, PolicyRefused
from pytest_synth.backend.gateway.relays import THERE, RelayTarget, is_segment, passed_on
from pytest_synth.backend.gateway.rollouts import LiveRollout, Rollout, RolloutSpec, RolloutUse
from pytest_synth.backend.gateway.spending import unknown_price
from pytest_synth.backend.gateway.upstream import Patience, Sleep, Upstream
from pytest_synth.prompts import Prompt

INFERENCE: Final = "/api/inference/v1/chat/completions"
# Of a task app's headers, those that change what the provider does; all others stay here.
_PASSED: Final = ("anthropic-version", "anthropic-beta", "openai-beta")


class Gateway:
    """Every model call of a run goes through here.

    All methods but the constructor are called on the backend's loop.

    Args:
        environ: Where provider keys and base URLs are read from.
        authorize: Gives the tenant of a request's headers, None if its key is not known; for
            `INFERENCE` only, the interceptor's URL is a capability itself.
        providers: Settings of the user's providers by name (see `providers.extend`).
        prices: The user's prices by `provider/model`: `input`, `output`, `cached_input`, in US dollars for a
            million tokens.
        cassettes: Folder that the names of cassettes start from; None: nothing is recorded or replayed.
        redact: Regular expressions of what must not get into a cassette.
        patience: Time-outs and limits of calls to providers.
        sleep: For tests.

    Attributes:
        base_url: URL of the backend as task apps reach it; set before the first rollout.

    Raises:
        ConfigError: If `providers` or `prices` are not of their form.
    """

    def __init__(
        self,
        *,
        environ: Mapping[str, str],
        authorize: Callable[[Mapping[str, str]], str | None],
        providers: Mapping[str, Mapping[str, Any]] | None = None,
        prices: Mapping[str, Mapping[str, Any]] | None = None,
        cassettes: Path | None = None,
        redact: Sequence[str] = (),
        patience: Patience | None = None,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self.base_url = ""
        self._environ = environ
        self._authorize = authorize
        self._providers = extend(providers or {})
        self._prices = Prices(prices)
        names = {name for provider in self._providers.values() for name in provider.key_variables}
        keys = [environ[name].strip() for name in sorted(names) if environ.get(name, "").strip()]
        self._recorders = Recorders(cassettes, patterns=redact, secrets=keys)
        self._upstream = Upstream(environ=environ, patience=patience, sleep=sleep)
        self._caller = Caller(
            self._upstream,
            self._recorders,
            environ=environ,
            providers=self._providers,
            prices=self._prices,
        )
        self._live: dict[tuple[str, str], LiveRollout] = {}
        self._saving: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def startup(self) -> None:
        self._loop = asyncio.get_running_loop()
        await self._upstream.open()

    async def shutdown(self) -> None:
        """Cut the calls in flight, save the cassettes, close the connections.

        Raises:
            CassetteError: If a cassette cannot be written.
        """
        for live in self._live.values():
            _cut(live)
        self._live.clear()
        if self._saving is not None:
            self._saving.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._saving
        try:
            await self._recorders.save()
        finally:
            await self._upstream.close()

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop that it runs on, once started."""
        assert self._loop is not None, "the gateway has not been started"
        return self._loop

    def routes(self) -> list[BaseRoute]:
        return [
            Route(INFERENCE, self._inference, methods=["POST"]),
            Route(PREFIX + "/{rest:path}", self._intercept, methods=["POST"]),
        ]

    def check_policy(
        self,
        policy: Mapping[str, Any],
        *,
        record_mode: str = RecordMode.OFF,
        cassette: str | None = None,
        has_budget: bool = False,
    ) -> None:
        """Refuse a policy that cannot run.

        Args:
            record_mode, cassette: As in `RolloutSpec`; a call that is replayed needs no key.
            has_budget: A ceiling is set, so the price of the model must be known.

        Raises:
            PolicyRefused: Unknown provider, a model without one, a provider with neither key nor base URL,
                an unknown record mode, a cassette that cannot be read, a model without a price.
        """
        target = resolve(policy, self._providers)
        recorder, mode = self._recorder(record_mode, cassette)
        if target.provider.name == OFFLINE:
            return
        is_replay = recorder is not None and (recorder.cassette.existed or not recorder.may_record(mode))
        if mode in (RecordMode.NONE, RecordMode.ONCE, RecordMode.NEW_EPISODES) and is_replay:
            return
        access(target.provider, self._environ)
        if (
            has_budget
            and target.model is not None
            and not self._prices.is_known(target.provider, target.model)
        ):
            raise PolicyRefused(unknown_price(target.provider.name, target.model, "max_cost"))

    def open_rollout(self, spec: RolloutSpec) -> Rollout:
        """Give a rollout its URL; calls to it are answered until `close_rollout`.

        Raises:
            PolicyRefused: As `check_policy` does for provider, model, record mode and cassette.
        """
        recorder, mode = self._recorder(spec.record_mode, spec.cassette)
        live = LiveRollout(
            spec=spec, target=resolve(spec.policy, self._providers), recorder=recorder, mode=mode
        )
        if spec.timeout_s is not None:
            live.ends_at = self.loop.time() + spec.timeout_s
        return self._opened(live)

    def open_relay(self, chat_url: str, *, prompt: Prompt | None, correlation_id: str) -> Rollout:
        """Give a rollout of another backend a URL here; its calls go on to `chat_url`, with their headers.

        Args:
            chat_url: Where the other backend wants its chat completions; its other APIs are beside it.
            correlation_id: The other backend's; it stands in the URL, where task apps look for it.

        Raises:
            ConfigError: If `chat_url` is none.
        """
        spec = RolloutSpec(
            job_id="", tenant="", split=None, seed=0, sample=0, policy={}, prompt=prompt
        )  # nothing that the other backend decides
        return self._opened(
            LiveRollout(spec=spec, target=THERE, relay=RelayTarget(chat_url)),
            correlation_id if is_segment(correlation_id) else None,
        )

    def _opened(self, live: LiveRollout, correlation_id: str | None = None) -> Rollout:
        assert self.base_url, "base_url must be set before the first rollout"
        # The pair is the only protection of the URL. Task apps look for the prefix `trace_`.
        trial_id = f"trial_{secrets.token_hex(16)}"
        correlation_id = correlation_id or f"trace_{secrets.token_hex(16)}"
        self._live[trial_id, correlation_id] = live
        url = f"{self.base_url.rstrip('/')}{PREFIX}/{trial_id}/{correlation_id}"
        return Rollout(trial_id, correlation_id, url)

    def close_rollout(self, rollout: Rollout) -> RolloutUse:
        """Say what a rollout used. Calls in flight are cut; later ones get 404.

        Raises:
            KeyError: If it is not open.
        """
        live = self._live.pop((rollout.trial_id, rollout.correlation_id))
        _cut(live)
        return live.use()

    async def ask(
        self, rollout: Rollout, body: Mapping[str, Any], *, operation: str = CHAT
    ) -> dict[str, Any]:
        """Make a call of an open rollout from inside the backend, as its URL would; never as a stream.

        Raises:
            CallRefused: If there is no answer.
        """
        live = self._live[rollout.trial_id, rollout.correlation_id]
        answer = await self._run(operation, {**body, "stream": False}, {}, live)
        value: dict[str, Any] = json.loads(answer.body)
        return value

    async def finish_cassette(self, name: str, *, record_mode: str, is_complete: bool) -> CassetteUse:
        """Save a cassette at the end of a job, and say what became of it.

        Args:
            is_complete: Every rollout of the job has run: in mode `rewrite`, what was not used goes.

        Raises:
            PolicyRefused: As `check_policy` does.
            CassetteError: If it cannot be written.
        """
        rewrites = RecordMode(record_mode) is RecordMode.REWRITE and is_complete
        return await self._recorders.open(name).finish(rewrites=rewrites)

    def describe_cassette(self, name: str) -> CassetteSummary:
        """Calls of a cassette and their cost, for a plan.

        Raises:
            PolicyRefused: If the name or the file is no cassette.
        """
        return self._recorders.summary(name)

    def _recorder(self, mode: str, name: str | None) -> tuple[Recorder | None, RecordMode]:
        if mode not in list(RecordMode):
            raise PolicyRefused(f"record mode {mode!r} is unknown; allowed: {', '.join(RecordMode)}")
        if name is None or mode == RecordMode.OFF:
            return None, RecordMode.OFF
        return self._recorders.open(name), RecordMode(mode)

    async def _inference(self, request: Request) -> Response:
        if self._authorize(request.headers) is None:
            refused = CallRefused(401, "the API key is missing or unknown", kind="authentication_error")
            return _refused(refused, DIALECTS[CHAT])
        return await self._respond(CHAT, request, None)

    async def _intercept(self, request: Request) -> Response:
        address = parse_address(request.path_params["rest"], request.url.query)
        live = self._live.get((address.trial_id, address.correlation_id or ""))
        dialect = DIALECTS[address.operation or CHAT]
        if live is None:
            message = "no open rollout has this URL: it never existed, or is over"
            return _refused(CallRefused(404, message, kind="not_found_error"), dialect)
        if address.operation is None:
            served = ", ".join(f"/{operation}" for operation in DIALECTS)
            message = f"this path is not served; POST to one of {served}"
            return _refused(CallRefused(404, message, kind="not_found_error"), dialect)
        return await self._respond(address.operation, request, live)

    async def _respond(self, operation: str, request: Request, live: LiveRollout | None) -> Response:
        if live is not None and live.relay is not None:
            headers = passed_on(request.headers)
        else:
            headers = {name: request.headers[name] for name in _PASSED if name in request.headers}
        dialect = DIALECTS[operation]
        try:
            answer = await self._run(operation, await request.body(), headers, live)
        except CallRefused as refused:
            return _refused(refused, dialect)
        if answer.events is None:
            return Response(answer.body, media_type="application/json")
        return _EventStream(answer, dialect)

    async def _run(
        self,
        operation: str,
        raw: bytes | dict[str, Any],
        headers: Mapping[str, str],
        live: LiveRollout | None,
    ) -> Answer:
        if live is None:
            return await self._caller.answer(operation, raw, headers, None)
        if live.recorder is not None and self._saving is None:
            self._saving = asyncio.create_task(self._save_often())
        task = asyncio.ensure_future(self._caller.answer(operation, raw, headers, live))
        live.running.add(task)
        task.add_done_callback(live.running.discard)
        try:
            return await task
        except asyncio.CancelledError:
            if not live.closed:
                task.cancel()
                raise
            raise CallRefused(404, "the rollout of this call is over", kind="not_found_error") from None

    async def _save_often(self) -> None:
        while True:
            await asyncio.sleep(SAVE_S)
            with contextlib.suppress(CassetteError):  # `finish_cassette` tries again, and raises it
                await self._recorders.save()


class _EventStream(StreamingResponse):
    """A stream that ends with an error event if it breaks: its status has been sent already."""

    def __init__(self, answer: Answer, dialect: Dialect) -> None:
        assert answer.events is not None
        super().__init__(
            _told(answer.events, dialect),
            media_type="text/event-stream",
            headers={"Cache-Control": "no-cache"},
        )
        self._close = answer.close

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._close()


async def _told(events: AsyncIterator[bytes], dialect: Dialect) -> AsyncIterator[bytes]:
    try:
        async for event in events:
            yield event
    except CallRefused as refused:
        body = dialect.error_body(refused.message, refused.kind, refused.status)
        name = b"event: error\n" if "type" in body else b""
        yield name + b"data: " + dump(body) + b"\n\n"


def _refused(refused: CallRefused, dialect: Dialect) -> Response:
    body = dialect.error_body(refused.message, refused.kind, refused.status)
    return JSONResponse(body, status_code=refused.status, headers=refused.headers)


def _cut(live: LiveRollout) -> None:
    live.closed = True
    for task in live.running:
        task.cancel()
    for close in tuple(live.streams):
        close()
