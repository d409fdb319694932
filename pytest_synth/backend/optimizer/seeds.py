"""Which seeds a search learns from, scores candidates on, and holds out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from pytest_synth.backend.optimizer.config import DEFAULT_PARETO_SET
from pytest_synth.backend.optimizer.fields import Section, is_integer, shown
from pytest_synth.contracts.evals import MAX_INTEGER

_MOST_SEEDS = 1_000_000  # a range with a slip of the pen must not fill the memory


@dataclass(frozen=True)
class SeedSets:
    """Seeds of a config, with what is said about their use."""

    train: tuple[int, ...]
    validation: tuple[int, ...]
    validation_split: str | None
    validation_top_k: int
    pareto_set_size: int
    archive_size: int | None


def read_seeds(root: Section, evaluation: Section, archive: Section, split: str | None) -> SeedSets:
    """Read `gepa.evaluation` and `gepa.archive`.

    A list, or a range `{start, end, step}` (end excluded). The published client sends one list under
    several names; those must be equal then. Validation seeds that the search would see are refused.
    """
    train = _under_names(evaluation, ("train_seeds", "seeds"))
    for name in ("train_seeds", "evaluation_seeds"):
        again = _read_list(root, name)
        if again is not None and train is not None and again != train:
            root.refuse(name, f"differs from {evaluation.path}.seeds; leave it out")
    held_out = _under_names(evaluation, ("validation_seeds", "val_seeds"))
    if not (evaluation.has("train_seeds") or evaluation.has("seeds")):
        evaluation.refuse("seeds", "is missing; it lists the seeds that the search learns from")
    if not (evaluation.has("validation_seeds") or evaluation.has("val_seeds")):
        evaluation.refuse("validation_seeds", "is missing; it lists the seeds that check the result")
    pool = evaluation.text("validation_pool")
    shared = sorted(set(train or ()) & set(held_out or ())) if pool in (None, split) else []
    if shared:
        evaluation.refuse(
            "validation_seeds",
            f"shares {_list(shared)} with {evaluation.path}.seeds; held-out seeds must be others",
        )
    if evaluation.get("test_pool"):
        evaluation.refuse("test_pool", "is given, but the final check is made on validation_seeds")
    sets = SeedSets(
        train=train or (),
        validation=held_out or (),
        validation_split=pool or split,
        validation_top_k=evaluation.integer("validation_top_k", 1, at_least=1),
        pareto_set_size=_pareto_set_size(archive, train),
        archive_size=archive.integer("size", None, at_least=1),
    )
    archive.not_applied("pareto_eps", 1e-6, reason="rewards are compared exactly")
    archive.not_applied("feedback_fraction", 0.5, reason="all seeds outside the Pareto set give feedback")
    evaluation.close()
    archive.close()
    return sets


def _pareto_set_size(archive: Section, train: tuple[int, ...] | None) -> int:
    count = len(train or ())
    size = archive.integer("pareto_set_size", max(1, min(DEFAULT_PARETO_SET, count // 2)), at_least=1)
    if train is not None and size >= count:
        archive.refuse(
            "pareto_set_size", f"is {size}, but of {count} seeds at least one must be left for feedback"
        )
    return size


def _under_names(section: Section, names: tuple[str, str]) -> tuple[int, ...] | None:
    """Read a list that may stand under either name, or under both if they are equal."""
    first, second = (_read_list(section, name) for name in names)
    if first is not None and second is not None and first != second:
        section.refuse(names[1], f"differs from {section.path}.{names[0]}; leave one of them out")
    return second if first is None else first


def _read_list(section: Section, name: str) -> tuple[int, ...] | None:
    """Seeds in the given order; None if they are absent or wrong (which is noted)."""
    value = section.get(name)
    if value is None:
        return None
    if isinstance(value, Mapping):
        seeds = _read_range(section, name, value)
        if seeds is None:
            return None
    elif isinstance(value, list | tuple):
        odd = [entry for entry in value if not is_integer(entry)]
        if odd:
            section.refuse(name, f"holds {shown(odd[0])}, which is no integer")
            return None
        seeds = tuple(value)
    else:
        section.refuse(name, f"is {shown(value)}; give a list of seeds or a range (start, end, step)")
        return None
    if not seeds:
        section.refuse(name, "holds no seed")
        return None
    if max(seeds) > MAX_INTEGER:
        section.refuse(name, f"holds {shown(max(seeds))}; a seed is at most {MAX_INTEGER}")
        return None
    if min(seeds) < 0:
        section.refuse(name, f"holds {shown(min(seeds))}; seeds start at 0")
        return None
    twice = sorted(seed for seed, count in Counter(seeds).items() if count > 1)
    if twice:
        section.refuse(name, f"holds {_list(twice)} more than once")
        return None
    return seeds


def _read_range(section: Section, name: str, value: Mapping[str, object]) -> tuple[int, ...] | None:
    unknown = set(value) - {"start", "end", "step"}
    start, end, step = value.get("start", 0), value.get("end"), value.get("step", 1)
    if unknown:
        section.refuse(name, f"is a range with {shown(sorted(unknown)[0])}; a range has start, end, step")
    elif not (is_integer(start) and is_integer(end) and is_integer(step)):
        section.refuse(name, f"is the range {shown(dict(value))}; start, end and step must be integers")
    else:
        assert isinstance(start, int)
        assert isinstance(end, int)
        assert isinstance(step, int)
        if step < 1 or (end - start) // step > _MOST_SEEDS:
            section.refuse(
                name, f"is the range {shown(dict(value))}; step must be 1 or more, and not too many"
            )
        else:
            return tuple(range(start, end, step))
    return None


def _list(seeds: list[int]) -> str:
    head = ", ".join(map(str, seeds[:5]))
    return f"seed {head}" if len(seeds) == 1 else f"seeds {head}" + (", ..." if len(seeds) > 5 else "")
