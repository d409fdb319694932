"""Following a job by its events: a stream that is taken up again where it broke, else a poll."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from pytest_synth.client.answers import error_of, object_of
from pytest_synth.client.endpoints import events_after
from pytest_synth.client.exchange import exchange
from pytest_synth.client.flows import Answer, Flow, Json, NextChunk, OpenStream, Pause, Send
from pytest_synth.client.polling import (
    FAILURE_WAIT_S,
    MAX_FAILURES,
    SHORTEST_READ_S,
    check_wait,
    status_of,
    timed_out,
)
from pytest_synth.client.sse import EventParser
from pytest_synth.contracts.jobs import JobStatus
from pytest_synth.errors import (
    AuthenticationError,
    BackendUnreachable,
    NotFoundError,
    RateLimitError,
    ServerError,
)

MAX_FRUITLESS = 3
"""Streams in a row that broke before they brought an event; then the events are polled instead."""
LOOK_S = 2.0  # between looks at the status beside a stream, as the published client's
AFTER_END_S = 0.25  # the status document may turn terminal a little later than the events say

OnEvent = Callable[[Json], None]


@dataclass(frozen=True)
class JobRoutes:
    """Where a job's documents are, as paths below the base URL."""

    job_id: str
    status: str
    events: str
    stream: str


def is_end(event: Json) -> bool:
    """Say whether an event is the last of its job; `validation.completed` and the like are not."""
    kind = str(event.get("type", ""))
    return kind.endswith((".job.completed", ".job.failed", ".job.cancelled", ".job.canceled"))


class Follower:
    """Hands on every event of a job once, in order, until the job has ended.

    Args:
        timeout: Seconds; a stream that never ends does not outlast it.
        interval: Seconds of silence after which a stream is taken up anew; without a stream, between
            polls. Beside a stream the status is looked at as often, but at least every 2 seconds.
        on_event: Called with each event as it came.

    An event that has a `seq` is known by it; one that has none, by its content.
    """

    def __init__(
        self,
        routes: JobRoutes,
        *,
        timeout: float,
        interval: float,
        request_timeout_s: float,
        clock: Callable[[], float],
        on_event: OnEvent | None,
    ) -> None:
        check_wait(timeout, interval)
        self._routes = routes
        self._timeout = timeout
        self._interval = interval
        # A read cannot be cut short, so it may last only a part of a short time to wait.
        self._silence_s = max(min(interval, timeout / 10), 0.05)
        self._request_timeout_s = request_timeout_s
        self._clock = clock
        self._start = clock()
        self._on_event = on_event
        self._cursor = 0
        self._unnumbered: set[str] = set()
        self._count = 0
        self._failures = 0
        self._can_stream = True
        self._can_list = True
        self._has_end = False
        self._document: Json = {}
        self._trouble: Exception | None = None
        self._looked_at = self._start

    def run(self) -> Flow[tuple[Json, JobStatus]]:
        """Follow the job; return its last status document and status.

        Raises:
            JobTimeout: If it has not ended in time; the error carries the last document.
            ApiError, BackendUnreachable: As polling raises them.
            UnexpectedAnswer: If the backend reports a status that is not known.
        """
        fruitless = 0
        while True:
            status = yield from self._look()
            if status is not None and status.is_terminal:
                yield from self._catch_up()
                return self._document, status
            left = self._left()
            if left <= 0:
                raise timed_out(self._routes.job_id, self._timeout, self._document, self._trouble)
            if self._has_end:
                yield Pause(min(AFTER_END_S, left))
                continue
            if self._can_stream and left > self._silence_s:
                before = self._count
                is_whole = yield from self._stream()
                if is_whole or self._count > before:
                    fruitless = 0
                    continue
                fruitless += 1
                if fruitless >= MAX_FRUITLESS:
                    self._can_stream = False
                yield Pause(min(FAILURE_WAIT_S * 2 ** (fruitless - 1), max(self._left(), 0)))
            else:
                yield from self._catch_up()
                yield Pause(min(max(self._interval, self._backoff()), max(self._left(), 0)))

    def _left(self) -> float:
        return self._timeout - (self._clock() - self._start)

    def _backoff(self) -> float:
        return FAILURE_WAIT_S * 2 ** (self._failures - 1) if self._failures else 0.0

    def _look(self) -> Flow[JobStatus | None]:
        """Read the status once; None if that failed in a way that may pass."""
        self._looked_at = self._clock()
        wait = min(max(self._left(), SHORTEST_READ_S), self._request_timeout_s)
        try:
            answer = yield from exchange("GET", self._routes.status, timeout_s=wait, safe=False)
        except (ServerError, RateLimitError, BackendUnreachable) as error:
            self._trouble = error
            self._failures += 1
            if self._failures >= MAX_FAILURES:
                raise
            return None
        self._failures, self._trouble = 0, None
        self._document = object_of(answer)
        return status_of(self._document, self._routes.job_id)

    def _stream(self) -> Flow[bool]:
        """Read one stream as long as it brings something.

        Returns False if it broke, or ended at once: a backend that does so all the time must not be asked
        all the time. Silence is no fault.
        """
        call = Send(
            "GET",
            self._routes.stream,
            params={"since_seq": self._cursor},
            timeout_s=self._silence_s,
            accept="text/event-stream",
        )
        heard_at = self._clock()
        try:
            answer: Answer = yield OpenStream(call)
        except BackendUnreachable:
            return self._was_silent_since(heard_at)
        error = error_of(answer)
        if isinstance(error, AuthenticationError):
            raise error
        if error is not None:
            self._can_stream = isinstance(error, ServerError | RateLimitError) and error.status_code != 501
            return False
        parser = EventParser()
        while self._left() > self._silence_s:
            try:
                chunk: bytes = yield NextChunk()
            except BackendUnreachable:
                return self._was_silent_since(heard_at)
            if not chunk:
                return False
            heard_at = self._clock()
            self._hand_on(parser.feed(chunk))
            if self._has_end:
                return True
            if self._clock() - self._looked_at >= min(self._interval, LOOK_S):
                status = yield from self._look()
                if status is not None and status.is_terminal:
                    return True
        return True

    def _was_silent_since(self, heard_at: float) -> bool:
        return self._clock() - heard_at >= self._silence_s

    def _catch_up(self) -> Flow[None]:
        """Read the events that have not been handed on from the list."""
        if not self._can_list:
            return
        try:
            events = yield from events_after(self._routes.events, self._cursor)
        except NotFoundError:  # a service without the list; its stream or its status must do
            self._can_list = False
            return
        self._hand_on(events)

    def _hand_on(self, events: Iterable[Json]) -> None:
        for event in events:
            seq = event.get("seq")
            if isinstance(seq, int):
                if seq <= self._cursor:
                    continue
                self._cursor = seq
            else:
                text = json.dumps(event, sort_keys=True)
                if text in self._unnumbered:
                    continue
                self._unnumbered.add(text)
            self._count += 1
            self._has_end = self._has_end or is_end(event)
            if self._on_event is not None:
                self._on_event(event)
