"""Chooses what a child learns from, and on which seeds it must beat its parent.

A usual child does both on a minibatch of feedback seeds, which score nobody. Up to half of them are
failures of its parent that are known already, which cost nothing to look at and teach most; the others are
fresh. (gepa takes all of them fresh: benchmarks/gepa_quality.py compares.) A frugal child is for the initial
population and for the end of the budget: it learns from few fresh seeds, at the very end from one, or from
known failures alone, and is judged on Pareto seeds, which its parent has run and which it would run anyway.

No child learns from the seeds that score it, as long as there is anything else to learn from. A reflection
model that writes down what it is shown makes such candidates look perfect: on Banking77 with the offline
models, they claimed a reward of 0.98 and had 0.46, no more than the baseline.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from pytest_synth.backend.optimizer.candidates import Batch, Candidate, Keys, has_lesson
from pytest_synth.backend.optimizer.config import GepaConfig
from pytest_synth.backend.optimizer.drawing import Deck, draw_lessons, stream
from pytest_synth.backend.optimizer.ports import RolloutKey, RolloutOutcome
from pytest_synth.prompts import Prompt


class Batches:
    """Draws batches for the children of a run.

    Args:
        paid: Gives the outcome of a rollout if the baseline or a settled child has paid for it.
    """

    def __init__(
        self,
        config: GepaConfig,
        feedback: Sequence[int],
        paid: Callable[[RolloutKey], RolloutOutcome | None],
    ) -> None:
        self._config = config
        self._feedback = frozenset(feedback)
        self._paid = paid
        self._deck = Deck(feedback, stream(config, "minibatches"))
        self._rng = stream(config, "lessons")
        self._known: dict[str, dict[int, RolloutKey]] = {}

    def key(self, prompt: Prompt, seed: int, sample: int) -> RolloutKey:
        """Name a rollout; with known rollouts used again, all samples of a pair are one."""
        number = 0 if self._config.reuse_known else sample
        return RolloutKey(prompt.fingerprint, self._config.task.split, seed, number)

    def remember(self, outcomes: Mapping[RolloutKey, RolloutOutcome]) -> None:
        """Rollouts that a settled child has seen; those on feedback seeds may teach later ones."""
        for key, outcome in outcomes.items():
            if key.seed in self._feedback and not outcome.is_lost:
                self._known.setdefault(key.fingerprint, {})[key.seed] = key

    def take(self, batch: Batch) -> None:
        """A child has got the batch: its fresh seeds do not come again before all others had their turn."""
        self._deck.discard(batch.fresh)

    def for_founder(self, parent: Candidate, child: int) -> Batch | None:
        """Few fresh seeds; the gate is the Pareto set, which lets founders pass whatever their rewards."""
        fresh = self._fresh(parent, child, self._config.few_seeds)
        gate = self._pareto_keys(parent, tuple(parent.outcomes))
        return self._last_resort(parent) if fresh is None else Batch(fresh, gate, len(fresh))

    def for_child(self, parent: Candidate, child: int) -> Iterator[Batch]:
        """Batches that a child may have, best first; later ones are for when the first is too dear."""
        size = self._config.minibatch_size
        known = self._known_failures(parent, size)
        half = known[: size // 2]
        fresh = self._fresh(parent, child, size - len(half))
        if fresh is not None:
            whole = tuple(dict.fromkeys((*half, *fresh)))
            yield Batch(whole, whole, len(fresh))
        gate = self._frugal_gate(parent)
        if known:
            yield Batch(known, gate)
        few: Keys | None = None
        for number in range(self._config.few_seeds, 0, -1):
            few = self._fresh(parent, child, number)
            if few is not None:
                yield Batch(few, gate, len(few))
        if fresh is None and not known and few is None:
            last = self._last_resort(parent)
            if last is not None:
                yield last

    def _fresh(self, parent: Candidate, child: int, size: int) -> Keys | None:
        """Feedback seeds on which the parent is not known to be perfect; None if there are none."""

        def may_teach(seeds: tuple[int, ...]) -> bool:
            outcomes = [self._paid(self.key(parent.prompt, seed, 2 * child)) for seed in seeds]
            known = [outcome for outcome in outcomes if outcome is not None]
            return len(known) < len(seeds) or has_lesson(known)

        seeds = self._deck.find(size, may_teach)
        return None if seeds is None else tuple(self.key(parent.prompt, seed, 2 * child) for seed in seeds)

    def _known_failures(self, parent: Candidate, size: int) -> Keys:
        """Failures of the parent on feedback seeds that it has run, at random."""
        known = self._known.get(parent.prompt.fingerprint, {})
        scores = [
            (seed, outcome.score)
            for seed, key in sorted(known.items())
            if (outcome := self._paid(key)) is not None and has_lesson([outcome])
        ]
        return tuple(known[seed] for seed in draw_lessons(scores, size, self._rng))

    def _frugal_gate(self, parent: Candidate) -> Keys:
        """Pareto seeds at random, at least one of them not perfect, where a child can be better."""
        seeds = list(parent.outcomes)
        self._rng.shuffle(seeds)
        size = min(self._config.minibatch_size, len(seeds))
        chosen, rest = seeds[:size], seeds[size:]
        if all(parent.outcomes[seed].score >= 1.0 for seed in chosen):
            chosen[-1] = next((seed for seed in rest if parent.outcomes[seed].score < 1.0), chosen[-1])
        return self._pareto_keys(parent, chosen)

    def _last_resort(self, parent: Candidate) -> Batch | None:
        """Pareto seeds on which the parent failed, when it is perfect on all feedback seeds."""
        scores = [(seed, o.score) for seed, o in parent.outcomes.items() if not o.is_lost]
        seeds = draw_lessons(scores, self._config.minibatch_size, self._rng)
        keys = self._pareto_keys(parent, seeds)
        return Batch(keys, keys) if keys else None

    def _pareto_keys(self, parent: Candidate, seeds: Sequence[int]) -> Keys:
        return tuple(self.key(parent.prompt, seed, parent.sample) for seed in seeds)
