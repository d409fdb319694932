"""One model call: planned, answered by a provider or a cassette, noted."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from pytest_synth.backend.gateway.bodies import MALFORMED, read_object, unreadable
from pytest_synth.backend.gateway.dialect import Usage, dump
from pytest_synth.backend.gateway.entries import Entry, Identity
from pytest_synth.backend.gateway.plans import Plan, parse, plan_call
from pytest_synth.backend.gateway.prices import Prices
from pytest_synth.backend.gateway.providers import CHAT, OFFLINE, Access, Provider, access, adapt
from pytest_synth.backend.gateway.recorder import Recorders, RecordMode
from pytest_synth.backend.gateway.refusals import CallRefused, PolicyRefused
from pytest_synth.backend.gateway.rollouts import LiveRollout, ModelCall, shorten
from pytest_synth.backend.gateway.spending import Spending
from pytest_synth.backend.gateway.sse import EventCutter, json_of
from pytest_synth.backend.gateway.upstream import Outgoing, Stream, Upstream, hide_key, read_error


@dataclass(frozen=True)
class Answer:
    """What the caller gets: a body, or the events of a stream, to be closed read or not."""

    body: bytes
    events: AsyncIterator[bytes] | None = None
    close: Callable[[], None] = lambda: None


class Caller:
    """Answers model calls.

    Args:
        environ: Where keys and base URLs are read from, at each call.
        clock: Seconds, for latencies.
    """

    def __init__(
        self,
        upstream: Upstream,
        recorders: Recorders,
        *,
        environ: Mapping[str, str],
        providers: Mapping[str, Provider],
        prices: Prices,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._upstream = upstream
        self._recorders = recorders
        self._environ = environ
        self._providers = providers
        self._prices = prices
        self._clock = clock

    async def answer(
        self,
        operation: str,
        raw: bytes | dict[str, Any],
        headers: Mapping[str, str],
        live: LiveRollout | None,
    ) -> Answer:
        """Answer one call; `live` is its rollout, None for a call outside of one.

        Raises:
            CallRefused: If there is no answer; it is noted in the rollout too.
        """
        started = self._clock()
        body = parse(raw) if isinstance(raw, bytes) else raw
        plan = plan_call(operation, body, headers, live, self._providers)
        note = _Note(self, plan, live, started)
        try:
            return await self._recorded(plan, live, note)
        except CallRefused as refused:
            note.refused(refused)
            raise

    async def _recorded(self, plan: Plan, live: LiveRollout | None, note: _Note) -> Answer:
        """Answer by the cassette, or by the provider while recording it."""
        if live is None or live.recorder is None or live.mode is RecordMode.OFF or _is_offline(plan):
            return await self._ask(plan, live, note)
        request, is_redacted = self._recorders.request_of(plan.body)
        identity = Identity(
            plan.operation,
            plan.provider.name,
            plan.model,
            request,
            live.spec.sample,
            seed=live.spec.seed if is_redacted else None,
        )
        identity = replace(identity, repeat=live.take_repeat(identity.call_key))
        try:
            entry = await live.recorder.find(identity, live.mode)
        except BaseException:
            live.give_back_repeat(identity.call_key, identity.repeat)
            raise
        if entry is not None:
            note.replayed(entry)
            return _whole(plan, entry.response)
        note.identity = identity
        try:
            return await self._ask(plan, live, note)
        except BaseException:
            note.forget()
            raise

    async def _ask(self, plan: Plan, live: LiveRollout | None, note: _Note) -> Answer:
        if _is_offline(plan):
            response = _offline(plan)
            note.answered(response)
            return _whole(plan, response)
        there = None if live is None else live.relay
        try:
            reach = access(plan.provider, self._environ) if there is None else there.access
        except PolicyRefused as refused:
            raise CallRefused(422, str(refused), is_fatal=True) from refused
        call = self._outgoing(plan, reach, note)
        if there is not None:
            call = replace(call, url=there.url_of(plan.operation))
        if live is not None:
            call = replace(call, ends_at=live.ends_at)
        note.spending = Spending(None if live is None else live.spec.budget, plan, call.body, self._prices)
        if plan.streams:
            stream = await self._upstream.stream(call, note.spending)
            if stream.is_none:
                return await self._taken_apart(plan, stream, note, reach)
            relay = _Relay(plan, stream, note, reach)
            if live is not None:
                relay.streams = live.streams
                relay.streams.add(relay.close)
            return Answer(b"", relay.events(), relay.close)
        answer = await self._upstream.post(call, note.spending)
        note.may_be_paid = True
        note.answered(read_object(plan.provider.name, answer, reach))
        return Answer(answer)

    async def _taken_apart(self, plan: Plan, stream: Stream, note: _Note, reach: Access) -> Answer:
        """Make a stream of an answer that is none."""
        note.may_be_paid = True
        try:
            body = b"".join([chunk async for chunk in stream.chunks()])
        except BaseException:
            note.lost()
            raise
        finally:
            stream.close()
        response = read_object(plan.provider.name, body, reach)
        try:
            list(plan.dialect.events_of(response, usage=True))
        except MALFORMED as error:
            raise unreadable(plan.provider.name, plan.operation, body, reach) from error
        note.answered(response)
        return _whole(plan, response)

    def _outgoing(self, plan: Plan, reach: Access, note: _Note) -> Outgoing:
        body = dict(plan.body)
        if plan.streams and plan.operation == CHAT and plan.provider.stream_usage:
            options = body.get("stream_options")
            body["stream_options"] = {**(options if isinstance(options, dict) else {}), "include_usage": True}
        note.left_out = adapt(body, plan.operation, plan.target, plan.model, own_url=reach.is_own_url)
        note.body = body
        return Outgoing(plan.provider.name, reach, plan.operation, dump(body), plan.headers)

    def cost(self, plan: Plan, response: Mapping[str, Any] | None, usage: Usage | None) -> float | None:
        """US dollars; the provider's own figure where it tells one."""
        told = (response or {}).get("usage")
        if plan.provider.name == "openrouter" and isinstance(told, dict):
            cost = told.get("cost")
            if isinstance(cost, int | float) and not isinstance(cost, bool):
                return float(cost)
        if usage is None:
            return 0.0 if plan.provider.local else None
        return self._prices.cost(plan.provider, plan.model, usage)

    def now(self) -> float:
        return self._clock()

    def cleaned(self, response: dict[str, Any]) -> dict[str, Any]:
        return self._recorders.cleaned(response)


