"""Which tests and seeds a run takes that is one job of a CI matrix.

Most evals are split: every shard runs every N-th seed. A test that looks at its rewards itself, that may fail
as expected, or that optimises is run whole by one shard and skipped by the others: its outcome cannot be put
together from shares.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

import pytest

from pytest_synth.evals.baselines import read_baseline
from pytest_synth.evals.entries import rule_entry
from pytest_synth.evals.parts import Planned, Whole, undecided
from pytest_synth.evals.sharding import Shard
from pytest_synth.plugin.detect import node_id_of
from pytest_synth.plugin.items import PlannedEval
from pytest_synth.report import EvalEntry

_LOOKS_ITSELF = frozenset({"synth_result", "synth_eval", "synth_optimize", "synth_client", "synth_tunnel"})


def share_out(plans: Mapping[str, PlannedEval], shard: Shard | None) -> dict[str, PlannedEval]:
    """Leave of the planned evals what this shard runs; the others are skipped."""
    if shard is None:
        return dict(plans)
    return {node_id: _share(plan, shard) for node_id, plan in plans.items()}


def planned(plans: Iterable[PlannedEval]) -> list[Planned]:
    """What the record of a run needs to know of its plan."""
    return [
        Planned(
            node_id=node_id_of(plan.item),
            sent_as=plan.item.nodeid if plan.item.nodeid != node_id_of(plan.item) else None,
            position=plan.position,
            seeds_asked=0 if plan.spec is None or plan.is_elsewhere else len(plan.spec.seeds),
            is_elsewhere=plan.is_elsewhere,
            whole=plan.whole,
        )
        for plan in plans
    ]


def as_share(entry: EvalEntry, plan: PlannedEval, shard: Shard | None) -> EvalEntry:
    """The entry of a test as its run may tell it: a share of the seeds decides nothing."""
    if plan.whole is None or shard is None:
        return entry
    return undecided(entry, plan.whole, shard)


def _share(plan: PlannedEval, shard: Shard) -> PlannedEval:
    if not _can_be_split(plan):
        home = shard.home_of(node_id_of(plan.item))
        if home == shard:
            return plan
        return _leave_out(plan, f"shard {shard}: this test runs whole, in shard {home}")
    spec = plan.spec
    assert spec is not None
    whole = Whole(
        seeds=spec.seeds,
        split=spec.split,
        samples=spec.samples,
        rule=rule_entry(spec.rule),
        baseline=_baseline_text(plan),
    )
    seeds = shard.seeds(spec.seeds)
    if not seeds:
        count = len(spec.seeds)
        noun = "seed" if count == 1 else "seeds"
        plan = replace(plan, whole=whole)
        return _leave_out(plan, f"shard {shard}: none of the eval's {count} {noun} is in it")
    share = replace(spec, seeds=seeds, min_reward=None, max_regression=None, metrics=(), gate="mean")
    return replace(plan, spec=share, whole=whole)


def _can_be_split(plan: PlannedEval) -> bool:
    if plan.spec is None or not plan.spec.has_criterion:
        return False
    names: Iterable[str] = getattr(plan.item, "fixturenames", ())
    marks = (plan.item.get_closest_marker(name) for name in ("xfail", "synth_optimize"))
    return _LOOKS_ITSELF.isdisjoint(names) and not any(marks)


def _leave_out(plan: PlannedEval, reason: str) -> PlannedEval:
    plan.item.add_marker(pytest.mark.skip(reason=reason))
    return replace(plan, is_elsewhere=True, eager=False)


def _baseline_text(plan: PlannedEval) -> str | None:
    if plan.spec is None or plan.spec.max_regression is None:
        return None
    stored = read_baseline(plan.baseline)
    return None if stored is None else stored.to_text()
