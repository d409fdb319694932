"""What a budget will be spent on, said before the first rollout."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any

from pytest_synth.backend.optimizer.config import GepaConfig
from pytest_synth.backend.optimizer.fields import GepaConfigError
from pytest_synth.contracts.evals import MAX_ROLLOUTS

_BUDGET_PATH = "prompt_learning.gepa.rollout.budget"
_GENERATIONS_PATH = "prompt_learning.gepa.population.num_generations"


@dataclass(frozen=True)
class Plan:
    """Rollouts by purpose. The search may end earlier than planned, never later.

    Attributes:
        budget: Rollouts of the whole run, at most.
        baseline: Rollouts of the baseline on the Pareto set.
        founders, population: Children of the initial population that can be paid, and their rollouts.
        founders_wanted: As the config has it.
        children_min, children_max: How many children of the generations the rest pays for: if all are
            accepted, and if all are rejected and their parents known.
        children_wanted: As the config has it; None: as many as can be paid.
        final_check: Rollouts on the validation seeds, set aside from the start.
        not_applied: See `GepaConfig.not_applied`.
    """

    budget: int
    baseline: int
    founders: int
    founders_wanted: int
    population: int
    children_min: int
    children_max: int
    children_wanted: int | None
    final_check: int
    not_applied: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """One line for people."""
        parts = [f"baseline {self.baseline}"]
        if self.founders_wanted:
            is_cut = self.founders < self.founders_wanted
            word = "prompt" if self.founders_wanted == 1 else "prompts"
            cut = f" for {self.founders} of {self.founders_wanted} {word}" if is_cut else ""
            parts.append(f"population {self.population}{cut}")
        span = f"{self.children_min} to {self.children_max}"
        if self.children_min == self.children_max:
            span = str(self.children_min)
        wanted = "" if self.children_wanted is None else f" of {self.children_wanted}"
        word = "child" if f"{span}{wanted}" in ("1", "1 of 1") else "children"
        parts += [f"{span}{wanted} {word}", f"final check {self.final_check}"]
        return f"{self.budget} rollouts: {', '.join(parts)}"

    def to_document(self) -> dict[str, Any]:
        """JSON of the plan, its text included."""
        return {
            "text": self.text,
            "budget": self.budget,
            "baseline": self.baseline,
            "founders": self.founders,
            "founders_wanted": self.founders_wanted,
            "population": self.population,
            "children_min": self.children_min,
            "children_max": self.children_max,
            "children_wanted": self.children_wanted,
            "final_check": self.final_check,
            "not_applied": list(self.not_applied),
        }


def make_plan(config: GepaConfig) -> Plan:
    """Plan a run.

    Without a budget, it is what all generations cost if every child is accepted.

    Raises:
        GepaConfigError: If the budget cannot pay for the baseline, one candidate and the final check; it
            says how much would do. Or if the generations ask for more rollouts than a job may have.
    """
    pareto = config.pareto_set_size
    final = len(config.validation_seeds) * (1 + config.validation_top_k)
    wanted, dearest = config.max_children, config.dearest_child
    candidate = 1 + pareto  # it learns from one seed
    least = pareto + candidate + final
    budget = config.budget
    if budget is None:
        assert wanted is not None, "a config has a budget or a number of generations"
        budget = pareto + config.founders * config.founder_cost + wanted * dearest + final
        if budget > MAX_ROLLOUTS:
            raise GepaConfigError(
                [
                    (
                        _GENERATIONS_PATH,
                        f"is {config.num_generations}, which may take {budget} rollouts with its founders"
                        f" and children; a job may have {MAX_ROLLOUTS}",
                    )
                ]
            )
    if budget < least:
        seeds = f"{len(config.validation_seeds)} validation seeds"
        parts = f"{pareto} for the baseline, {candidate} for one candidate, {final} for the final check"
        raise GepaConfigError(
            [(_BUDGET_PATH, f"is {budget}; at least {least} are needed: {parts} on {seeds}")]
        )
    founders = min(config.founders, (budget - final - pareto) // config.founder_cost)
    population = founders * config.founder_cost
    rest = budget - final - pareto - population
    low, high = _children(rest, config)
    return Plan(
        budget=budget,
        baseline=pareto,
        founders=founders,
        founders_wanted=config.founders,
        population=population,
        children_min=low if wanted is None else min(low, wanted),
        children_max=high if wanted is None else min(high, wanted),
        children_wanted=wanted,
        final_check=final,
        not_applied=config.not_applied,
    )


def _children(rest: int, config: GepaConfig) -> tuple[int, int]:
    """How many children some rollouts pay for, at least and at most.

    Where the cheapest usual child is no longer left, all are frugal: they cost at most what a founder does,
    and the last one learns from as many seeds as are left, at least from one.
    """
    cheapest, dearest, pareto = config.cheapest_child, config.dearest_child, config.pareto_set_size
    usual = config.minibatch_size + pareto  # of a parent that has run all that the child learns from
    frugal = [divmod(left, config.founder_cost) for left in range(min(rest + 1, usual))]
    fewest = [full + (left > pareto) for full, left in frugal]
    seen, lowest = 0, deque[int]()  # the places whose value no later one undercuts, in their order
    for left in range(usual, rest + 1):
        for place in range(seen, left - cheapest + 1):
            while lowest and fewest[lowest[-1]] >= fewest[place]:
                lowest.pop()
            lowest.append(place)
        seen = left - cheapest + 1
        while lowest[0] < left - dearest:
            lowest.popleft()
        fewest.append(1 + fewest[lowest[0]])
    most = 0 if rest < pareto else (rest - pareto) // cheapest + 1
    return fewest[rest], most