class _Note:
    """Writes down how a call went: in its rollout, its budget and its cassette, once."""

    def __init__(self, caller: Caller, plan: Plan, live: LiveRollout | None, started: float) -> None:
        self._caller = caller
        self._plan = plan
        self._live = live
        self._started = started
        self.body = plan.body
        self.left_out: tuple[str, ...] = ()
        self.spending: Spending | None = None
        self.identity: Identity | None = None
        self.may_be_paid = False

    def answered(self, response: dict[str, Any]) -> None:
        usage = self._plan.dialect.usage_of(response)
        cost = self._caller.cost(self._plan, response, usage)
        if self.spending is not None:
            self.spending.answered(cost)
        call = self._call(response, 200, None, usage, cost)
        if self.identity is not None and self._live is not None and self._live.recorder is not None:
            recorded = self._caller.cleaned(response)
            self._live.recorder.add(Entry(self.identity, recorded, call.latency_ms, cost))
        self._write(call)

    def replayed(self, entry: Entry) -> None:
        usage = self._plan.dialect.usage_of(entry.response)
        call = self._call(entry.response, 200, None, usage, 0.0)
        self._write(replace(call, replayed=True, saved_usd=entry.cost_usd, saved_ms=entry.latency_ms))

    def refused(self, refused: CallRefused) -> None:
        lost = refused.kind in ("upstream_timeout", "upstream_unreachable")
        is_paid = (lost or self.may_be_paid) and not self._plan.provider.local
        if self.may_be_paid:
            self.lost()
        self._write(self._call(None, refused.status, refused.message, None, None if is_paid else 0.0))
        if self._live is not None:
            self._live.fail(refused)

    def lost(self) -> None:
        """There is no use for the answer, which may have been paid for: what was reserved counts as spent."""
        if self.spending is not None:
            self.spending.failed(perhaps_paid=True)

    def cut(self, response: dict[str, Any] | None, refused: CallRefused | None) -> None:
        """A stream ended before its end: by the provider (`refused`), or by the caller (None)."""
        usage = self._plan.dialect.usage_of(response or {})
        cost = self._caller.cost(self._plan, response, usage)
        if self.spending is not None:
            self.spending.answered(cost)
        message = "the task app closed the stream before its end" if refused is None else refused.message
        self._write(self._call(response, 200, message, usage, cost))
        if self._live is not None and refused is not None:
            self._live.fail(refused)
        self.forget()

    def forget(self) -> None:
        """There is nothing to record."""
        if self.identity is not None and self._live is not None and self._live.recorder is not None:
            self._live.recorder.abandon(self.identity)
            self._live.give_back_repeat(self.identity.call_key, self.identity.repeat)
            self.identity = None

    def _call(
        self,
        response: dict[str, Any] | None,
        status: int,
        error: str | None,
        usage: Usage | None,
        cost_usd: float | None,
    ) -> ModelCall:
        return ModelCall(
            provider=self._plan.provider.name,
            model=self._plan.model,
            request=self.body,
            response=response,
            status=status,
            latency_ms=(self._caller.now() - self._started) * 1000,
            prompt_tokens=0 if usage is None else usage.prompt_tokens,
            completion_tokens=0 if usage is None else usage.completion_tokens,
            cost_usd=cost_usd,
            error=error,
            operation=self._plan.operation,
            is_policy=self._plan.is_policy,
            left_out=self.left_out,
        )

    def _write(self, call: ModelCall) -> None:
        live = self._live
        if live is None:
            return
        live.calls.append(call)
        if call.error is None and call.response is not None and self._plan.is_policy:
            live.answer = shorten(self._plan.dialect.answer_of(call.response))
            live.applied = live.applied or (live.spec.prompt is not None and live.reason is None)


