"""Parts of a run that was split over CI jobs, judged as one.

A run is split by its tests (each job selects some of them), or by the seeds of every test (`Shard`). In the
second case no job has decided a gate; here the rewards of all of them are judged together.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from pytest_synth.contracts.evals import EvalRow
from pytest_synth.errors import ConfigError
from pytest_synth.evals.entries import gate_rule, verdict_fields
from pytest_synth.evals.parts import Part, PartEval, Whole, unjudged
from pytest_synth.evals.sharding import Shard
from pytest_synth.gates import Baseline, Conditions, judge, observe
from pytest_synth.report import EvalEntry

Plan = Mapping[str, Whole | None]
"""What is asked for, by node id; None for a test that is not split."""


@dataclass(frozen=True)
class _Share:
    """What one shard has of one test.

    Attributes:
        entry: None if the share was not run.
    """

    shard: Shard
    file: str
    found: PartEval

    @property
    def entry(self) -> EvalEntry | None:
        return self.found.entries[0] if self.found.entries else None


def merge_parts(parts: Mapping[str, Part]) -> tuple[EvalEntry, ...]:
    """Join the parts of one run and judge what was split.

    Args:
        parts: By the names of their files.

    Returns:
        The entries of all evals. Those that did not run are incomplete; those that were skipped are left out.

    Raises:
        ConfigError: If a part is missing or there twice, or the parts do not belong together.
    """
    if not parts:
        raise ConfigError("there is no part to merge")
    unsplit = [name for name, part in parts.items() if part.shard is None]
    if not unsplit:
        return _join_seeds(parts)
    if len(unsplit) < len(parts):
        split = next(name for name, part in parts.items() if part.shard is not None)
        raise _apart(f"{split!r} is of a run with --synth-shard, {unsplit[0]!r} is not")
    return _join_tests(parts)


def skipped_tests(parts: Iterable[Part], entries: Iterable[EvalEntry]) -> list[str]:
    """Tests that were skipped with their evals, in every part that could have run them.

    Args:
        entries: Of the merged parts.
    """
    told = {entry.node_id for entry in entries}
    found = [one for part in parts for one in part.evals if one.state == "skipped" and one.seeds_asked]
    return list(dict.fromkeys(one.node_id for one in found if one.node_id not in told))


def _join_tests(parts: Mapping[str, Part]) -> tuple[EvalEntry, ...]:
    seen: dict[str, str] = {}
    entries: list[EvalEntry] = []
    for name, part in parts.items():
        for found in part.evals:
            if found.node_id in seen:
                raise ConfigError(
                    f"{found.node_id} is in {seen[found.node_id]!r} and in {name!r}; let one job run each "
                    "test, or split the seeds of all tests with --synth-shard"
                )
            seen[found.node_id] = name
            entries += _unsplit_entries(found, name)
    return tuple(entries)


def _join_seeds(parts: Mapping[str, Part]) -> tuple[EvalEntry, ...]:
    shards = _shards(parts)
    first = next(iter(shards))
    plan = _plan(parts[first])
    shares: dict[str, list[_Share]] = {node_id: [] for node_id in plan}
    for name, shard in shards.items():
        _check_plans(plan, first, _plan(parts[name]), name)
        for found in parts[name].evals:
            if found.state != "elsewhere":
                shares[found.node_id].append(_Share(shard, name, found))
    entries: list[EvalEntry] = []
    for node_id, whole in plan.items():
        if whole is not None:
            entries += _judge_together(node_id, whole, shares[node_id])
        else:
            entries += [e for share in shares[node_id] for e in _unsplit_entries(share.found, share.file)]
    return tuple(entries)


def _shards(parts: Mapping[str, Part]) -> dict[str, Shard]:
    """Which shard each part is, in order; every one of them is there exactly once."""
    shards = {name: Shard(*part.shard) for name, part in parts.items() if part.shard is not None}
    first, count = next((name, shard.count) for name, shard in shards.items())
    files: dict[int, str] = {}
    for name, shard in shards.items():
        if shard.count != count:
            raise _apart(f"{first!r} is shard {shards[first]}, {name!r} is shard {shard}")
        if shard.index in files:
            raise ConfigError(f"shard {shard} is there twice: {files[shard.index]!r} and {name!r}")
        files[shard.index] = name
    missing = [str(Shard(index, count)) for index in range(1, count + 1) if index not in files]
    if missing:
        raise ConfigError(
            f"the part of shard {', '.join(missing)} is missing; its job has written none, or it was lost"
        )
    return {files[index]: shards[files[index]] for index in sorted(files)}


def _plan(part: Part) -> Plan:
    return {found.node_id: found.whole for found in part.evals}


def _check_plans(plan: Plan, first: str, other: Plan, name: str) -> None:
    """All shards have selected the same tests, with the same markers."""
    for node_id in [*plan, *other]:
        if node_id not in other:
            raise _apart(f"{node_id} is in {first!r} and not in {name!r}")
        if node_id not in plan:
            raise _apart(f"{node_id} is in {name!r} and not in {first!r}")
        if plan[node_id] != other[node_id]:
            raise _apart(
                f"seeds, criteria or baseline of {node_id} are not the same in {first!r} and {name!r}"
            )


def _unsplit_entries(found: PartEval, file: str) -> Sequence[EvalEntry]:
    if found.state != "not_run":
        return found.entries
    why = f"it did not run; the run of {file!r} ended before"
    return [unjudged(found.node_id, why, found.seeds_asked)]


def _judge_together(node_id: str, whole: Whole, shares: Sequence[_Share]) -> list[EvalEntry]:
    """Judge the rewards of all shards; nothing if every one of them has skipped the test."""
    entries = [share.entry for share in shares if share.entry is not None]
    if not entries:
        if all(share.found.state == "skipped" for share in shares):
            return []
        return [unjudged(node_id, "it did not run in any shard", len(whole.seeds))]
    conditions = Conditions(
        model=_same(f"the model of {node_id}", [entry.model for entry in entries]),
        prompt=_same(f"the prompt of {node_id}", [entry.prompt_fingerprint for entry in entries]),
        scorer=_same(f"the scorer of {node_id}", [entry.scorer_fingerprint for entry in entries]),
        data=_same(f"the data of {node_id}", [entry.data_fingerprint for entry in entries]),
    )
    rows = [row for entry in entries for row in entry.rows]
    rows += _lost_rows(whole, rows, shares)
    try:
        observations = observe(rows, seeds=whole.seeds, split=whole.split, samples=whole.samples)
    except ValueError as error:
        raise _apart(f"{node_id}: {error}") from error
    rule = gate_rule(whole.rule)
    baseline = None if whole.baseline is None else Baseline.from_text(whole.baseline)
    verdict = judge(observations, rule, baseline=baseline, conditions=conditions)
    places = {seed: place for place, seed in enumerate(whole.seeds)}
    changes = {
        **verdict_fields(verdict, rule),
        "rollouts": sum(entry.rollouts for entry in entries),
        "duration_s": max(entry.duration_s for entry in entries),
        "tokens": sum(entry.tokens for entry in entries),
        "cost_usd": _sum(entry.cost_usd for entry in entries),
        "saved_usd": _sum(entry.saved_usd for entry in entries),
        "replayed": sum(entry.replayed for entry in entries),
        "prompt_fingerprint": conditions.prompt,
        "rows": tuple(sorted(rows, key=lambda row: (places[row.seed], row.sample))),
        "prompt": next((entry.prompt for entry in entries if entry.prompt is not None), None),
        "calls": tuple(calls for entry in entries for calls in entry.calls),
    }
    merged = entries[0].model_copy(update=changes)
    refused = next((entry for entry in entries if entry.outcome == "incomplete"), None)
    if refused is not None and merged.outcome != "incomplete":  # for another reason than missing rewards
        merged = merged.model_copy(update={"outcome": "incomplete", "gate_text": refused.gate_text})
    return [merged]


def _lost_rows(whole: Whole, rows: Iterable[EvalRow], shares: Sequence[_Share]) -> list[EvalRow]:
    """Rows for what a shard should have run and has not."""
    there = {(row.seed, row.sample) for row in rows}
    lost = []
    for share in shares:
        why = "skipped" if share.found.state == "skipped" else "not run"
        lost += [
            EvalRow(
                seed=seed,
                split=whole.split,
                sample=sample,
                error=f"{why} in shard {share.shard}",
                error_kind="not_run",
            )
            for seed in share.shard.seeds(whole.seeds)
            for sample in range(whole.samples)
            if (seed, sample) not in there
        ]
    return lost


def _same(what: str, values: Iterable[str | None]) -> str | None:
    """The one value of all shards; one that has seen no model call knows none."""
    known = list(dict.fromkeys(value for value in values if value is not None))
    if len(known) > 1:
        raise _apart(f"{what} is {known[0]!r} in one and {known[1]!r} in another")
    return known[0] if known else None


def _sum(costs: Iterable[float | None]) -> float | None:
    known = list(costs)
    return None if None in known else sum(cost for cost in known if cost is not None)


def _apart(why: str) -> ConfigError:
    return ConfigError(f"the parts do not belong together: {why}")
