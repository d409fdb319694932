"""What one job of a CI matrix leaves for `pytest-synth merge`: a file with its evals."""

from __future__ import annotations

import json
from importlib.metadata import version as version_of
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from pytest_synth.errors import ConfigError, SynthError
from pytest_synth.evals.files import write_whole
from pytest_synth.report import EvalEntry, OptimizationEntry, Rule
from pytest_synth.report.json import writable

if TYPE_CHECKING:
    from pytest_synth.evals.sharding import Shard

VERSION: Final = 1

State = Literal["run", "skipped", "not_run", "elsewhere"]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Whole(_Model):
    """What the marker of a test asks for, where a run takes only a share of its seeds."""

    seeds: tuple[int, ...]
    split: str | None = None
    samples: int = 1
    rule: Rule
    baseline: str | None = None
    """Text of the stored baseline, for a rule with `max_regression`."""


class Planned(_Model):
    """One test that has to do with evals, as it was selected."""

    node_id: str
    sent_as: str | None = None
    """The node id on test reports, where it is another one."""
    position: int
    """Place in the order of the run."""
    seeds_asked: int = 0
    """Seeds that its marker asks this run for; 0 without a marker, or where it runs elsewhere."""
    is_elsewhere: bool = False
    """Another shard runs it."""
    whole: Whole | None = None


class PartEval(Planned):
    """One such test after the run."""

    state: State
    entries: tuple[EvalEntry, ...] = ()


class Part(_Model):
    """What one job of a matrix has done."""

    version: Literal[1] = VERSION
    package_version: str
    shard: tuple[int, int] | None = None
    """Index and count; null where the run was not split by seeds."""
    evals: tuple[PartEval, ...] = ()
    optimizations: tuple[OptimizationEntry, ...] = ()


def undecided(entry: EvalEntry, whole: Whole, shard: Shard) -> EvalEntry:
    """The entry of a share of the seeds: neither passed nor failed.

    It is incomplete only where more rewards are missing than the whole may lack; the other shards cannot
    mend that.

    Args:
        entry: As judged without a criterion.
    """
    share = f"{entry.seeds_asked} of {len(whole.seeds)} seeds"
    if entry.seeds_asked - entry.seeds_done > whole.rule.allow_missing:
        outcome, text = entry.outcome, f"shard {shard}, {share}: {entry.gate_text}"
    else:
        told = "no reward" if entry.mean_reward is None else f"mean reward {entry.mean_reward:.2f}"
        outcome, text = "measured", f"shard {shard}, {share}: {told}; pytest-synth merge decides"
    changes = {"outcome": outcome, "gate_text": text, "rule": whole.rule, "threshold": whole.rule.min_reward}
    return entry.model_copy(update=changes)


def unjudged(node_id: str, why: str, seeds_asked: int = 0) -> EvalEntry:
    """The entry of an eval that has no verdict."""
    return EvalEntry(
        node_id=node_id, outcome="incomplete", gate_text=f"gate incomplete: {why}", seeds_asked=seeds_asked
    )


def write_part(part: Part, file: Path) -> None:
    """Write a part, whole or not at all.

    Raises:
        SynthError: If it cannot be written.
    """
    document = part.model_dump(exclude_defaults=True) | {"version": VERSION}
    try:
        write_whole(file, json.dumps(writable(document), ensure_ascii=False, allow_nan=False) + "\n")
    except OSError as error:
        raise SynthError(f"cannot write the part {str(file)!r}: {error.strerror or error}") from error


def read_part(file: Path) -> Part:
    """Read a part.

    Raises:
        ConfigError: If the file cannot be read or is no part, or if another version wrote it.
    """
    name = repr(str(file))
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read {name}: {error.strerror or error}") from error
    except ValueError as error:
        raise ConfigError(f"{name} is not JSON: {error}") from error
    if not isinstance(document, dict) or "package_version" not in document:
        raise ConfigError(f"{name} is no part of a run; pytest --synth-shard-out writes one")
    ours = version_of("pytest-synth")
    if document["package_version"] != ours:
        raise ConfigError(
            f"{name} was written by pytest-synth {document['package_version']}, and this is {ours}; "
            "use one version in all jobs"
        )
    try:
        return Part.model_validate(document)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise ConfigError(f"{name} cannot be read: {place}: {first['msg']}") from error
