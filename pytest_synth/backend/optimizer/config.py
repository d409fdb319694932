"""What a prompt-learning job asks for, as values; `parsing` reads them from the wire."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pytest_synth.prompts import Prompt

PipelineMode = Literal["generations", "window"]

DEFAULT_MINIBATCH = 3  # smaller ones win at small budgets (benchmarks/gepa_quality.py)
DEFAULT_PARETO_SET = 10
FEW_SEEDS = 3  # that a founder learns from, and a child for whom no minibatch can be paid
MAX_FAILURES = 10  # rollouts lost in a row until the run fails
MAX_FAILED_REFLECTIONS = 3  # likewise reflections
CHARS_PER_TOKEN = 4  # no tokenizer here; English text has about four characters a token


@dataclass(frozen=True)
class TaskConfig:
    """Where rollouts go; the search itself does not look at it.

    Attributes:
        app_url, app_id: Of the task app.
        app_key: The task app's key if the config brings one; shown nowhere.
        env_config: Sent with each rollout; its `split` names the part of the data that seeds count in.
        policy: Sent with each rollout: `model`, `provider` and whatever the task app reads.
    """

    app_url: str
    env_config: Mapping[str, Any]
    policy: Mapping[str, Any] = field(repr=False)
    app_id: str | None = None
    app_key: str | None = field(default=None, repr=False)
    env_name: str | None = None

    @property
    def split(self) -> str | None:
        split = self.env_config.get("split")
        return split if isinstance(split, str) else None


@dataclass(frozen=True)
class ReflectionConfig:
    """The model that proposes prompts; None is the host's choice.

    Attributes:
        temperature: At 0, equal parents with equal examples give equal children.
        template: Text of the question instead of the built-in one; holds `<curr_param>` and `<side_info>`.
    """

    provider: str | None = None
    model: str | None = None
    temperature: float = 1.0
    timeout_s: float = 120.0
    template: str | None = None


@dataclass(frozen=True)
class PipelineConfig:
    """When children start.

    Attributes:
        mode: `generations`: a generation starts when the one before has ended, and sees all of it.
            `window`: a child starts when all but the last `window` before it have ended; faster, and a
            little worse.
        window: Children in flight in window mode; at least 1.
    """

    mode: PipelineMode = "generations"
    window: int = 1


@dataclass(frozen=True)
class GepaConfig:
    """A search for a better prompt.

    Attributes:
        prompt: The baseline.
        rewritten: Places of the messages that children may rewrite; None: all.
        required_wildcards: Names that every prompt must keep, in the messages that have them.
        has_wildcards: Whether the config declares any: then the messages are patterns of those that the task
            app sends, and what stands in braces is filled in.
        train_seeds: Rows that the search learns from.
        validation_seeds: Held out; they score the baseline and the best at the end.
        validation_split: Split of the validation seeds (`gepa.evaluation.validation_pool`), else the task's.
        validation_top_k: How many of the best candidates are scored on the validation seeds.
        budget: Rollouts of the whole run, never exceeded; None: what the generations cost at most.
        max_concurrent: Rollouts in flight.
        minibatch_size: Seeds from which a child learns, and on which it must beat its parent.
        pareto_set_size: Train seeds that score candidates; the others give feedback.
        archive_size: Parents come from the best so many candidates; None: from all.
        initial_size: Population before the first generation, the baseline included.
        num_generations: None: as many as the budget pays for.
        patience: Generations without a better best until the search ends; None: no such end.
        mutation_rate: Probability that a message is rewritten in a child; at least one always is, so it
            matters only where several may be.
        max_prompt_chars: Longest message that a proposal may have; None: any.
        max_spend_usd, max_time_s: Ends of the search; the time does not count the final check.
        reuse_known: Whether a pair of prompt and seed that has run is not run again (temperature 0).
        max_failures: Rollouts lost in a row until the run fails.
        not_applied: Fields that were accepted at their usual value and have no effect here, with reasons.
    """

    task: TaskConfig
    prompt: Prompt
    train_seeds: tuple[int, ...]
    validation_seeds: tuple[int, ...]
    rewritten: tuple[int, ...] | None = None
    required_wildcards: frozenset[str] = frozenset()
    has_wildcards: bool = False
    validation_split: str | None = None
    validation_top_k: int = 1
    budget: int | None = None
    max_concurrent: int = 20
    minibatch_size: int = DEFAULT_MINIBATCH
    pareto_set_size: int = DEFAULT_PARETO_SET
    archive_size: int | None = None
    initial_size: int = 1
    children_per_generation: int = 3
    num_generations: int | None = None
    patience: int | None = None
    mutation_rate: float = 0.3
    max_prompt_chars: int | None = 32_000 * CHARS_PER_TOKEN
    max_spend_usd: float | None = None
    max_time_s: float | None = None
    reuse_known: bool = True
    max_failures: int = MAX_FAILURES
    rng_seed: int = 0
    pipeline: PipelineConfig = PipelineConfig()
    reflection: ReflectionConfig = ReflectionConfig()
    not_applied: tuple[str, ...] = ()

    @property
    def founders(self) -> int:
        """Children that join the baseline in the initial population."""
        return self.initial_size - 1

    @property
    def few_seeds(self) -> int:
        """Feedback seeds that a frugal child learns from."""
        return min(FEW_SEEDS, self.minibatch_size)

    @property
    def founder_cost(self) -> int:
        """Rollouts of a founder at most: its parent's on few feedback seeds, and the Pareto set."""
        return self.few_seeds + self.pareto_set_size

    @property
    def dearest_child(self) -> int:
        """Rollouts of a child that is accepted, and whose parent has not run its minibatch."""
        return 2 * self.minibatch_size + self.pareto_set_size

    @property
    def cheapest_child(self) -> int:
        """Rollouts of a child that is rejected, and whose parent has run what it learns from."""
        return min(self.minibatch_size, self.pareto_set_size)

    @property
    def max_children(self) -> int | None:
        """Children of all generations; None if only the budget bounds them."""
        if self.num_generations is None:
            return None
        return self.num_generations * self.children_per_generation
