"""Which prompt stands after a search, and when a test fails for it."""

from __future__ import annotations

from typing import Any

import pytest

from pytest_synth.evals.acceptance import Contest, decide
from pytest_synth.evals.paired import PairedRewards

SEEDS = 100


def rewards(right: int) -> dict[tuple[str | None, int], float]:
    """The first so many seeds have reward 1."""
    return {("test", seed): float(seed < right) for seed in range(SEEDS)}


def contest(**changes: Any) -> Contest:
    known: dict[str, Any] = {
        "baseline": rewards(40),
        "best": rewards(86),
        "stored": None,
        "has_best": True,
        "has_stored": False,
        "found_again": False,
        "stale": None,
        "may_write": False,
        "confidence": 0.95,
    }
    if "stored" in changes:
        known["has_stored"] = True
    if "best" in changes and changes["best"] is None:
        known["has_best"] = False
    return Contest(**(known | changes))


STALE = "stored prompt is stale: it was changed"
CASES = {
    "first result is reported": (
        {},
        ("best", False, False),
        "better: 0.40 -> 0.86 on 100 eval seeds; accept it with --snapshot-update",
    ),
    "first result is stored": (
        {"may_write": True},
        ("best", True, False),
        "stored: 0.40 -> 0.86 on 100 eval seeds",
    ),
    "worse on unseen seeds": (
        {"best": rewards(39), "may_write": True},
        ("baseline", False, False),
        "nothing better than the code's prompt was found: 0.39 against 0.40; nothing is stored",
    ),
    "equal on unseen seeds": (
        {"best": rewards(40), "may_write": True},
        ("baseline", False, False),
        "nothing better than the code's prompt was found: 0.40 against 0.40; nothing is stored",
    ),
    "nothing found": (
        {"best": None, "may_write": True},
        ("baseline", False, False),
        "nothing better than the code's prompt was found; nothing is stored",
    ),
    "beats the stored one": (
        {"stored": rewards(71)},
        ("best", False, True),
        "improvement available: 0.71 -> 0.86 on 100 eval seeds; accept it with --snapshot-update",
    ),
    "beats the stored one by a seed": (
        {"stored": rewards(85)},
        ("best", False, False),
        "better than the stored prompt, perhaps by chance: 0.85 -> 0.86 on 100 eval seeds; accept it with "
        "--snapshot-update",
    ),
    "replaces the stored one": (
        {"stored": rewards(85), "may_write": True},
        ("best", True, False),
        "stored: 0.85 -> 0.86 on 100 eval seeds",
    ),
    "stored one is better": (
        {"stored": rewards(90), "may_write": True},
        ("stored", False, False),
        "the stored prompt stands with 0.90 on 100 eval seeds; the best one found has 0.86",
    ),
    "stored one is as good": (
        {"stored": rewards(86), "may_write": True},
        ("stored", False, False),
        "the stored prompt stands with 0.86 on 100 eval seeds; the best one found has 0.86",
    ),
    "stored one is found again": (
        {"stored": rewards(86), "found_again": True, "may_write": True},
        ("stored", False, False),
        "the stored prompt stands with 0.86 on 100 eval seeds; the search has found it again",
    ),
    "stored one, and nothing found": (
        {"stored": rewards(71), "best": None},
        ("stored", False, False),
        "the stored prompt stands with 0.71 on 100 eval seeds",
    ),
    "stale, and better": (
        {"stored": rewards(71), "stale": STALE},
        ("best", False, True),
        f"{STALE}; against the code's prompt the best one found has 0.40 -> 0.86 on 100 eval seeds; "
        "accept it with --snapshot-update",
    ),
    "stale, and replaced": (
        {"stored": rewards(71), "stale": STALE, "may_write": True},
        ("best", True, False),
        "stored: 0.40 -> 0.86 on 100 eval seeds",
    ),
    "stale, and still the best": (
        {"stored": rewards(90), "stale": STALE, "may_write": True},
        ("stored", True, False),
        "stored: 0.40 -> 0.90 on 100 eval seeds",
    ),
    "stale, and worse than the code's": (
        {"stored": rewards(30), "best": None, "stale": STALE, "may_write": True},
        ("baseline", False, True),
        f"{STALE}; it has 0.30 on the eval seeds, and nothing better than the code's prompt was found; "
        "nothing is stored",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_decision(name: str) -> None:
    changes, (winner, stores, fails), text = CASES[name]
    decision = decide(contest(**changes))
    assert (decision.winner, decision.stores, decision.fails) == (winner, stores, fails)
    assert decision.text == text


@pytest.mark.parametrize("may_write", [False, True])
@pytest.mark.parametrize(
    ("changes", "winner", "whose"),
    [
        ({"baseline": None}, "best", "the code's prompt"),
        ({"best": None, "has_best": True}, "best", "the best prompt found"),
        ({"stored": None, "has_stored": True}, "best", "the stored prompt"),
        ({"baseline": None, "best": None, "has_best": False}, "baseline", "the code's prompt"),
    ],
)
def test_result_with_missing_seeds_is_never_stored(
    changes: dict[str, Any], winner: str, whose: str, may_write: bool
) -> None:
    decision = decide(contest(**changes, may_write=may_write))
    assert (decision.winner, decision.stores, decision.fails) == (winner, False, may_write)
    assert decision.text == f"nothing is decided or stored: {whose} has eval seeds without a reward"


def test_stale_prompt_fails_though_seeds_are_missing() -> None:
    decision = decide(contest(baseline=None, stored=rewards(3), stale=STALE))
    assert decision.fails
    assert decision.text.startswith(f"{STALE}; nothing is decided or stored")


def test_result_is_paired_with_the_baseline_and_the_gain_with_the_stored_one() -> None:
    decision = decide(contest(stored=rewards(71)))
    assert decision.paired is not None
    assert decision.gain is not None
    assert (decision.paired.before, decision.paired.after) == (0.40, 0.86)
    assert (decision.gain.before, decision.gain.after) == (0.71, 0.86)
    low, high = decision.gain.interval
    assert 0 < low < 0.15 < high < 0.3
    assert decision.gain.interval_text == f"paired difference +0.15 (interval {low:+.2f} to {high:+.2f})"


def test_interval_does_not_depend_on_the_order_of_the_seeds() -> None:
    before, after = rewards(71), rewards(86)
    mixed = dict(reversed(after.items()))
    assert PairedRewards.of(before, mixed).interval == PairedRewards.of(before, after).interval


def test_seeds_are_named_by_split() -> None:
    seeds = [("test", 0), ("test", 1), ("test", 2), ("test", 9), (None, 4)]
    paired = PairedRewards.of(dict.fromkeys(seeds, 0.0), dict.fromkeys(seeds, 1.0))
    assert paired.named_seeds == "test 0-2, 9; default 4"
    assert paired.text == "0.00 -> 1.00 on 5 eval seeds"
