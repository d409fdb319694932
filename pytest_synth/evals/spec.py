"""The `synth_eval` marker, read once into a frozen value; every mistake is a line that names it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from pytest_synth.errors import ConfigError
from pytest_synth.evals.arguments import (
    MAX_ROLLOUTS,
    SpecError,
    count_argument,
    mapping_argument,
    number_argument,
    seeds_argument,
    text_argument,
)
from pytest_synth.gates import GateRule, MetricLimit, RuleName, parse_metrics
from pytest_synth.prompts import Prompt

ROLLOUT_TIMEOUT_S = 120.0  # for one rollout; a hung model must not hold a build for ten minutes


@dataclass(frozen=True)
class EvalSpec:
    """What an eval asks for, with every argument checked.

    Attributes:
        seeds: Rows of the split, without repetition, in the order given.
        min_reward: Threshold for the mean reward, in [0, 1].
        max_regression: By how much the mean may lie below the stored baseline's; above 0, at most 1.
        gate, confidence: Which rule decides, and the confidence of its bounds (see `GateRule`).
        metrics: Limits for the means of the rollouts' further numbers (`outcome_objectives`).
        prompt: The prompt under test; None: the task app's own.
        policy: Model, provider and sampling parameters; what it does not name comes from the options.
        env_config: Goes to the task app as `env.config`; holds `split` if one was named.
        samples: Rollouts for each seed.
        max_concurrent: Rollouts of this eval in flight; None: the limit of the run.
        timeout: Seconds for one rollout.
        max_cost: US dollars that its model calls may cost; none starts that could cross it.
        allow_missing: How many seeds may lack a reward.
    """

    seeds: tuple[int, ...]
    min_reward: float | None = None
    max_regression: float | None = None
    prompt: Prompt | None = None
    policy: Mapping[str, Any] | None = None
    env_name: str | None = None
    env_config: Mapping[str, Any] | None = None
    split: str | None = None
    samples: int = 1
    max_concurrent: int | None = None
    timeout: float = ROLLOUT_TIMEOUT_S
    max_cost: float | None = None
    gate: RuleName = "mean"
    confidence: float = 0.95
    allow_missing: int = 0
    metrics: tuple[MetricLimit, ...] = ()

    @property
    def rule(self) -> GateRule:
        """What its gate demands."""
        return GateRule(
            min_reward=self.min_reward,
            rule=self.gate,
            max_regression=self.max_regression,
            confidence=self.confidence,
            allow_missing=self.allow_missing,
            metrics=self.metrics,
        )

    @property
    def has_criterion(self) -> bool:
        return self.rule.has_criterion


ARGUMENTS = tuple(f.name for f in fields(EvalSpec))


def parse_eval(args: tuple[Any, ...], kwargs: Mapping[str, Any], *, base: Path) -> EvalSpec:
    """Check the arguments of a `synth_eval` marker or call.

    Args:
        args, kwargs: As the user wrote them.
        base: Folder that a relative path of a prompt file starts from.

    Raises:
        SpecError: For the first argument that is wrong.
    """
    given = dict(kwargs)
    if len(args) > 1:
        raise SpecError(f"takes seeds as its only positional argument, not {len(args)} of them")
    if args:
        if "seeds" in given:
            raise SpecError("seeds is given twice, by position and by name")
        given["seeds"] = args[0]
    for name in given:
        if name not in ARGUMENTS:
            raise SpecError(f"unknown argument {name!r}; allowed: {', '.join(ARGUMENTS)}")
    if "seeds" not in given:
        raise SpecError("seeds is missing; give rows of the data set, as in seeds=range(50)")
    checked = {name: _CHECKS[name](value) for name, value in given.items() if name != "prompt"}
    if given.get("prompt") is not None:
        try:
            checked["prompt"] = Prompt.parse(given["prompt"], base=base)
        except ConfigError as error:
            raise SpecError(f"prompt: {error}") from error
    split, config = checked.get("split"), dict(checked.get("env_config") or {})
    if split is not None:
        if config.get("split", split) != split:
            raise SpecError(
                f"split is {split!r} and env_config['split'] is {config['split']!r}; give one of them"
            )
        config["split"] = split
    elif "split" in config:
        checked["split"] = text_argument("env_config['split']")(config["split"])
    checked["env_config"] = config or None
    spec = EvalSpec(**{name: value for name, value in checked.items() if value is not None})
    try:
        spec.rule  # noqa: B018  # its construction checks how the criteria fit together
    except ConfigError as error:
        raise SpecError(str(error)) from error
    rollouts = len(spec.seeds) * spec.samples
    if rollouts > MAX_ROLLOUTS:
        raise SpecError(
            f"{len(spec.seeds):,} seeds with {spec.samples:,} samples are {rollouts:,} rollouts; "
            f"an eval may have {MAX_ROLLOUTS:,}"
        )
    return spec


def _metrics(value: object) -> tuple[MetricLimit, ...] | None:
    if value is None:
        return None
    try:
        return parse_metrics(value)
    except ConfigError as error:
        raise SpecError(str(error)) from error


_CHECKS: Mapping[str, Callable[[object], Any]] = {
    "seeds": seeds_argument(twice="; use samples= to run a seed several times"),
    "min_reward": number_argument("min_reward", "a number in [0, 1]", lambda x: 0 <= x <= 1),
    "policy": mapping_argument("policy"),
    "env_name": text_argument("env_name"),
    "env_config": mapping_argument("env_config"),
    "split": text_argument("split"),
    "samples": count_argument("samples", 1),
    "max_concurrent": count_argument("max_concurrent", 1),
    "timeout": number_argument("timeout", "seconds above 0", lambda x: x > 0),
    "max_cost": number_argument("max_cost", "US dollars from 0", lambda x: x >= 0),
    "allow_missing": count_argument("allow_missing", 0),
    "max_regression": number_argument("max_regression", "a number above 0, at most 1", lambda x: 0 < x <= 1),
    "gate": text_argument("gate"),
    "confidence": number_argument("confidence", "a number between 0 and 1", lambda x: 0 < x < 1),
    "metrics": _metrics,
}
