"""The gateway: opens and closes rollouts, and answers their model calls over HTTP."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Route

from pytest_synth.backend.gateway import chat
from pytest_synth.backend.gateway.addresses import PREFIX, parse_address
from pytest_synth.backend.gateway.calls import Answer, Caller
from pytest_synth.backend.gateway.dialect import dump
from pytest_synth.backend.gateway.providers import access, resolve
from pytest_synth.backend.gateway.refusals import CallRefused
from pytest_synth.backend.gateway.rollouts import LiveRollout, Rollout, RolloutSpec, RolloutUse
from pytest_synth.backend.gateway.upstream import Sleep, Timeouts, Upstream

INFERENCE = "/api/inference/v1/chat/completions"


class Gateway:
    """Every model call of a run goes through here.

    All methods but the constructor are called on the backend's loop.

    Args:
        environ: Where provider keys and base URLs are read from.
        authorize: Gives the tenant of a request's headers, None if its key is not known; for
            `INFERENCE` only, the interceptor's URL is a capability itself.
        timeouts, sleep: For tests.

    Attributes:
        base_url: URL of the backend as task apps reach it; set before the first rollout.
    """

    def __init__(
        self,
        *,
        environ: Mapping[str, str],
        authorize: Callable[[Mapping[str, str]], str | None],
        timeouts: Timeouts | None = None,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self.base_url = ""
        self._environ = environ
        self._authorize = authorize
        self._upstream = Upstream(timeouts=timeouts, sleep=sleep)
        self._caller = Caller(self._upstream, environ=environ)
        self._live: dict[tuple[str, str], LiveRollout] = {}

    async def startup(self) -> None:
        await self._upstream.open()

    async def shutdown(self) -> None:
        """Cut the calls in flight and close the connections."""
        for live in self._live.values():
            _cut(live)
        self._live.clear()
        await self._upstream.close()

    def routes(self) -> list[BaseRoute]:
        return [
            Route(INFERENCE, self._inference, methods=["POST"]),
            Route(PREFIX + "/{rest:path}", self._intercept, methods=["POST"]),
        ]

    def check_policy(self, policy: Mapping[str, Any]) -> None:
        """Refuse a policy that cannot run.

        Raises:
            PolicyRefused: Unknown provider, a model without one, or a provider with neither key nor base URL.
        """
        target = resolve(policy)
        if target.provider.base_url is not None:
            access(target.provider, self._environ)

    def open_rollout(self, spec: RolloutSpec) -> Rollout:
        """Give a rollout its URL; calls to it are answered until `close_rollout`.

        Raises:
            PolicyRefused: As `check_policy` does for the provider's name and model.
        """
        assert self.base_url, "base_url must be set before the first rollout"
        live = LiveRollout(spec=spec, target=resolve(spec.policy))
        # The pair is the only protection of the URL. Task apps look for the prefix `trace_`.
        trial_id, correlation_id = f"trial_{secrets.token_hex(8)}", f"trace_{secrets.token_hex(16)}"
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

    async def _inference(self, request: Request) -> Response:
        if self._authorize(request.headers) is None:
            return _refused(
                CallRefused(401, "the API key is missing or unknown", kind="authentication_error")
            )
        return await self._answer(await request.body(), None)

    async def _intercept(self, request: Request) -> Response:
        address = parse_address(request.path_params["rest"], request.url.query)
        live = self._live.get((address.trial_id, address.correlation_id or ""))
        if live is None:
            return _refused(
                CallRefused(
                    404, "no open rollout has this URL: it never existed, or is over", kind="not_found_error"
                )
            )
        if address.operation != chat.OPERATION:
            what = "this path" if address.operation is None else f"/{address.operation}"
            return _refused(
                CallRefused(404, f"{what} is not served; POST to /{chat.OPERATION}", kind="not_found_error")
            )
        return await self._answer(await request.body(), live)

    async def _answer(self, raw: bytes, live: LiveRollout | None) -> Response:
        try:
            if live is None:
                answer = await self._caller.answer(raw, None)
            else:
                task = asyncio.ensure_future(self._caller.answer(raw, live))
                live.running.add(task)
                task.add_done_callback(live.running.discard)
                answer = await _finished(task, live)
        except CallRefused as refused:
            return _refused(refused)
        return _response(answer)


async def _finished(task: asyncio.Task[Answer], live: LiveRollout) -> Answer:
    try:
        return await task
    except asyncio.CancelledError:
        if not live.closed:
            task.cancel()
            raise
        raise CallRefused(404, "the rollout of this call is over", kind="not_found_error") from None


def _cut(live: LiveRollout) -> None:
    live.closed = True
    for task in live.running:
        task.cancel()


def _response(answer: Answer) -> Response:
    if answer.events is None:
        return Response(answer.body, media_type="application/json")
    return StreamingResponse(
        _told(answer.events), media_type="text/event-stream", headers={"Cache-Control": "no-cache"}
    )


async def _told(events: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """End a stream that breaks with an error event: its status has been sent already."""
    try:
        async for event in events:
            yield event
    except CallRefused as refused:
        yield b"data: " + dump(_error(refused)) + b"\n\n"


def _refused(refused: CallRefused) -> Response:
    return JSONResponse(_error(refused), status_code=refused.status, headers=refused.headers)


def _error(refused: CallRefused) -> dict[str, Any]:
    return {
        "error": {"message": refused.message, "type": refused.kind, "param": None, "code": refused.status}
    }
