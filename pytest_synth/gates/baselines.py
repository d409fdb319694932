"""Baselines: stored rewards of an eval, as a small text that is reviewed with the code, and how to compare.

Reading and writing files is the caller's. The text is checked by hand and not by pydantic, so that gates need
the standard library alone.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pytest_synth.contracts.rewards import refuse_reward
from pytest_synth.errors import ConfigError, MissingRewards
from pytest_synth.gates import wording
from pytest_synth.gates.intervals import difference_interval, difference_lower_bound
from pytest_synth.gates.observations import Observation, SeedOutcome, by_seed, in_fixed_order, mean
from pytest_synth.gates.repeats import passes

VERSION = 1
_SEED = re.compile(r"-?(0|[1-9][0-9]{0,17})")  # one spelling for each number, so that none stands twice
REMEDY = "run with --synth-update-baseline and review the change of the file"


@dataclass(frozen=True)
class Conditions:
    """Under what an eval ran.

    Attributes:
        model: Provider and model, `openai/gpt-4.1-nano`.
        prompt: Fingerprint of the prompt that ran. It may differ from the baseline's: that is what a
            baseline is for.
        scorer, data: Fingerprints of what gives the rewards and of the rows, where the task app tells them.
    """

    model: str | None = None
    prompt: str | None = None
    scorer: str | None = None
    data: str | None = None


@dataclass(frozen=True)
class Baseline:
    """Rewards of one eval, by split and seed, and the conditions under which they came about.

    Attributes:
        samples: Samples of each seed; a reward is the mean over them.
        rewards: One for each seed that was asked for, all in [0, 1].
    """

    conditions: Conditions
    samples: int
    rewards: Mapping[tuple[str | None, int], float]

    @classmethod
    def of(cls, observations: Iterable[Observation], conditions: Conditions) -> Baseline:
        """Make a baseline of a run.

        Raises:
            MissingRewards: If a seed has no reward; a baseline with holes would hide them for ever.
            ValueError: If there are no observations.
        """
        outcomes = by_seed(observations)
        missing = [outcome.seed for outcome in outcomes if outcome.reason is not None]
        if missing:
            raise MissingRewards(missing)
        if not outcomes:
            raise ValueError("a baseline needs at least one seed")
        rewards = {o.key: o.reward for o in outcomes if o.reward is not None}
        return cls(conditions, len(outcomes[0].rewards), rewards)

    @classmethod
    def from_text(cls, text: str) -> Baseline:
        """Read what `to_text` has written. Unknown keys are refused: they would be lost at the next update.

        Raises:
            ConfigError: If the text is anything else; it names the field, its value and what is allowed.
        """
        try:
            document = json.loads(text, object_pairs_hook=_unique)
        except ConfigError:
            raise
        except (ValueError, RecursionError) as error:  # ValueError: a number of thousands of digits, too
            raise ConfigError(f"the baseline is not JSON ({error}); {REMEDY}") from error
        if not isinstance(document, dict):
            raise ConfigError(f"the baseline is {type(document).__name__}, not an object; {REMEDY}")
        if document.get("version") != VERSION:
            raise ConfigError(
                f"the baseline has version {document.get('version')!r}, not {VERSION}; {REMEDY}"
            )
        known = {"version", "model", "prompt", "scorer", "data", "samples", "rewards"}
        if set(document) - known:
            raise ConfigError(f"the baseline has unknown keys {sorted(set(document) - known)}; {REMEDY}")
        texts = {name: _text_or_none(document, name) for name in ("model", "prompt", "scorer", "data")}
        samples = document.get("samples")
        if not isinstance(samples, int) or isinstance(samples, bool) or samples < 1:
            raise ConfigError(f"samples of the baseline is {samples!r}, not a whole number above 0; {REMEDY}")
        return cls(Conditions(**texts), samples, _rewards(document.get("rewards")))

    def to_text(self) -> str:
        """JSON with one line for each seed, so that a diff names the seeds that changed; no dates, no times.

        The key of a seed without a split is in the split "".
        """
        splits: dict[str, dict[str, float]] = {}
        for (split, seed), reward in sorted(
            self.rewards.items(), key=lambda item: (item[0][0] or "", item[0][1])
        ):
            splits.setdefault(split or "", {})[str(seed)] = int(reward) if reward in (0, 1) else reward
        document = {
            "version": VERSION,
            "model": self.conditions.model,
            "prompt": self.conditions.prompt,
            "scorer": self.conditions.scorer,
            "data": self.conditions.data,
            "samples": self.samples,
            "rewards": splits,
        }
        return json.dumps(document, indent=1, ensure_ascii=False) + "\n"

    def refuses(self, outcomes: Sequence[SeedOutcome], conditions: Conditions | None) -> tuple[str, ...]:
        """Say why a run cannot be compared with this baseline; empty if it can.

        Args:
            outcomes: Of every seed that was asked for, missing ones too.
            conditions: Of the run; None compares seeds and samples only.
        """
        reasons: list[str] = []
        if conditions is not None:
            for name in ("model", "scorer", "data"):
                stored, now = getattr(self.conditions, name), getattr(conditions, name)
                if stored != now:
                    reasons.append(f"{name} was {stored!r} and is {now!r}")
        samples = max((len(o.rewards) for o in outcomes), default=self.samples)
        if samples != self.samples:
            reasons.append(f"samples was {self.samples} and is {samples}")
        asked = {o.key for o in outcomes}
        stored = set(self.rewards)
        for keys, what in ((asked - stored, "not in it"), (stored - asked, "of it not asked for")):
            if keys:
                ordered = sorted(keys, key=_order)
                names = wording.seed_list(ordered, with_split=wording.needs_split(ordered))
                reasons.append(f"{wording.count(len(keys), 'seed')} {what} ({names})")
        return tuple(reasons)


@dataclass(frozen=True)
class Change:
    """Reward of one seed in the baseline and now."""

    split: str | None
    seed: int
    before: float
    now: float

    @property
    def difference(self) -> float:
        return self.now - self.before


@dataclass(frozen=True)
class Comparison:
    """A run against its baseline, seed by seed.

    Attributes:
        baseline_mean: Of the baseline's rewards of the seeds that were compared.
        difference: Mean of the differences, now minus before.
        lower_bound: Of that mean, one-sided, at the rule's confidence.
        interval: Two-sided, at the rule's confidence.
        newly_failing, newly_fixed: Seeds that crossed the pass mark, in order.
        drops: All seeds whose reward fell, the largest fall first.
    """

    baseline_mean: float
    difference: float
    lower_bound: float
    interval: tuple[float, float]
    differences: tuple[float, ...]
    newly_failing: tuple[Change, ...]
    newly_fixed: tuple[Change, ...]
    drops: tuple[Change, ...]


def compare(present: Sequence[SeedOutcome], baseline: Baseline, confidence: float) -> Comparison:
    """Pair seeds that have a reward with the baseline's; it must hold them all (`Baseline.refuses`)."""
    changes = [
        Change(o.split, o.seed, baseline.rewards[o.key], o.reward)
        for o in in_fixed_order(present)
        if o.reward is not None
    ]
    differences = tuple(change.difference for change in changes)
    ordered = sorted(changes, key=lambda change: _order((change.split, change.seed)))
    return Comparison(
        baseline_mean=mean([change.before for change in changes]),
        difference=mean(differences),
        lower_bound=difference_lower_bound(differences, confidence),
        interval=difference_interval(differences, confidence),
        differences=differences,
        newly_failing=tuple(c for c in ordered if passes(c.before) and not passes(c.now)),
        newly_fixed=tuple(c for c in ordered if passes(c.now) and not passes(c.before)),
        drops=tuple(sorted((c for c in ordered if c.now < c.before), key=lambda c: c.difference)),
    )


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Refuse a key that stands twice: a merge of two branches leaves such files, and the last would win."""
    document = dict(pairs)
    if len(document) < len(pairs):
        twice = sorted({key for key, _ in pairs if sum(key == other for other, _ in pairs) > 1})
        raise ConfigError(f"the baseline has {', '.join(map(repr, twice))} twice; {REMEDY}")
    return document


def _order(key: tuple[str | None, int]) -> tuple[str, int]:
    return (key[0] or "", key[1])


def _text_or_none(document: Mapping[str, Any], name: str) -> str | None:
    value = document.get(name)
    if value is not None and not isinstance(value, str):
        raise ConfigError(f"{name} of the baseline is {value!r}, not a text; {REMEDY}")
    return value


def _rewards(splits: object) -> dict[tuple[str | None, int], float]:
    if not isinstance(splits, dict) or not any(splits.values()):
        raise ConfigError(f"rewards of the baseline holds no seeds; {REMEDY}")
    rewards: dict[tuple[str | None, int], float] = {}
    for split, seeds in splits.items():
        if not isinstance(seeds, dict):
            raise ConfigError(f"rewards[{split!r}] of the baseline is {seeds!r}, not an object; {REMEDY}")
        for seed, reward in seeds.items():
            name = f"rewards[{split!r}][{seed!r}]"
            if not _SEED.fullmatch(seed):
                raise ConfigError(f"{name} of the baseline: {seed!r} is not the number of a seed; {REMEDY}")
            reason = refuse_reward(reward, name)
            if reason is not None:
                raise ConfigError(f"the baseline cannot be read: {reason}; {REMEDY}")
            rewards[split or None, int(seed)] = float(reward)
    return rewards
