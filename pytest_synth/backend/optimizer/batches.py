"""Chooses the minibatch of a child: the seeds that it learns from, and on which it must beat its parent.

One part is fresh: feedback seeds, which score nobody. The other part are lessons: Pareto seeds on which
the parent fell short. Lessons cost nothing, since the parent has run them and an accepted child runs them
anyway, and they teach most; but a child that has learnt from them scores too well on them. So both are
mixed, by `feedback_fraction`; and what a search claims is checked on held-out seeds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pytest_synth.backend.optimizer.candidates import Candidate, has_lesson
from pytest_synth.backend.optimizer.config import GepaConfig
from pytest_synth.backend.optimizer.drawing import Minibatches, draw_lessons, stream
from pytest_synth.backend.optimizer.ports import RolloutKey, RolloutOutcome
from pytest_synth.prompts import Prompt

Keys = tuple[RolloutKey, ...]


class Batches:
    """Draws minibatches, as the parent's rollouts that a child looks at.

    Args:
        paid: Gives the outcome of a rollout if a settled child or the baseline has paid for it.
    """

    def __init__(
        self,
        config: GepaConfig,
        feedback: Sequence[int],
        paid: Callable[[RolloutKey], RolloutOutcome | None],
    ) -> None:
        self._config = config
        self._paid = paid
        self._deck = (
            Minibatches(feedback, config.fresh_seeds, stream(config, "minibatches"))
            if config.fresh_seeds
            else None
        )
        self._lessons = stream(config, "lessons")
        self._fresh: tuple[int, ...] | None = None

    def key(self, prompt: Prompt, seed: int, sample: int) -> RolloutKey:
        """Name a rollout; with known rollouts used again, all samples of a pair are one."""
        number = 0 if self._config.reuse_known else sample
        return RolloutKey(prompt.fingerprint, self._config.task.split, seed, number)

    def lessons(self, parent: Candidate) -> Keys:
        """Pareto seeds alone: for founders, and for children that nothing dearer can be paid for."""
        return self._lesson_keys(parent, self._config.minibatch_size)

    def mixed(self, parent: Candidate, child: int) -> Keys | None:
        """Lessons and fresh seeds; None if the parent is known to be perfect on all that could be drawn.

        The same fresh seeds come again until `take` is called.
        """
        if self._deck is None:
            return self.lessons(parent) or None
        lessons = self._lesson_keys(parent, self._config.lesson_seeds)

        def keys(seeds: tuple[int, ...]) -> Keys:
            return (*lessons, *(self.key(parent.prompt, seed, 2 * child) for seed in seeds))

        def may_teach(seeds: tuple[int, ...]) -> bool:
            known = [outcome for key in keys(seeds) if (outcome := self._paid(key)) is not None]
            return len(known) < len(lessons) + len(seeds) or has_lesson(known)

        if self._fresh is None or not may_teach(self._fresh):
            self._fresh = self._deck.draw_where(may_teach)
        return None if self._fresh is None else keys(self._fresh)

    def take(self) -> None:
        """A child has got the fresh seeds."""
        self._fresh = None

    def _lesson_keys(self, parent: Candidate, size: int) -> Keys:
        """Failed seeds first; those that were lost teach nothing."""
        scores = [(seed, o.score) for seed, o in parent.outcomes.items() if not o.is_lost]
        seeds = draw_lessons(scores, size, self._lessons)
        return tuple(self.key(parent.prompt, seed, parent.sample) for seed in seeds)
