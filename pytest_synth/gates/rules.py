"""What a gate demands: rule, limits, and how a value is held against a limit."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from pytest_synth.errors import ConfigError

RuleName = Literal["mean", "lower_bound", "not_worse"]
RULES: tuple[RuleName, ...] = ("mean", "lower_bound", "not_worse")

TOLERANCE = 1e-9
"""A value that misses its limit by less than this (relative, above 1) is at the limit.

Decimal fractions are not exact in binary: 0.8 - 0.1 is 0.7000000000000001, and 5/6 as a float lies above
the mean of five ones and a zero. The smallest true step of a mean of a million 0/1 rewards is 1e-6.
"""

Relation = Literal[">=", "<="]


@dataclass(frozen=True)
class MetricLimit:
    """Limit for the mean of one of the rollout's objectives."""

    name: str
    relation: Relation
    limit: float


@dataclass(frozen=True)
class GateRule:
    """What must hold for a gate to pass.

    | `rule` | `min_reward` is held against | `max_regression` is held against |
    | --- | --- | --- |
    | `mean` | the mean reward | the mean paired difference to the baseline |
    | `lower_bound` | the one-sided lower bound of the mean | the lower bound of the mean paired difference |
    | `not_worse` | the mean reward | the lower bound of the mean paired difference |

    Attributes:
        min_reward: In [0, 1]; None: no such criterion.
        max_regression: Above 0 and at most 1: by how much the mean may lie below the baseline's.
        confidence: Of the bounds, in (0, 1); one-sided where a bound decides.
        allow_missing: How many seeds may be without a reward; the means are then over the others.
        metrics: Limits for the means of further objectives, which are compared as means under every rule:
            they have no known range, so no bound holds for them without further assumptions.
    """

    min_reward: float | None = None
    rule: RuleName = "mean"
    max_regression: float | None = None
    confidence: float = 0.95
    allow_missing: int = 0
    metrics: tuple[MetricLimit, ...] = ()

    def __post_init__(self) -> None:
        if self.rule not in RULES:
            raise ConfigError(f"gate is {self.rule!r}; allowed: {', '.join(RULES)}")
        if self.min_reward is not None and not 0 <= self.min_reward <= 1:
            raise ConfigError(f"min_reward is {self.min_reward!r}; allowed: a number in [0, 1]")
        if self.max_regression is not None and not 0 < self.max_regression <= 1:
            raise ConfigError(
                f"max_regression is {self.max_regression!r}; allowed: a number above 0, at most 1"
            )
        if not 0 < self.confidence < 1:
            raise ConfigError(f"confidence is {self.confidence!r}; allowed: a number between 0 and 1")
        if self.allow_missing < 0:
            raise ConfigError(f"allow_missing is {self.allow_missing!r}; allowed: 0 or more seeds")
        if self.rule == "not_worse" and self.max_regression is None:
            raise ConfigError("gate 'not_worse' needs max_regression, the margin that is still not worse")
        if self.rule == "lower_bound" and self.min_reward is None:
            raise ConfigError(
                "gate 'lower_bound' needs min_reward, the limit that the lower bound must clear"
            )

    def without_baseline(self) -> GateRule:
        """The rule of a run that makes the baseline, and so has none to be held against."""
        return replace(self, rule="mean" if self.rule == "not_worse" else self.rule, max_regression=None)

    @property
    def has_criterion(self) -> bool:
        return self.min_reward is not None or self.max_regression is not None or bool(self.metrics)


def parse_metrics(value: object) -> tuple[MetricLimit, ...]:
    """Read `{"accuracy": 0.8, "latency_ms": ("<=", 900)}`; a bare number means "at least".

    Raises:
        ConfigError: If it is anything else; it names the metric and what is allowed.
    """
    if not isinstance(value, Mapping) or not value:
        raise ConfigError(
            f"metrics is {value!r}; allowed: a mapping such as {{'accuracy': 0.8, 'latency_ms': ('<=', 900)}}"
        )
    return tuple(_metric(name, limit) for name, limit in value.items())


def _metric(name: object, limit: object) -> MetricLimit:
    if not isinstance(name, str) or not name:
        raise ConfigError(f"metrics has the name {name!r}; allowed: the name of an objective, as text")
    relation: object = ">="
    number = limit
    if isinstance(limit, tuple | list) and len(limit) == 2:
        relation, number = limit
    if (
        relation not in (">=", "<=")
        or isinstance(number, bool)
        or not isinstance(number, int | float)
        or not math.isfinite(number)
    ):
        raise ConfigError(
            f"metrics[{name!r}] is {limit!r}; allowed: a number (at least), ('>=', number) or ('<=', number)"
        )
    return MetricLimit(name, ">=" if relation == ">=" else "<=", float(number))


def holds(value: float, relation: Relation, limit: float) -> bool:
    """Hold a value against its limit; see `TOLERANCE` for what counts as "at the limit"."""
    slack = TOLERANCE * max(1.0, abs(limit))
    return value >= limit - slack if relation == ">=" else value <= limit + slack
