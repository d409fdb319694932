"""`--synth-dry-run`: what would be run, and what it would cost as far as that is known."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from pytest_synth.errors import SynthError
from pytest_synth.evals.recording import recording_of

if TYPE_CHECKING:
    from pytest_synth.evals.settings import Settings
    from pytest_synth.plugin.items import PlannedEval

Describe = Callable[[str], tuple[int, float | None]]


def plan_lines(plans: Iterable[PlannedEval], settings: Settings, describe: Describe | None) -> list[str]:
    """One line for each selected eval, and their total.

    Args:
        describe: Gives calls and cost of a cassette by its name; None: there are none here.
    """
    lines: list[str] = []
    rollouts, cost, unknown = 0, 0.0, 0
    for plan in plans:
        if plan.spec is None:
            lines.append(f"  {plan.item.nodeid}: evals that its body calls, not known beforehand")
            unknown += 1
            continue
        policy = settings.policy | dict(plan.spec.policy or {})
        number = len(plan.spec.seeds) * plan.spec.samples
        rollouts += number
        seeds = f"{len(plan.spec.seeds)} seeds"
        if plan.spec.samples > 1:
            seeds += f" x {plan.spec.samples} samples"
        known, said = (0.0, "free") if policy["provider"] == "offline" else _recorded(plan, describe)
        if known is None:
            unknown += 1
        else:
            cost += known
        model = f"{policy['provider']}/{policy['model']}"
        lines.append(f"  {plan.item.nodeid}: {seeds}, {number} rollouts on {model}; {said}")
    total = f"total: {rollouts} rollouts; cost ${cost:.4f}"
    if unknown:
        total += f" and that of {unknown} {'eval' if unknown == 1 else 'evals'}, which is unknown"
    if settings.max_cost is not None:
        total += f"; ceiling ${settings.max_cost:.4f}"
    return ["synth: dry run, nothing is run", *lines, total]


def _recorded(plan: PlannedEval, describe: Describe | None) -> tuple[float | None, str]:
    """What the calls in the test's cassette cost when they were recorded, and how to say it."""
    from pytest_synth.plugin.detect import name_of

    item = plan.item
    recording = recording_of("once", item.config.rootpath, item.path, name_of(item))
    if describe is None or recording.cassette is None:
        return None, "cost unknown: no cassette"
    try:
        calls, cost = describe(recording.cassette)
    except SynthError as error:
        return None, f"cost unknown: {error}"
    if not calls:
        return None, "cost unknown: no cassette"
    if cost is None:
        return None, f"cost unknown: the price of its {calls} recorded calls is not known; see synth_prices"
    return cost, f"${cost:.4f} when it was recorded"