class _Relay:
    """Passes a stream on, event by event, and notes it at its end."""

    def __init__(self, plan: Plan, stream: Stream, note: _Note, reach: Access) -> None:
        self._reach = reach
        self._plan = plan
        self._stream = stream
        self._note = note
        self._assembler = plan.dialect.assembler()
        self._is_noted = False
        self.streams: set[Callable[[], None]] = set()  # those of its rollout

    async def events(self) -> AsyncIterator[bytes]:
        """Events as sent, but for the usage that only we have asked for.

        Raises:
            CallRefused: If the stream ends before its end.
        """
        cutter = EventCutter()
        try:
            async for chunk in self._stream.chunks():
                for event in cutter.feed(chunk):
                    if self._passes(event):
                        yield event
            if cutter.rest and self._passes(cutter.rest):
                yield cutter.rest
            if not self._assembler.is_complete:
                raise CallRefused(
                    502,
                    f"{self._plan.provider.name} ended the stream before its end",
                    kind="upstream_unreachable",
                    is_cut_off=True,
                )
        except CallRefused as refused:
            self._end(refused)
            raise
        self._end(None)

    def close(self) -> None:
        self._end(None)

    def _passes(self, event: bytes) -> bool:
        value = json_of(event)
        if value is None:
            return True
        message, _, _ = read_error(value)
        if message is not None and "error" in value:
            shown = hide_key(message, self._reach)
            message = f"{self._plan.provider.name} broke off: {shown}"
            raise CallRefused(502, message, kind="upstream_error", is_cut_off=True)
        try:
            self._assembler.feed(value)
        except MALFORMED as error:
            raise unreadable(self._plan.provider.name, self._plan.operation, event, self._reach) from error
        is_usage_only = self._plan.operation == CHAT and not value.get("choices") and bool(value.get("usage"))
        return self._plan.wants_usage or not is_usage_only

    def _end(self, refused: CallRefused | None) -> None:
        self._stream.close()
        self.streams.discard(self.close)
        if self._is_noted:
            return
        self._is_noted = True
        response = self._assembler.response
        if refused is None and response is not None and self._assembler.is_complete:
            self._note.answered(response)
        else:
            self._note.cut(response, refused)


def _is_offline(plan: Plan) -> bool:
    return plan.provider.name == OFFLINE


def _whole(plan: Plan, response: dict[str, Any]) -> Answer:
    """An answer that is there already, as a body or taken apart into a stream."""
    if not plan.streams:
        return Answer(dump(response))
    return Answer(b"", _paced(plan, response))


async def _paced(plan: Plan, response: Mapping[str, Any]) -> AsyncIterator[bytes]:
    for event in plan.dialect.events_of(response, usage=plan.wants_usage):
        yield event
        await asyncio.sleep(0)  # other calls go on between two events


def _offline(plan: Plan) -> dict[str, Any]:
    from pytest_synth.backend.gateway.offline import OfflineRefusal, complete

    try:
        return complete(plan.body, plan.model)
    except OfflineRefusal as refused:
        raise CallRefused(refused.status, refused.message) from refused
