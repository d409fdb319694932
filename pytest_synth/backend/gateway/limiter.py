"""How fast one provider and key gets calls: as fast as it takes them, and no faster."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, replace
from typing import Final

START: Final = 16  # calls at once at the beginning; doubled each round of answers
HOLD_AFTER: Final = 6  # refusals in a row: the provider takes none now, so none are sent
SPAN_CALLS: Final = 24  # calls between two looks at the pace
TRIAL_CALLS: Final = 12  # calls of a trial; twice as many if they do not tell
TRIAL_S: Final = 30.0  # then a trial without refusals has told enough
SURE: Final = 4  # refusals that are no accident
MANY: Final = 0.2  # share of refusals above which the pace is too fast; calls cost the provider's patience
FEW: Final = 0.05  # share below which it is taken for slow enough to be tried faster
OFF: Final = 0.3  # two measured shares of a few dozen calls that differ by less may be the same
MOST_BORNE: Final = 0.9  # share of refusals that are taken for the provider's mood
FIRST_STEP: Final = 1.0  # by which a pace grows that was guessed from the first refusals
STEP: Final = 0.05  # by which one grows that was measured; doubled while all is well
SETTLE_S: Final = 0.25  # calls that were sent together are refused together, so much apart
MARKS: Final = 5  # spans that a speed is measured over at most: of a window the last calls are all refused
LEAST_S: Final = 1.0  # that a speed is measured over: in a shorter time most calls may be saved up ones
LATE_S: Final = 0.05  # of a timer; it is made up for


@dataclass(frozen=True)
class Ticket:
    """A call that was let in: its number in the order of sending."""

    number: int


@dataclass(frozen=True)
class _Mark:
    """A moment, and how many calls had been sent and refused by then."""

    at: float
    sent: int
    refused: int


@dataclass(frozen=True)
class _Span:
    """Calls since a moment; those not answered yet count as taken, as providers refuse at once."""

    calls: int
    refused: int

    @property
    def share(self) -> float:
        return self.refused / max(1, self.calls)

    def with_(self, other: _Span) -> _Span:
        return _Span(self.calls + other.calls, self.refused + other.refused)


@dataclass(frozen=True)
class _Trial:
    """Half the pace that the provider seems to take, for a few calls: do refusals have to do with it?

    Attributes:
        before: The calls that were refused too often.
        estimate: Calls a second that the provider seems to take.
        is_second: The first one was worse than what was before, so its estimate was too high.
    """

    before: _Span
    estimate: float
    is_second: bool = False


class Limiter:
    """Adaptive pace, and concurrency between 1 and `most`, for one provider and key. One loop only.

    A refused call (429) waits by itself, as long as the provider says. Calls are sent without a pace, from
    `START` at once up to `most`, until many are refused. Then a trial tells why: at half the speed that the
    provider seems to take, refusals for the rate end. If they do, calls are sent at that speed; it grows
    until many are refused again, and then falls to what was taken. If they do not, they have nothing to do
    with the rate: a slower pace would not help, so it stays as it was, and such a share of refusals is
    borne. After `HOLD_AFTER` refusals in a row all calls wait until the provider's Retry-After.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.limit = min(most, START)
        self.pace: float | None = None  # calls a second
        self.in_flight = 0
        self._waiting: deque[asyncio.Future[Ticket]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._settling: asyncio.TimerHandle | None = None
        self._held_until = 0.0
        self._next_at = 0.0
        self._sent = 0
        self._refused = 0
        self._changed = 0  # calls sent when the pace was changed last
        # The last one begins the span that is looked at.
        self._marks = deque([_Mark(0.0, 0, 0)], maxlen=MARKS)
        self._start = self._marks[-1]
        self._refused_in_a_row = 0
        self._borne = 0.0  # share of refusals that no pace prevents
        self._trial: _Trial | None = None
        self._step = STEP
        self._measured: float | None = None  # the pace that was found last
        self._proved: float | None = None  # the last pace with few refusals

    async def enter(self, *, again: bool = False) -> Ticket:
        """Wait for a place; a call that comes `again` goes before the others."""
        place: asyncio.Future[Ticket] = asyncio.get_running_loop().create_future()
        if again:
            self._waiting.appendleft(place)
        else:
            self._waiting.append(place)
        self._let_in()
        try:
            return await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled():  # it was let in and cancelled in the same moment
                self.in_flight -= 1
            else:
                self._waiting.remove(place)
            self._let_in()
            raise

    def leave_answered(self, ticket: Ticket) -> None:
        """The provider answered."""
        self._refused_in_a_row = 0
        if self.in_flight >= self.limit:
            self.limit = min(self.most, self.limit + 1)
        if ticket.number > self._changed:
            self._look()
        self._leave()

    def leave_refused(self, ticket: Ticket, wait_s: float) -> None:
        """The provider refused the call for its rate, and asks to wait."""
        self._refused_in_a_row += 1
        if self._refused_in_a_row >= (2 * HOLD_AFTER if self._borne else HOLD_AFTER):
            self._refused_in_a_row = 0
            self.hold(wait_s)
        if ticket.number > self._changed:
            self._refused += 1
            self._look(wait_s)
        self._leave()

    def leave_failed(self) -> None:
        """No answer, for a reason that is not the rate."""
        self._leave()

    def hold(self, wait_s: float) -> None:
        """Let nobody in for some seconds."""
        self._held_until = max(self._held_until, self._now() + wait_s)

    def close(self) -> None:
        for timer in (self._timer, self._settling):
            if timer is not None:
                timer.cancel()

    @property
    def _span(self) -> _Span:
        mark = self._marks[-1]
        return _Span(self._sent - mark.sent, self._refused - mark.refused)

    def _begin(self) -> None:
        self._marks.append(_Mark(self._now(), self._sent, self._refused))

    def _look(self, wait_s: float | None = None) -> None:
        """Look at the pace after an outcome; `wait_s`: it was a refusal, and asks to wait so long."""
        span = self._span
        if self._settling is not None:
            return
        if self._trial is not None:
            is_long = span.calls >= TRIAL_CALLS or self._now() > self._held_until + TRIAL_S
            if (is_long and not span.refused) or span.refused >= SURE or span.calls >= 2 * TRIAL_CALLS:
                self._end(self._trial, span)
        elif wait_s is not None and self._is_too_fast(span):
            self.hold(SETTLE_S)
            self._settling = asyncio.get_running_loop().call_later(SETTLE_S, self._slow_down, wait_s)
        elif span.calls >= self._enough and self._now() >= self._marks[-1].at + SETTLE_S:
            self._adjust(span)

    @property
    def _enough(self) -> int:
        if self._borne:
            return 2 * SPAN_CALLS
        return SPAN_CALLS // 2 if self._step == FIRST_STEP else SPAN_CALLS

    def _is_too_fast(self, span: _Span) -> bool:
        if self._borne:
            return span.calls >= self._enough and span.share - self._borne >= OFF
        return SURE <= span.refused < span.calls and span.share >= MANY  # if none is taken, there is no speed

    def _slow_down(self, wait_s: float) -> None:
        """Fall to the speed at which calls were taken, or try whether a slower one helps at all."""
        self._settling = None
        span = self._span
        if self.pace is None:  # those that the provider had saved up for were taken at once
            estimate = max(self._speed(self._marks[-1], wait_s), self._speed(self._start, wait_s))
        else:
            old = [mark for mark in self._marks if self._now() - mark.at >= LEAST_S] or [self._marks[0]]
            estimate = min(self.pace, max(self._speed(old[0]), self._speed(old[-1])))
        self._step = STEP
        if self.pace is None or (self._measured is not None and self.pace <= self._measured):
            self.hold(wait_s)
            self._trial = _Trial(span, estimate)
            self._go(estimate / 2)
        else:
            self._measured = estimate
            self._go(estimate)

    def _speed(self, since: _Mark, wait_s: float = 0.0) -> float:
        """Calls a second that were taken; `wait_s`: and none will be for so long."""
        taken = self._sent - since.sent - (self._refused - since.refused)
        elapsed = self._now() - SETTLE_S - since.at
        return max(1, taken) / max(elapsed + wait_s, LEAST_S) / (1 - self._borne)

    def _end(self, trial: _Trial, span: _Span) -> None:
        self._trial = None
        if span.share >= trial.before.share + OFF and not trial.is_second:
            self._trial = replace(trial, estimate=trial.estimate / 2, is_second=True)
            self._go(trial.estimate / 4)
            return
        is_borne = span.refused >= SURE - 1
        if is_borne and trial.before.share <= span.share + OFF:
            self._borne = min(MOST_BORNE, trial.before.with_(span).share)
            self._measured = None
            self._go(self._proved)
            return
        self._borne = span.share if is_borne else 0.0
        self._measured = trial.estimate / (1 - self._borne)
        self._step = FIRST_STEP if self._proved is None else STEP
        self._go(self._measured)

    def _adjust(self, span: _Span) -> None:
        """Go faster if few were refused and calls have waited for the pace."""
        if self._borne:
            self._borne = max(0.0, self._borne + min(0.0, 0.2 * (span.share - self._borne)))
        more = span.share - self._borne
        if self.pace is not None and more < 2 * FEW:
            self._proved = self.pace
            if more < FEW and span.calls > 0.7 * self.pace * (self._now() - self._marks[-1].at):
                self.pace *= 1 + self._step
                self._step = min(FIRST_STEP, 2 * self._step)
        self._begin()

    def _go(self, pace: float | None) -> None:
        self.pace = pace
        self._next_at = self._held_until
        self._begin()
        self._changed = self._sent
        if pace is None:
            self._start = self._marks[-1]

    def _leave(self) -> None:
        self.in_flight -= 1
        self._let_in()

    def _let_in(self) -> None:
        while self._waiting and self.in_flight < self.limit:
            now = self._now()
            ready_at = max(self._held_until, self._next_at)
            if now < ready_at:
                if self._timer is not None:
                    self._timer.cancel()
                self._timer = asyncio.get_running_loop().call_at(ready_at, self._let_in)
                return
            place = self._waiting.popleft()
            if not place.done():
                self.in_flight += 1
                self._sent += 1  # here, not in `enter`: what was let in is sent, whatever is decided now
                if self._sent == 1:
                    self._start = _Mark(now, 0, 0)
                    self._marks.append(self._start)
                if self.pace is not None:
                    self._next_at = max(self._next_at, now - LATE_S) + 1 / self.pace
                place.set_result(Ticket(self._sent))

    def _now(self) -> float:
        return asyncio.get_running_loop().time()
