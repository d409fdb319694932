"""Waiting for a job: one loop for both kinds of jobs."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any

from pytest_synth.client.flows import Flow, Json, Pause
from pytest_synth.contracts.jobs import JobStatus, parse_status
from pytest_synth.errors import (
    BackendUnreachable,
    ConfigError,
    JobTimeout,
    RateLimitError,
    ServerError,
    UnexpectedAnswer,
)

MAX_FAILURES = 5
"""Polls in a row that may fail by a lost connection, 429 or 5xx; any other error ends the poll at once."""
FAILURE_WAIT_S = 0.5  # doubled with each failure in a row: 7.5 s in all, a restart of the backend
SHORTEST_READ_S = 1.0  # the last poll before the deadline still gets this long

OnDocument = Callable[[Json, JobStatus, float], None]
"""Called with each status document, its status, and the seconds since the poll began."""


def poll(
    read: Callable[[float], Flow[Json]],
    *,
    job_id: str,
    timeout: float,
    interval: float,
    clock: Callable[[], float],
    on_document: OnDocument,
) -> Flow[tuple[Json, JobStatus]]:
    """Read a job's status until it is terminal; return the last document and its status.

    Args:
        read: Reads the status document once, without retries, within the given seconds.
        timeout, interval: Seconds; the status is read at least once, and a last time at the deadline.

    Raises:
        JobTimeout: If the job is not terminal at the deadline; it carries the last document.
        ApiError, BackendUnreachable: If a poll fails in a way that waiting does not mend, or too often.
        UnexpectedAnswer: If the status is a word that is not known.
    """
    check_wait(timeout, interval)
    start = clock()
    failures = 0
    document: Json = {}
    while True:
        left = timeout - (clock() - start)
        trouble: Exception | None = None
        wait = interval
        try:
            document = yield from read(max(left, SHORTEST_READ_S))
        except (ServerError, RateLimitError, BackendUnreachable) as error:
            trouble = error
            failures += 1
            wait = max(interval, FAILURE_WAIT_S * 2 ** (failures - 1))
        else:
            failures = 0
            status = status_of(document, job_id)
            on_document(document, status, clock() - start)
            if status.is_terminal:
                return document, status
        left = timeout - (clock() - start)
        if left <= 0:
            raise timed_out(job_id, timeout, document, trouble) from trouble
        if trouble is not None and failures >= MAX_FAILURES:
            raise trouble
        yield Pause(min(wait, left))


def check_wait(timeout: float, interval: float) -> None:
    """Refuse a time to wait, or an interval, that makes no sense."""
    if not timeout >= 0:
        raise ConfigError(f"timeout is {timeout!r}; it must be 0 seconds or more")
    if not interval >= 0:
        raise ConfigError(f"interval is {interval!r}; it must be 0 seconds or more")


def status_of(document: Mapping[str, Any], job_id: str) -> JobStatus:
    """Read a document's status.

    Raises:
        UnexpectedAnswer: If it is missing, or a word that is not known; it is never guessed.
    """
    word = document.get("status")
    try:
        return parse_status(word)
    except ValueError as error:
        known = ", ".join(status.value for status in JobStatus)
        raise UnexpectedAnswer(f"job {job_id} has the unknown status {word!r}; known: {known}") from error


def progress_of(document: Mapping[str, Any]) -> tuple[int, int] | None:
    """Read how many rollouts of how many are done; None if the document does not say."""
    results, progress = document.get("results"), document.get("progress")
    names = [(results, "completed", "total"), (progress, "completed", "total")]
    names += [(progress, "rollouts_completed", "rollouts_total")]  # of a prompt-learning job
    for place, of_done, of_total in names:
        if isinstance(place, Mapping):
            done, total = place.get(of_done), place.get(of_total)
            if isinstance(done, int) and isinstance(total, int):
                return done, total
    return None


def timed_out(
    job_id: str, timeout: float, document: Mapping[str, Any], cause: Exception | None = None
) -> JobTimeout:
    """Make the error for a job that is not terminal in time."""
    if not document:
        message = f"job {job_id} gave no status within {timeout:g} s"
    else:
        done = progress_of(document)
        so_far = f" ({done[0]} of {done[1]} rollouts done)" if done is not None else ""
        message = f"job {job_id} still {document.get('status')!r} after {timeout:g} s{so_far}"
    if cause is not None:
        message += f"; the last poll failed: {cause}"
    return JobTimeout(f"{message}; raise timeout, or cancel the job", job_id=job_id, document=dict(document))


class ProgressLines:
    """Writes a line to stdout whenever a job's state has changed: `[00:05] running | 3/10 completed`."""

    def __init__(self) -> None:
        self._last = ""

    def show(self, state: str, elapsed_s: float) -> None:
        if state == self._last:
            return
        self._last = state
        minutes, seconds = divmod(int(elapsed_s), 60)
        sys.stdout.write(f"[{minutes:02d}:{seconds:02d}] {state}\n")
        sys.stdout.flush()
