"""The `synth_optimize` marker and its TOML file, read once into a frozen value."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_synth.errors import ConfigError
from pytest_synth.evals.arguments import SpecError, count_argument, seeds_argument, text_argument
from pytest_synth.prompts import HOLE, Prompt

if TYPE_CHECKING:
    from pytest_synth.evals.spec import EvalSpec

DEFAULT_BUDGET = 80
_APPS = ("app", "task_app_url", "local_api_url", "localapi_url")
_PARETO_SET, _MINIBATCH = 10, 3  # as far as there are seeds
SECTION = "prompt_learning"
_FIELD = re.compile(rf"\b({SECTION}[\w.]*): ")  # how the backend names a field before what is wrong with it
_MOST_SEEDS = 1_000_000  # a range with a slip of the pen must not fill the memory

# Where each argument stands in the section.
_PLACES = {
    "budget": ("gepa", "rollout", "budget"),
    "minibatch_size": ("gepa", "rollout", "minibatch_size"),
    "pareto_set_size": ("gepa", "archive", "pareto_set_size"),
    "initial_size": ("gepa", "population", "initial_size"),
    "children_per_generation": ("gepa", "population", "children_per_generation"),
    "num_generations": ("gepa", "population", "num_generations"),
    "seeds": ("gepa", "evaluation", "seeds"),
    "validation_seeds": ("gepa", "evaluation", "validation_seeds"),
    "reflection_model": ("gepa", "reflection"),
}
_COUNTS = tuple(_PLACES)[:6]
ARGUMENTS = ("seeds", "validation_seeds", "prompt", *_COUNTS, "reflection_model", "split", "config")


class OptimizeError(SpecError):
    """An argument of the marker, or a field of its file, is wrong."""

    marker = "synth_optimize"


@dataclass(frozen=True)
class OptimizeSpec:
    """A search for a better prompt, as it was asked for.

    Attributes:
        seeds, validation_seeds: Rows that the search learns from, and rows that check its result; empty where
            a file holds something else there, which the backend then refuses by name.
        split, validation_split: Whose rows they are; None: of the task app's default split.
        prompt: Where the search starts.
        section: The `prompt_learning` section, without what the run knows (task app, key, model).
        source: The TOML file that it was read from.
        app: The task app that the file names, as a URL or `module:attribute`; a test has its own.
    """

    seeds: tuple[int, ...]
    validation_seeds: tuple[int, ...]
    split: str | None
    validation_split: str | None
    prompt: Prompt
    section: Mapping[str, Any] = field(repr=False)
    source: Path | None = None
    app: str | None = None

    @property
    def budget(self) -> int | None:
        """Rollouts of the search; None: as many as its generations need."""
        value = _inner(self.section, "gepa", "rollout").get("budget")
        return value if isinstance(value, int) else None

    def refuse_open_wildcards(self) -> None:
        """Refuse a system message whose wildcards evals could not fill in, as they take it as it stands.

        Raises:
            OptimizeError: It names the field.
        """
        declared = _inner(self.section, "initial_prompt", "wildcards")
        for name in sorted(set(HOLE.findall(self.prompt.system or "")) & set(declared)):
            raise OptimizeError(
                f"{str(self.source)!r}: {SECTION}.initial_prompt.wildcards.{name} stands in the system "
                "message, where the test's evals cannot fill it in; write the text itself there"
            )

    def explain(self, refusal: str) -> str:
        """Say the backend's refusal in the user's words: arguments of the marker, or fields of the file."""
        refusal = _FIELD.sub(r"\1 ", refusal)
        if self.source is not None:
            return f"{str(self.source)!r}: {refusal}"
        for name, place in _PLACES.items():
            refusal = refusal.replace(".".join((SECTION, *place)), name)
        return refusal

    def refuse_shared_seeds(self, spec: EvalSpec) -> None:
        """Refuse an eval on seeds that the search or its check has seen.

        Raises:
            OptimizeError: It names the seeds.
        """
        own = {
            "seeds": (self.seeds, self.split),
            "validation_seeds": (self.validation_seeds, self.validation_split),
        }
        for name, (seeds, split) in own.items():
            shared = sorted(set(seeds) & set(spec.seeds)) if split == spec.split else []
            if shared:
                raise OptimizeError(
                    f"{name} and the seeds of synth_eval share {_named(shared, split)}; "
                    "the result is judged on seeds that the search has not seen"
                )


def parse_optimize(
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    *,
    base: Path,
    split: str | None = None,
    prompt: Prompt | None = None,
) -> OptimizeSpec:
    """Check the arguments of a `synth_optimize` marker or call.

    Args:
        args, kwargs: As the user wrote them.
        base: Folder that relative paths start from.
        split, prompt: Of the test's eval; where the arguments name none.

    Raises:
        OptimizeError: For the first argument that is wrong.
    """
    try:
        return _parse(args, kwargs, base, split, prompt)
    except OptimizeError:
        raise
    except ConfigError as error:
        raise OptimizeError(str(error)) from error


def read_optimize_file(path: Path, *, split: str | None = None, prompt: Prompt | None = None) -> OptimizeSpec:
    """Read the section `[prompt_learning]` of a TOML file.

    Args:
        split, prompt: Where the file names none.

    Raises:
        OptimizeError: If the file cannot be read, has no such section, or no prompt; it names the file.
    """
    section = _read_section(path)
    urls = [section.pop(name) for name in _APPS if name in section]
    evaluation = _inner(section, "gepa", "evaluation")
    named = (_table(section.get("env_config")) or _inner(section, "gepa", "env_config")).get("split", split)
    own = named if isinstance(named, str) else None
    pool = evaluation.get("validation_pool", own)
    try:
        messages = _table(section.get("initial_prompt")).get("messages")
        found = prompt if messages is None else Prompt.parse(messages)
    except ConfigError as error:
        raise OptimizeError(f"{str(path)!r}: {SECTION}.initial_prompt.messages: {error}") from error
    if found is None:
        raise OptimizeError(
            f"{str(path)!r}: {SECTION}.initial_prompt.messages is missing; the search starts from it"
        )
    if messages is None:
        section["initial_prompt"] = {**_table(section.get("initial_prompt")), "messages": found.to_wire()}
    spec = OptimizeSpec(
        seeds=_listed(evaluation.get("train_seeds", evaluation.get("seeds"))),
        validation_seeds=_listed(evaluation.get("validation_seeds", evaluation.get("val_seeds"))),
        split=own,
        validation_split=pool if isinstance(pool, str) else None,
        prompt=found,
        section=section,
        source=path,
        app=urls[0] if urls and isinstance(urls[0], str) else None,
    )
    _refuse_own_overlap(spec)
    return spec


def _parse(
    args: tuple[Any, ...], kwargs: Mapping[str, Any], base: Path, split: str | None, prompt: Prompt | None
) -> OptimizeSpec:
    given = dict(kwargs)
    if len(args) > 1:
        raise OptimizeError(f"takes seeds as its only positional argument, not {len(args)} of them")
    if args:
        if "seeds" in given:
            raise OptimizeError("seeds is given twice, by position and by name")
        given["seeds"] = args[0]
    for name in given:
        if name not in ARGUMENTS:
            raise OptimizeError(f"unknown argument {name!r}; allowed: {', '.join(ARGUMENTS)}")
    if "config" in given:
        return _from_file(given, base, split, prompt)
    for name in ("seeds", "validation_seeds"):
        if name not in given:
            raise OptimizeError(f"{name} is missing; give rows of the data set, as in {name}=range(50)")
    own = None if given.get("prompt") is None else Prompt.parse(given["prompt"], base=base)
    start = _one_prompt(own, prompt)
    values: dict[str, Any] = {
        name: list(seeds_argument(name)(given[name])) for name in ("seeds", "validation_seeds")
    }
    asked = {name: count_argument(name, 1)(given[name]) for name in _COUNTS if given.get(name) is not None}
    values |= _defaults(len(values["seeds"]), asked.get("pareto_set_size")) | asked
    section: dict[str, Any] = {"algorithm": "gepa", "initial_prompt": {"messages": start.to_wire()}}
    for name, value in values.items():
        _put(section, _PLACES[name], value)
    reflection = text_argument("reflection_model")(given.get("reflection_model"))
    if reflection is not None:
        provider, slash, model = reflection.partition("/")
        named = {"provider": provider, "model": model} if slash else {"model": reflection}
        _put(section, ("gepa", "reflection"), named)
    rows = text_argument("split")(given.get("split")) or split
    spec = OptimizeSpec(tuple(values["seeds"]), tuple(values["validation_seeds"]), rows, rows, start, section)
    _refuse_own_overlap(spec)
    return spec


def _defaults(seeds: int, pareto_set_size: int | None) -> dict[str, int]:
    """What is asked for where the user does not: services have other defaults than the marker."""
    pareto = pareto_set_size or max(1, min(_PARETO_SET, seeds // 2))
    return {
        "budget": DEFAULT_BUDGET,
        "minibatch_size": max(1, min(_MINIBATCH, seeds - pareto)),
        "pareto_set_size": pareto,
        "initial_size": 1,
        "children_per_generation": 3,
    }


def _from_file(
    given: Mapping[str, Any], base: Path, split: str | None, prompt: Prompt | None
) -> OptimizeSpec:
    others = sorted(set(given) - {"config"})
    if others:
        raise OptimizeError(f"config stands alone, as the file holds it all; leave out {', '.join(others)}")
    value = given["config"]
    if not isinstance(value, str | Path) or not str(value):
        raise OptimizeError(f"config is {value!r}; give the path of a TOML file")
    spec = read_optimize_file(base / value, split=split, prompt=prompt)
    _one_prompt(spec.prompt, prompt)
    return spec


def _one_prompt(own: Prompt | None, of_eval: Prompt | None) -> Prompt:
    """The prompt that the search starts from, which is the one that the test runs without a stored one."""
    start = own or of_eval
    if start is None:
        raise OptimizeError("prompt is missing; the search starts from it")
    if of_eval is not None and of_eval != start:
        raise OptimizeError(
            "prompt differs from that of synth_eval; give one of them, so that the result is held against it"
        )
    return start


def _refuse_own_overlap(spec: OptimizeSpec) -> None:
    same = spec.split == spec.validation_split
    shared = sorted(set(spec.seeds) & set(spec.validation_seeds)) if same else []
    if shared:
        where = "" if spec.source is None else f"{str(spec.source)!r}: "
        raise OptimizeError(
            f"{where}seeds and validation_seeds share {_named(shared, spec.split)}; "
            "the result is checked on seeds that the search has not seen"
        )


def _read_section(path: Path) -> dict[str, Any]:
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise OptimizeError(f"cannot read {str(path)!r}: {error.strerror or error}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise OptimizeError(f"{str(path)!r} is not a TOML file: {error}") from error
    section = document.get(SECTION, document.get("policy_optimization"))
    if not isinstance(section, dict):
        raise OptimizeError(f"{str(path)!r} has no section [{SECTION}]")
    return section


def _listed(value: object) -> tuple[int, ...]:
    """Seeds of a file, as a list or a range whose end is left out; nothing where it is neither."""
    if isinstance(value, Mapping):
        numbers = [value.get("start", 0), value.get("end"), value.get("step", 1)]
        if not all(isinstance(number, int) for number in numbers) or numbers[2] < 1:
            return ()
        seeds = range(*numbers)
        return tuple(seeds) if len(seeds) <= _MOST_SEEDS else ()
    if isinstance(value, list) and all(isinstance(seed, int) for seed in value):
        return tuple(value)
    return ()


def _named(seeds: Iterable[int], split: str | None) -> str:
    listed = list(seeds)
    shown = ", ".join(map(str, listed[:5])) + (", ..." if len(listed) > 5 else "")
    noun = "seed" if len(listed) == 1 else "seeds"
    return f"{noun} {shown}" + ("" if split is None else f" of split {split!r}")


def _put(section: dict[str, Any], place: tuple[str, ...], value: object) -> None:
    for step in place[:-1]:
        section = section.setdefault(step, {})
    section[place[-1]] = value


def _inner(section: Mapping[str, Any], *steps: str) -> Mapping[str, Any]:
    for step in steps:
        section = _table(section.get(step))
    return section


def _table(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
