"""How far the evals of a run are, while a test waits for its own: a live line, or a plain one now and then.

In a terminal the line stands behind pytest's own dots and is gone before pytest writes again. Elsewhere (CI
logs) a plain line comes every 30 s. Neither under `-q`, without a terminal reporter, or in workers of
pytest-xdist.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Protocol

import pytest

from pytest_synth.evals.jobs import monotonic
from pytest_synth.evals.progress import Look, Progress

if TYPE_CHECKING:
    from _pytest.terminal import TerminalReporter

LIVE_S = 0.2  # often enough to look alive; a look costs some ms
PLAIN_S = 30.0
LEAST_ROOM = 10  # columns; a shorter text says nothing

ERASE = "\x1b[K"  # from the cursor to the end of the line


class Display(Protocol):
    """Where progress is shown; `every_s` is how often."""

    every_s: float

    def show(self, parts: list[str]) -> None: ...

    def clear(self) -> None: ...


class LiveLine:
    """Text behind the cursor, which stays where it is.

    Written past pytest's terminal writer: that counts the columns it has written, to place its percentages.
    """

    every_s = LIVE_S

    def __init__(
        self, reporter: TerminalReporter, uncaptured: Callable[[], AbstractContextManager[None]]
    ) -> None:
        self._writer = reporter._tw
        self._uncaptured = uncaptured
        self._is_shown = False

    def show(self, parts: list[str]) -> None:
        room = self._writer.fullwidth - self._writer.width_of_current_line - 2
        text = ""
        for part in parts:
            longer = f"{text}, {part}" if text else part
            if len(longer) > room:
                break
            text = longer
        if room >= LEAST_ROOM and text:
            self._write(f" {text}{ERASE}" + "\b" * (len(text) + 1))
            self._is_shown = True

    def clear(self) -> None:
        if self._is_shown:
            self._write(ERASE)
            self._is_shown = False

    def _write(self, text: str) -> None:
        with self._uncaptured():
            self._writer._file.write(text)
            self._writer._file.flush()


class PlainLines:
    """Lines of their own, as pytest's `write_line` makes them."""

    every_s = PLAIN_S

    def __init__(
        self, reporter: TerminalReporter, uncaptured: Callable[[], AbstractContextManager[None]]
    ) -> None:
        self._reporter = reporter
        self._uncaptured = uncaptured

    def show(self, parts: list[str]) -> None:
        with self._uncaptured():
            self._reporter.write_line(f"synth: {', '.join(parts)}")
            self._reporter.flush()

    def clear(self) -> None:
        """A line of a log stays."""


class RunProgress:
    """Shows the progress of a run while a test waits.

    Args:
        display: None: nothing is shown, and the backend is not asked.
        clock: Seconds, monotonic.
    """

    def __init__(self, display: Display | None, clock: Callable[[], float] = monotonic) -> None:
        self._display = display
        self._clock = clock
        self._started: float | None = None
        self._shown_at: float | None = None

    @contextmanager
    def waiting(self) -> Iterator[Callable[[Look], None]]:
        """Give the function that is called at every poll."""
        if self._started is None:
            self._started = self._shown_at = self._clock()
        try:
            yield self._poll
        finally:
            if self._display is not None:
                self._display.clear()

    @contextmanager
    def telling(self) -> Iterator[Callable[[list[str]], None]]:
        """Give the function that shows what somebody else has to say, as often as is right."""
        if self._shown_at is None:
            self._started = self._shown_at = self._clock()
        try:
            yield self._tell
        finally:
            if self._display is not None:
                self._display.clear()

    def _poll(self, look: Look) -> None:
        now = self._clock()
        assert self._started is not None
        if self._display is not None and self._is_time(self._display, now):
            self._display.show(progress_parts(look(), now - self._started))

    def _tell(self, parts: list[str]) -> None:
        if parts and self._display is not None and self._is_time(self._display, self._clock()):
            self._display.show(parts)

    def _is_time(self, display: Display, now: float) -> bool:
        assert self._shown_at is not None
        if now - self._shown_at < display.every_s:
            return False
        self._shown_at = now
        return True


def progress_of(config: pytest.Config) -> RunProgress:
    """The progress of a session, shown where its terminal and options allow."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None or config.get_verbosity() < 0 or hasattr(config, "workerinput"):
        return RunProgress(None)
    capture = config.pluginmanager.get_plugin("capturemanager")
    uncaptured = nullcontext if capture is None else capture.global_and_fixture_disabled
    is_live = reporter.isatty and reporter._tw.hasmarkup
    return RunProgress((LiveLine if is_live else PlainLines)(reporter, uncaptured))


def progress_parts(progress: Progress, elapsed_s: float) -> list[str]:
    """What there is to say, the most important first."""
    parts = [f"{progress.completed:,}/{progress.total:,} rollouts"]
    per_s = progress.completed / elapsed_s if elapsed_s > 0 else 0.0
    if per_s > 0:
        parts.append(f"{per_s:,.0f}/s" if per_s >= 10 else f"{per_s:.1f}/s")
    if progress.mean_reward is not None:
        parts.append(f"mean {progress.mean_reward:.2f}")
    if progress.cost_usd:
        parts.append(f"${progress.cost_usd:.4f}")
    if per_s > 0 and progress.total > progress.completed:
        parts.append(f"{_duration((progress.total - progress.completed) / per_s)} left")
    return parts


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"
