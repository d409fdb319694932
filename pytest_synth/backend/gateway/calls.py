"""One model call: read the body, put the prompt under test in, ask the provider, note what came back."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pytest_synth.backend.gateway import chat
from pytest_synth.backend.gateway.dialect import Usage, dump
from pytest_synth.backend.gateway.providers import OFFLINE, Target, access, resolve
from pytest_synth.backend.gateway.refusals import CallRefused, PolicyRefused
from pytest_synth.backend.gateway.rollouts import LiveRollout, ModelCall, shorten
from pytest_synth.backend.gateway.sse import EventCutter, json_of
from pytest_synth.backend.gateway.upstream import Upstream

# Settings of the policy that a call of the policy gets where the task app sent none.
_FILLED = ("temperature", "top_p", "max_tokens", "max_completion_tokens")
_LIMITS = frozenset({"max_tokens", "max_completion_tokens"})


@dataclass(frozen=True)
class Answer:
    """What the caller gets: a body, or the events of a stream."""

    body: bytes
    events: AsyncIterator[bytes] | None = None


@dataclass(frozen=True)
class _Plan:
    """A call ready to be sent.

    Attributes:
        is_policy: It is the policy's own call, not a judge's.
        wants_usage: The caller asked for the usage of a stream.
    """

    target: Target
    model: str
    body: dict[str, Any]
    is_policy: bool
    streams: bool
    wants_usage: bool


class Caller:
    """Answers model calls.

    Args:
        environ: Where keys and base URLs are read from, at each call.
        clock: Seconds, for latencies.
    """

    def __init__(
        self,
        upstream: Upstream,
        *,
        environ: Mapping[str, str],
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._upstream = upstream
        self._environ = environ
        self._clock = clock

    async def answer(self, raw: bytes, live: LiveRollout | None) -> Answer:
        """Answer one call; `live` is its rollout, None for a call outside of one.

        Raises:
            CallRefused: If there is no answer; it is noted in the rollout too.
        """
        plan = self._plan(_parse(raw), live)
        started = self._clock()
        try:
            answer = await self._ask(plan, live, started)
        except CallRefused as refused:
            self._note(plan, live, started, None, refused.status, refused.message)
            raise
        if live is not None and plan.is_policy and live.spec.prompt is not None:
            live.applied = live.spec.prompt.system is not None
        return answer

    def _plan(self, body: dict[str, Any], live: LiveRollout | None) -> _Plan:
        problem = chat.refuse_body(body)
        if problem is not None:
            raise CallRefused(400, problem)
        body = {key: value for key, value in body.items() if key != "thinking_budget"}
        is_policy = False
        if live is None:
            target = _target_of(body)
        else:
            target = live.target
            system = chat.system_text(body)
            is_policy = live.claim(system)
            if is_policy:
                body = _filled(body, live.spec.policy)
                under_test = None if live.spec.prompt is None else live.spec.prompt.system
                if under_test is not None:
                    body, system = chat.with_system(body, under_test), under_test
                live.system_ran = system
                live.query = shorten(chat.query_of(body))
        model = self._model(body, target, is_policy=is_policy or live is None)
        streams = bool(body.get("stream"))
        options = body.get("stream_options")
        wants_usage = isinstance(options, dict) and bool(options.get("include_usage"))
        body["model"] = model
        if streams:
            body["stream_options"] = {**(options if isinstance(options, dict) else {}), "include_usage": True}
        return _Plan(target, model, body, is_policy, streams, wants_usage)

    def _model(self, body: Mapping[str, Any], target: Target, *, is_policy: bool) -> str:
        """The policy's model for its own calls; a judge's call keeps the model that it names."""
        named = body.get("model")
        if target.model is not None and (is_policy or target.provider.name == OFFLINE):
            return target.model
        if isinstance(named, str) and named:
            return named.removeprefix(f"{target.provider.name}/")
        if target.model is not None:
            return target.model
        raise CallRefused(400, "neither the policy nor the call names a model")

    async def _ask(self, plan: _Plan, live: LiveRollout | None, started: float) -> Answer:
        if plan.target.provider.name == OFFLINE:
            response = _offline(plan)
            self._note(plan, live, started, response, 200, None)
            if not plan.streams:
                return Answer(dump(response))
            return Answer(b"", _replay(response, usage=plan.wants_usage))
        name = plan.target.provider.name
        try:
            reach = access(plan.target.provider, self._environ)
        except PolicyRefused as refused:
            raise CallRefused(422, str(refused)) from refused
        payload = dump(plan.body)
        if plan.streams:
            chunks = await self._upstream.stream(name, reach, chat.OPERATION, payload)
            return Answer(b"", self._relay(plan, live, started, chunks))
        answer = await self._upstream.post(name, reach, chat.OPERATION, payload)
        self._note(plan, live, started, _object(name, answer), 200, None)
        return Answer(answer)

    async def _relay(
        self, plan: _Plan, live: LiveRollout | None, started: float, chunks: AsyncIterator[bytes]
    ) -> AsyncIterator[bytes]:
        cutter, assembler = EventCutter(), chat.assembler()
        error: str | None = "the task app closed the stream before its end"
        try:
            async for chunk in chunks:
                if live is not None and live.closed:
                    return
                for event in cutter.feed(chunk):
                    value = json_of(event)
                    if value is not None:
                        assembler.feed(value)
                        if not plan.wants_usage and not value.get("choices") and value.get("usage"):
                            continue  # asked for by us; a caller who did not ask may read choices[0]
                    yield event
            if cutter.rest:
                yield cutter.rest
            error = None
        except CallRefused as refused:
            error = refused.message
            raise
        finally:
            self._note(plan, live, started, assembler.response, 200, error)

    def _note(
        self,
        plan: _Plan,
        live: LiveRollout | None,
        started: float,
        response: dict[str, Any] | None,
        status: int,
        error: str | None,
    ) -> None:
        if live is None or live.closed:
            return
        usage = chat.usage_of(response or {}) or Usage(0, 0)
        if plan.is_policy and response is not None:
            live.answer = shorten(chat.answer_of(response))
        live.calls.append(
            ModelCall(
                provider=plan.target.provider.name,
                model=plan.model,
                request=plan.body,
                response=response,
                status=status,
                latency_ms=(self._clock() - started) * 1000,
                prompt_tokens=usage.prompt_tokens,
                completion_tokens=usage.completion_tokens,
                cost_usd=0.0 if plan.target.provider.name == OFFLINE else None,
                error=error,
            )
        )


def _parse(raw: bytes) -> dict[str, Any]:
    try:
        body = json.loads(raw)
    except ValueError as error:
        raise CallRefused(400, f"the body is not JSON: {error}") from error
    if not isinstance(body, dict):
        raise CallRefused(400, f"the body is {type(body).__name__}, not an object")
    return body


def _target_of(body: Mapping[str, Any]) -> Target:
    if not body.get("model"):
        raise CallRefused(400, "'model' is missing; write 'provider/model', such as 'offline/lexical'")
    try:
        return resolve({"model": body["model"]})
    except PolicyRefused as refused:
        raise CallRefused(400, str(refused).replace("policy.model", "model", 1)) from refused


def _filled(body: dict[str, Any], policy: Mapping[str, Any]) -> dict[str, Any]:
    limited = bool(_LIMITS & body.keys())
    for name in _FILLED:
        if policy.get(name) is not None and name not in body and not (limited and name in _LIMITS):
            body[name] = policy[name]
            limited = limited or name in _LIMITS
    return body


def _object(name: str, answer: bytes) -> dict[str, Any]:
    try:
        value = json.loads(answer)
    except ValueError as error:
        raise CallRefused(
            502, f"{name} answered 200 with no JSON: {answer[:200]!r}", kind="upstream_error"
        ) from error
    if not isinstance(value, dict):
        raise CallRefused(502, f"{name} answered 200 with no object: {answer[:200]!r}", kind="upstream_error")
    return value


def _offline(plan: _Plan) -> dict[str, Any]:
    from pytest_synth.backend.gateway.offline import OfflineRefusal, complete

    try:
        return complete(plan.body, plan.model)
    except OfflineRefusal as refused:
        raise CallRefused(refused.status, refused.message) from refused


async def _replay(response: Mapping[str, Any], *, usage: bool) -> AsyncIterator[bytes]:
    for event in chat.events_of(response, usage=usage):
        yield event
        await asyncio.sleep(0)  # other calls go on between two events
