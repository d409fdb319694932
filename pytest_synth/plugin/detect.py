"""Whether a collected test has to do with evals; asked for every test of every run, so it imports nothing."""

from __future__ import annotations

import pytest

MARKER = "synth_eval"
_NEEDS_APP = frozenset({"synth_result", "synth_eval", "synth_tunnel"})


def concerns_us(item: pytest.Item) -> bool:
    """Say whether a test carries the marker or uses a fixture that needs the task app."""
    return item.get_closest_marker(MARKER) is not None or not _NEEDS_APP.isdisjoint(
        getattr(item, "fixturenames", ())
    )
