"""How the seeds of an eval are shared out among the jobs of a CI matrix."""

from __future__ import annotations

import zlib
from dataclasses import dataclass


@dataclass(frozen=True)
class Shard:
    """Shard `index` (from 1) of `count`."""

    index: int
    count: int

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    def seeds(self, seeds: tuple[int, ...]) -> tuple[int, ...]:
        """Every `count`-th seed; rows of data sets are often sorted, so a shard takes no run of them."""
        return seeds[self.index - 1 :: self.count]

    def home_of(self, node_id: str) -> Shard:
        """The shard of a test that cannot be split; the same on every machine."""
        return Shard(zlib.crc32(node_id.encode()) % self.count + 1, self.count)
