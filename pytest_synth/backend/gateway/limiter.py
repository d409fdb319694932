"""How many calls one provider and key gets at once: as many as it takes without refusing them."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from typing import Final

START: Final = 16  # the first limit; it doubles each round until the first refusal
HOLD_AFTER: Final = 6  # refusals in a row: the provider takes none now, so none are sent
SPAN_CALLS: Final = 24  # outcomes between two cuts, so that the effect of the first one shows
EDGE: Final = 0.2  # a lower share of refusals: the limit was just too high, so it is probed in small steps
PROBE: Final = 0.1  # such a step, in places a round of answers
STEP: Final = 0.5  # any other step; 1 costs a tenth more refused calls


@dataclass(frozen=True)
class Ticket:
    """A call that was let in: its number in the order of sending, and when."""

    number: int
    sent_at: float


@dataclass
class _Span:
    """Outcomes of the calls sent since a cut; the first span has no cut before it."""

    first: int
    since: float | None
    answered: int = 0
    refused: int = 0

    def note(self, ticket: Ticket, *, refused: bool) -> None:
        if self.since is None:
            self.since = ticket.sent_at
        if ticket.number >= self.first:
            self.refused += refused
            self.answered += not refused

    def is_ripe(self, ticket: Ticket) -> bool:
        """The first refusal of all is cause enough; later ones need the last cut to have shown its effect."""
        enough = 1 if self.first == 1 else SPAN_CALLS
        return ticket.number >= self.first and self.answered + self.refused >= enough

    @property
    def share(self) -> float:
        return self.refused / (self.answered + self.refused)

    def places(self, now: float, latency_s: float | None) -> float | None:
        """Concurrency that the answers of this span needed (Little's law); None if nothing was answered."""
        if not self.answered or latency_s is None or self.since is None:
            return None
        return self.answered / max(now - self.since, latency_s) * latency_s


class Limiter:
    """Adaptive concurrency between 1 and `most`, for one provider and key. One loop only.

    A refused call (429) waits by itself. Beside that, at most once for `SPAN_CALLS` outcomes, the limit falls
    to what the provider has been seen to allow: answers a second times seconds an answer takes (Little's
    law). It grows by `STEP` a round of answers, by less where it was just too high before. After `HOLD_AFTER`
    refusals in a row (one, at a limit of 1) all calls wait until the provider's Retry-After.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.limit = float(min(most, START))
        self.in_flight = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._held_until = 0.0
        self._sent = 0
        self._latency_s: float | None = None
        self._refused_in_a_row = 0
        self._edge: float | None = None
        self._span = _Span(first=1, since=None)

    async def enter(self, *, again: bool = False) -> Ticket:
        """Wait for a place; a call that comes `again` goes before the others."""
        place = asyncio.get_running_loop().create_future()
        if again:
            self._waiting.appendleft(place)
        else:
            self._waiting.append(place)
        self._let_in()
        try:
            await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled():  # it was let in and cancelled in the same moment
                self.in_flight -= 1
            else:
                self._waiting.remove(place)
            self._let_in()
            raise
        self._sent += 1
        return Ticket(self._sent, self._now())

    def leave_answered(self, ticket: Ticket) -> None:
        """The provider answered."""
        latency = self._now() - ticket.sent_at
        self._latency_s = latency if self._latency_s is None else 0.8 * self._latency_s + 0.2 * latency
        self._refused_in_a_row = 0
        self._span.note(ticket, refused=False)
        if self.in_flight >= int(self.limit):
            self._grow()
        self._leave()

    def leave_refused(self, ticket: Ticket, wait_s: float) -> None:
        """The provider refused the call for its rate, and asks to wait."""
        self._refused_in_a_row += 1
        self._span.note(ticket, refused=True)
        if self._refused_in_a_row >= (HOLD_AFTER if self.limit >= 2 else 1):
            self._refused_in_a_row = 0
            self.hold(wait_s)
        if self._span.is_ripe(ticket):
            self._cut()
        self._leave()

    def leave_failed(self) -> None:
        """No answer, for a reason that is not the rate."""
        self._leave()

    def hold(self, wait_s: float) -> None:
        """Let nobody in for some seconds."""
        self._held_until = max(self._held_until, self._now() + wait_s)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _grow(self) -> None:
        if self._span.first == 1:
            step = 1.0  # no refusal so far: double each round
        else:
            is_edge = self._edge is not None and self.limit >= 0.9 * self._edge
            step = (PROBE if is_edge else STEP) / self.limit
        self.limit = min(float(self.most), self.limit + step)

    def _cut(self) -> None:
        now, span = self._now(), self._span
        self._edge = self.limit if span.share < EDGE else None
        allowed = span.places(now, self._latency_s)
        self.limit = max(1.0, self.limit / 2 if allowed is None else min(self.limit, allowed))
        self._span = _Span(first=self._sent + 1, since=now)

    def _leave(self) -> None:
        self.in_flight -= 1
        self._let_in()

    def _let_in(self) -> None:
        while self._waiting and self.in_flight < int(self.limit):
            if self._now() < self._held_until:
                if self._timer is not None:
                    self._timer.cancel()
                self._timer = asyncio.get_running_loop().call_at(self._held_until, self._let_in)
                return
            place = self._waiting.popleft()
            if not place.done():
                self.in_flight += 1
                place.set_result(None)

    def _now(self) -> float:
        return asyncio.get_running_loop().time()
