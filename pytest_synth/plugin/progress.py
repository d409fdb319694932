"""A live line while a test waits for its eval; only in a terminal, and never under `-q`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from pytest_synth.evals.jobs import Progress, monotonic

_EVERY_S = 0.2


class ProgressLine:
    """Shows how far the eval is that the run waits for, and takes the line away when it has ended."""

    def __init__(self, config: pytest.Config) -> None:
        reporter = config.pluginmanager.get_plugin("terminalreporter")
        writer = getattr(reporter, "_tw", None)
        shown = writer is not None and writer.hasmarkup and config.get_verbosity() >= 0
        self._writer = writer if shown and not hasattr(config, "workerinput") else None

    @contextmanager
    def of(self, node_id: str) -> Iterator[Callable[[Progress], None]]:
        """Give the function that reports the progress of one eval."""
        last = 0.0
        written = 0

        def report(progress: Progress) -> None:
            nonlocal last, written
            if self._writer is None or monotonic() - last < _EVERY_S:
                return
            last = monotonic()
            text = f" synth: {progress.completed}/{progress.total} rollouts"
            self._writer.write(text + "\b" * len(text), flush=True)
            written = max(written, len(text))

        try:
            yield report
        finally:
            if self._writer is not None and written:
                self._writer.write(" " * written + "\b" * written, flush=True)
