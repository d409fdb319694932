"""What chance decides in a search: Pareto set, minibatches, and which messages are rewritten.

Each decision has a random stream of its own, so that one of them does not move the others.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from pytest_synth.backend.optimizer.config import GepaConfig


def stream(config: GepaConfig, name: str) -> random.Random:
    """A random stream that depends on the config's `rng_seed` and its name alone."""
    return random.Random(f"{config.rng_seed}/{name}")  # noqa: S311 - a search, not a secret


def draw_pareto_set(config: GepaConfig) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Split the train seeds: those that score candidates, and those that give feedback; both in order."""
    chosen = set(stream(config, "pareto").sample(sorted(config.train_seeds), config.pareto_set_size))
    pareto = tuple(seed for seed in config.train_seeds if seed in chosen)
    return pareto, tuple(seed for seed in config.train_seeds if seed not in chosen)


class Deck:
    """A shuffled deck of seeds; no seed comes again before all others had their turn.

    gepa's own sampler hands out the same few minibatches again and again when a generation has more than
    one child.
    """

    def __init__(self, seeds: Sequence[int], rng: random.Random) -> None:
        self._seeds = tuple(seeds)
        self._rng = rng
        self._cards: list[int] = []

    def find(self, size: int, is_wanted: Callable[[tuple[int, ...]], bool]) -> tuple[int, ...] | None:
        """Put aside batches that are not wanted, and show one that is; None after one turn of all seeds.

        What is shown stays on top until it is discarded.
        """
        assert 0 < size <= len(self._seeds)
        for _ in range(-(-len(self._seeds) // size)):
            self._fill(size)
            batch = tuple(self._cards[:size])
            if is_wanted(batch):
                return batch
            self.discard(size)
        return None

    def discard(self, number: int) -> None:
        del self._cards[:number]

    def _fill(self, size: int) -> None:
        """Shuffle a new turn below the rest of the last one, with no seed twice among the first `size`."""
        if len(self._cards) >= size:
            return
        top = self._cards
        turn = list(self._seeds)
        self._rng.shuffle(turn)
        first = [seed for seed in turn if seed not in top][: size - len(top)]
        self._cards = [*top, *first, *(seed for seed in turn if seed not in first)]


def draw_components(names: Sequence[str], rate: float, rng: random.Random) -> tuple[str, ...]:
    """Each with the given probability; at least one."""
    return tuple(name for name in names if rng.random() < rate) or (rng.choice(names),)


def draw_lessons(scores: Sequence[tuple[int, float]], size: int, rng: random.Random) -> tuple[int, ...]:
    """Seeds to learn from where the rewards are known: those below 1 first, in random order."""
    deck = list(scores)
    rng.shuffle(deck)
    deck.sort(key=lambda entry: entry[1] >= 1.0)
    return tuple(seed for seed, _ in deck[:size])
