"""Arguments of `synth_optimize` and fields of its file: each mistake is a line that names it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pytest_synth.evals.optimize_spec import ARGUMENTS, OptimizeError, OptimizeSpec, parse_optimize
from pytest_synth.evals.spec import parse_eval
from pytest_synth.prompts import Prompt

BASE = Path("/nowhere")
START = Prompt.parse("Sort.")
GIVEN: dict[str, Any] = {"seeds": range(8), "validation_seeds": range(8, 12), "prompt": "Sort."}

TOML = """
[prompt_learning]
algorithm = "gepa"
task_app_url = "http://127.0.0.1:1"
[prompt_learning.env_config]
split = "train"
[[prompt_learning.initial_prompt.messages]]
role = "system"
pattern = "Sort."
[prompt_learning.gepa.evaluation]
seeds = { start = 0, end = 6, step = 2 }
validation_seeds = [7, 9]
[prompt_learning.gepa.rollout]
budget = 40
"""


def parse(**kwargs: Any) -> OptimizeSpec:
    return parse_optimize((), kwargs, base=BASE)


def file(tmp_path: Path, text: str = TOML) -> Path:
    path = tmp_path / "gepa.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_arguments_become_fields_of_the_section() -> None:
    spec = parse_optimize(
        (range(3),),
        {
            "validation_seeds": {5, 4},
            "prompt": "Sort.",
            "budget": 30,
            "minibatch_size": 2,
            "pareto_set_size": 1,
            "initial_size": 4,
            "children_per_generation": 5,
            "num_generations": 6,
            "reflection_model": "openrouter/meta/llama",
            "split": "train",
        },
        base=BASE,
    )
    assert spec.section == {
        "algorithm": "gepa",
        "initial_prompt": {"messages": START.to_wire()},
        "gepa": {
            "evaluation": {"seeds": [0, 1, 2], "validation_seeds": [4, 5]},
            "rollout": {"budget": 30, "minibatch_size": 2},
            "archive": {"pareto_set_size": 1},
            "population": {"initial_size": 4, "children_per_generation": 5, "num_generations": 6},
            "reflection": {"provider": "openrouter", "model": "meta/llama"},
        },
    }
    assert (spec.seeds, spec.validation_seeds) == ((0, 1, 2), (4, 5))
    assert (spec.split, spec.validation_split, spec.prompt, spec.budget) == ("train", "train", START, 30)


def test_what_is_not_given_has_the_markers_defaults_on_every_backend() -> None:
    many = GIVEN | {"seeds": range(40), "validation_seeds": [40]}
    assert parse(**many).section["gepa"] == {
        "evaluation": {"seeds": list(range(40)), "validation_seeds": [40]},
        "rollout": {"budget": 80, "minibatch_size": 3},
        "archive": {"pareto_set_size": 10},
        "population": {"initial_size": 1, "children_per_generation": 3},
    }
    assert parse(**GIVEN, num_generations=None, reflection_model=None) == parse(**GIVEN)


@pytest.mark.parametrize(
    ("seeds", "given", "pareto", "minibatch"),
    [(8, {}, 4, 3), (3, {}, 1, 2), (1, {}, 1, 1), (8, {"pareto_set_size": 6}, 6, 2)],
)
def test_defaults_fit_the_number_of_seeds(
    seeds: int, given: dict[str, Any], pareto: int, minibatch: int
) -> None:
    gepa = parse(**(GIVEN | {"seeds": range(seeds), "validation_seeds": [50]} | given)).section["gepa"]
    assert gepa["archive"]["pareto_set_size"] == pareto
    assert gepa["rollout"]["minibatch_size"] == minibatch


def test_model_without_a_provider_is_the_policys(tmp_path: Path) -> None:
    assert parse(**GIVEN, reflection_model="gpt-5").section["gepa"]["reflection"] == {"model": "gpt-5"}


def test_split_and_prompt_are_those_of_the_eval_where_none_is_named() -> None:
    given = {name: value for name, value in GIVEN.items() if name != "prompt"}
    spec = parse_optimize((), given, base=BASE, split="test", prompt=START)
    assert (spec.split, spec.prompt) == ("test", START)


MISTAKES = {
    "unknown": ({"budgets": 3}, f"unknown argument 'budgets'; allowed: {', '.join(ARGUMENTS)}"),
    "no seeds": ({"seeds": []}, "seeds is empty; at least one seed is needed"),
    "odd seeds": (
        {"validation_seeds": "all"},
        "validation_seeds is 'all'; give a range or a list of whole num",
    ),
    "twice": ({"seeds": [1, 1]}, "seeds holds 1 twice"),
    "budget": ({"budget": 0}, "budget is 0; allowed: a whole number from 1"),
    "minibatch": ({"minibatch_size": 2.5}, "minibatch_size is 2.5; allowed: a whole number from 1"),
    "generations": ({"num_generations": True}, "num_generations is True; allowed: a whole number from 1"),
    "model": ({"reflection_model": ""}, "reflection_model is ''; allowed: a text that is not empty"),
    "split": ({"split": 3}, "split is 3; allowed: a text that is not empty"),
    "prompt": ({"prompt": 3}, "a prompt is a string, a list of messages, a Path or a Prompt, not int"),
    "prompt file": ({"prompt": Path("x.md")}, "cannot read the prompt file '/nowhere/x.md': No such file"),
    "no prompt": ({"prompt": None}, "prompt is missing; the search starts from it"),
    "own overlap": (
        {"validation_seeds": range(6, 20), "split": "train"},
        "seeds and validation_seeds share seeds 6, 7 of split 'train'; the result is checked on seeds that "
        "the search has not seen",
    ),
    "file and more": (
        {"config": "gepa.toml"},
        "config stands alone, as the file holds it all; leave out prompt,",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistake_is_named(name: str) -> None:
    changes, words = MISTAKES[name]
    with pytest.raises(OptimizeError) as caught:
        parse(**(GIVEN | changes))
    assert str(caught.value).startswith(words)


@pytest.mark.parametrize("name", ["seeds", "validation_seeds"])
def test_missing_seeds_are_named(name: str) -> None:
    with pytest.raises(OptimizeError, match=f"^{name} is missing; give rows of the data set"):
        parse(**{key: value for key, value in GIVEN.items() if key != name})


def test_seeds_by_position_and_by_name_are_refused() -> None:
    with pytest.raises(OptimizeError, match="seeds is given twice, by position and by name"):
        parse_optimize((range(3),), GIVEN, base=BASE)
    with pytest.raises(OptimizeError, match="takes seeds as its only positional argument, not 2 of them"):
        parse_optimize((range(3), range(4)), {}, base=BASE)


def test_two_different_prompts_are_refused() -> None:
    with pytest.raises(OptimizeError, match="prompt differs from that of synth_eval; give one of them"):
        parse_optimize((), GIVEN, base=BASE, prompt=Prompt.parse("Sort otherwise."))
    assert parse_optimize((), GIVEN, base=BASE, prompt=START).prompt == START


@pytest.mark.parametrize(
    ("split", "words"),
    [
        (
            "train",
            "seeds and the seeds of synth_eval share seeds 5, 6, 7 of split 'train'; the result is judged",
        ),
        ("test", None),
        (None, None),
    ],
)
def test_eval_on_seeds_of_the_search_is_refused_within_a_split(split: str | None, words: str | None) -> None:
    spec = parse(**GIVEN, split="train")
    judged = parse_eval((range(5, 8),), {"split": split}, base=BASE)
    if words is None:
        spec.refuse_shared_seeds(judged)
        return
    with pytest.raises(OptimizeError, match=words):
        spec.refuse_shared_seeds(judged)


def test_eval_on_validation_seeds_is_refused() -> None:
    with pytest.raises(OptimizeError, match="validation_seeds and the seeds of synth_eval share seed 11;"):
        parse(**GIVEN).refuse_shared_seeds(parse_eval(([11, 50],), {}, base=BASE))


def test_refusal_of_the_backend_is_said_in_the_markers_words() -> None:
    refusal = "prompt_learning.gepa.rollout.budget: is 5; at least 28 are needed"
    assert parse(**GIVEN).explain(refusal) == "budget is 5; at least 28 are needed"


def test_file_is_read_with_seeds_split_and_prompt(tmp_path: Path) -> None:
    path = file(tmp_path)
    spec = parse_optimize((), {"config": "gepa.toml"}, base=tmp_path)
    assert (spec.seeds, spec.validation_seeds) == ((0, 2, 4), (7, 9))
    assert (spec.split, spec.validation_split, spec.prompt, spec.budget) == ("train", "train", START, 40)
    assert (spec.app, "task_app_url" in spec.section) == ("http://127.0.0.1:1", False)
    assert spec.explain("prompt_learning.x: is 3") == f"{str(path)!r}: prompt_learning.x is 3"


def test_pool_of_the_validation_seeds_is_a_split_of_its_own(tmp_path: Path) -> None:
    file(tmp_path, TOML.replace("[7, 9]", "[0, 2]\nvalidation_pool = 'test'"))
    assert parse_optimize((), {"config": Path("gepa.toml")}, base=tmp_path).validation_split == "test"


def test_prompt_of_the_eval_completes_a_file(tmp_path: Path) -> None:
    start = TOML.index("[[prompt"), TOML.index("[prompt_learning.gepa.eval")
    file(tmp_path, TOML[: start[0]] + TOML[start[1] :])
    spec = parse_optimize((), {"config": "gepa.toml"}, base=tmp_path, prompt=START)
    assert spec.section["initial_prompt"] == {"messages": START.to_wire()}


FILES = {
    "no file": (None, "cannot read '{path}': No such file or directory"),
    "no TOML": ("[prompt_learning", "'{path}' is not a TOML file: "),
    "no section": ("[eval]\nseeds = [1]", "'{path}' has no section [prompt_learning]"),
    "no prompt": (
        "[prompt_learning]\nalgorithm = 'gepa'",
        "'{path}': prompt_learning.initial_prompt.messages is missing; the search starts from it",
    ),
    "odd prompt": (
        TOML.replace('role = "system"', 'role = "robot"'),
        "'{path}': prompt_learning.initial_prompt.messages: messages[0].role is 'robot'; allowed: ",
    ),
    "overlap": (
        TOML.replace("[7, 9]", "[2, 9]"),
        "'{path}': seeds and validation_seeds share seed 2 of split 'train'; ",
    ),
}


@pytest.mark.parametrize("name", FILES)
def test_mistake_in_a_file_is_named_with_its_path(name: str, tmp_path: Path) -> None:
    text, words = FILES[name]
    if text is not None:
        file(tmp_path, text)
    with pytest.raises(OptimizeError) as caught:
        parse_optimize((), {"config": "gepa.toml"}, base=tmp_path)
    assert str(caught.value).startswith(words.format(path=tmp_path / "gepa.toml"))


@pytest.mark.parametrize("value", [3, ""])
def test_file_must_be_a_path(value: object) -> None:
    with pytest.raises(OptimizeError, match=f"config is {value!r}; give the path of a TOML file"):
        parse(config=value)


@pytest.mark.parametrize(
    "seeds", ["'all'", "{ start = 0, end = 9, step = 0 }", "{ end = 10_000_000_000 }", "[1.5]"]
)
def test_odd_seeds_of_a_file_are_left_for_the_backend_to_refuse(seeds: str, tmp_path: Path) -> None:
    file(tmp_path, TOML.replace("[7, 9]", seeds))
    assert parse_optimize((), {"config": "gepa.toml"}, base=tmp_path).validation_seeds == ()
