"""Whether a prompt that a search has found is accepted: a pure decision on rewards of unseen seeds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import fsum
from typing import Literal

from pytest_synth.evals.paired import Key, PairedRewards

Name = Literal["baseline", "stored", "best"]
Rewards = Mapping[Key, float]
ACCEPT = "accept it with --snapshot-update"


@dataclass(frozen=True)
class Contest:
    """Prompts of one test on its own eval seeds. Rewards are None where a seed has none.

    Attributes:
        baseline: Of the prompt that the search started from, which is the code's.
        best: Of the best one found; None also where that is the baseline itself.
        stored: Of the stored prompt.
        has_best: Whether the search has found another prompt than the baseline.
        has_stored: Whether there is a stored prompt.
        found_again: Whether the best one found is the stored prompt itself.
        stale: Why the stored prompt is stale, if it is.
        may_write: Whether the snapshot may be written.
        confidence: Of the intervals.
    """

    baseline: Rewards | None
    best: Rewards | None
    stored: Rewards | None
    has_best: bool
    has_stored: bool
    found_again: bool
    stale: str | None
    may_write: bool
    confidence: float


@dataclass(frozen=True)
class Decision:
    """What comes of a contest.

    Attributes:
        winner: Whose rewards the test's gate is held against.
        text: For people, one line.
        stores: Whether the winner is written into the snapshot.
        fails: Whether the test fails, whatever its gate says.
        paired: Baseline and winner; None where rewards are missing.
        gain: The same for what the winner had to beat, where that is the stored prompt.
    """

    winner: Name
    text: str
    stores: bool = False
    fails: bool = False
    paired: PairedRewards | None = None
    gain: PairedRewards | None = None


def decide(contest: Contest) -> Decision:
    """Decide which prompt stands.

    A stored prompt that is not stale is what the best one has to beat; otherwise it is the baseline.
    """
    rivals: dict[Name, Rewards | None] = {}
    if contest.has_stored:
        rivals["stored"] = contest.stored
    if contest.has_best:
        rivals["best"] = contest.best
    baseline = contest.baseline
    if baseline is None or None in rivals.values():
        return _undecided(contest, {"baseline": baseline, **rivals})
    known = {name: rewards for name, rewards in rivals.items() if rewards is not None}
    winner: Name = max(
        known, key=lambda name: _mean(known[name]), default="baseline"
    )  # the stored one of equals
    if contest.has_stored and contest.stale is None:
        return _against_stored(contest, baseline, known, winner)
    paired = PairedRewards.of(baseline, known.get(winner, baseline), contest.confidence)
    if not paired.is_better:
        return _nothing_better(contest, known, paired)
    if contest.may_write:
        return Decision(winner, f"stored: {paired.text}", stores=True, paired=paired)
    if contest.stale is not None:
        whose = "the best one found" if winner == "best" else "it"
        text = f"{contest.stale}; against the code's prompt {whose} has {paired.text}; {ACCEPT}"
        return Decision(winner, text, fails=True, paired=paired)
    return Decision(winner, f"better: {paired.text}; {ACCEPT}", paired=paired)


def _against_stored(
    contest: Contest, baseline: Rewards, known: Mapping[Name, Rewards], winner: Name
) -> Decision:
    stored = known["stored"]
    paired = PairedRewards.of(baseline, known[winner], contest.confidence)
    if winner == "stored":
        best = f"; the best one found has {_mean(known['best']):.2f}" if "best" in known else ""
        best = "; the search has found it again" if contest.found_again else best
        text = f"the stored prompt stands with {_mean(stored):.2f} on {len(stored)} eval seeds{best}"
        return Decision(winner, text, paired=paired)
    gain = PairedRewards.of(stored, known["best"], contest.confidence)
    if contest.may_write:
        return Decision(winner, f"stored: {gain.text}", stores=True, paired=paired, gain=gain)
    if gain.is_surely_better:
        text = f"improvement available: {gain.text}; {ACCEPT}"
        return Decision(winner, text, fails=True, paired=paired, gain=gain)
    text = f"better than the stored prompt, perhaps by chance: {gain.text}; {ACCEPT}"
    return Decision(winner, text, paired=paired, gain=gain)


def _nothing_better(contest: Contest, known: Mapping[Name, Rewards], paired: PairedRewards) -> Decision:
    of_best = f": {_mean(known['best']):.2f} against {paired.before:.2f}" if "best" in known else ""
    text = f"nothing better than the code's prompt was found{of_best}; nothing is stored"
    if contest.stale is None:
        return Decision("baseline", text, paired=paired)
    text = f"{contest.stale}; it has {_mean(known['stored']):.2f} on the eval seeds, and {text}"
    return Decision("baseline", text, fails=True, paired=paired)


def _undecided(contest: Contest, rewards: Mapping[Name, Rewards | None]) -> Decision:
    words = {"baseline": "the code's prompt", "stored": "the stored prompt", "best": "the best prompt found"}
    missing = " and ".join(words[name] for name, known in rewards.items() if known is None)
    text = f"nothing is decided or stored: {missing} has eval seeds without a reward"
    winner: Name = "best" if contest.has_best else "stored" if contest.has_stored else "baseline"
    if contest.stale is not None:
        return Decision(winner, f"{contest.stale}; {text}", fails=True)
    return Decision(winner, text, fails=contest.may_write)


def _mean(rewards: Rewards) -> float:
    return fsum(rewards.values()) / len(rewards)
