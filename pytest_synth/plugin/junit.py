"""An eval's figures as properties of its test case: JUnit files and pytest-reportlog show them.

pytest carries an item's `user_properties` into both, from workers of pytest-xdist too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pytest_synth.report import EvalEntry

Value = str | int | float


def note_properties(item: pytest.Item, entry: EvalEntry) -> None:
    """Note the figures of an eval at its test, beside what the user's `record_property` has noted."""
    call = entry.node_id.removeprefix(item.nodeid).strip("[]").replace(" ", "_")
    prefix = f"synth_{call}_" if call else "synth_"
    item.user_properties += [(prefix + name, value) for name, value in eval_properties(entry).items()]


def eval_properties(entry: EvalEntry) -> dict[str, Value]:
    """The figures by name; what is not known is left out."""
    low, high = entry.interval or (None, None)
    known: dict[str, Value | None] = {
        "verdict": entry.outcome,
        "mean_reward": entry.mean_reward,
        "at_most": entry.at_most,
        "interval_low": low,
        "interval_high": high,
        "lower_bound": entry.lower_bound,
        "threshold": entry.threshold,
        "baseline_mean": None if entry.baseline is None else entry.baseline.mean,
        "seeds": entry.seeds_asked,
        "seeds_missing": entry.seeds_asked - entry.seeds_done - entry.seeds_not_run,
        "seeds_not_run": entry.seeds_not_run or None,
        "rollouts": entry.rollouts,
        "tokens": entry.tokens,
        "cost_usd": entry.cost_usd,
        "model": entry.model,
        "prompt_source": entry.prompt_source,
        "prompt_fingerprint": entry.prompt_fingerprint,
    }
    return {
        name: round(value, 6) if isinstance(value, float) else value
        for name, value in known.items()
        if value is not None
    }
