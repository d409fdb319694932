"""Arguments of the `synth_eval` marker: what is accepted, and the text for each mistake."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_synth.evals.arguments import SpecError
from pytest_synth.evals.spec import ARGUMENTS, EvalSpec, parse_eval
from pytest_synth.prompts import Message, Prompt

HERE = Path(__file__).parent


def parse(*args: object, **kwargs: object) -> EvalSpec:
    return parse_eval(args, kwargs, base=HERE)


@pytest.mark.parametrize(
    ("seeds", "expected"),
    [
        pytest.param(range(3), (0, 1, 2), id="range"),
        pytest.param([7, 2], (7, 2), id="list keeps its order"),
        pytest.param({5, 1}, (1, 5), id="set is sorted"),
        pytest.param((4,), (4,), id="tuple"),
    ],
)
def test_seeds_are_kept_as_given(seeds: object, expected: tuple[int, ...]) -> None:
    assert parse(seeds).seeds == expected
    assert parse(seeds=seeds).seeds == expected


def test_split_is_a_short_form_of_env_config() -> None:
    short, long = parse([1], split="test"), parse([1], env_config={"split": "test"})
    assert short == long
    assert (short.split, short.env_config) == ("test", {"split": "test"})


def test_prompt_may_be_a_text_messages_or_a_file_beside_the_test(tmp_path: Path) -> None:
    (tmp_path / "system.md").write_text("Be brief.", encoding="utf-8")
    messages = [{"role": "user", "pattern": "{q}", "order": 1}, {"role": "system", "pattern": "Be brief."}]
    assert parse([1], prompt="Be brief.").prompt == Prompt((Message("system", "Be brief."),))
    assert parse([1], prompt=messages[1:]).prompt == Prompt((Message("system", "Be brief."),))
    from_file = parse_eval(([1],), {"prompt": Path("system.md")}, base=tmp_path).prompt
    assert from_file == Prompt((Message("system", "Be brief."),))
    both = parse([1], prompt=[{**messages[1], "order": 0}, messages[0]]).prompt
    assert both is not None
    assert [m.role for m in both.messages] == ["system", "user"]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        pytest.param({"seeds": [1], "min_rewrd": 0.8}, "unknown argument 'min_rewrd'; allowed: ", id="typo"),
        pytest.param({}, "seeds is missing; give rows of the data set", id="no seeds"),
        pytest.param({"seeds": []}, "seeds is empty; at least one seed is needed", id="empty"),
        pytest.param({"seeds": 5}, "seeds is 5; give a range or a list of whole numbers", id="number"),
        pytest.param({"seeds": "12"}, "seeds is '12'; give a range", id="text"),
        pytest.param({"seeds": [1, 1]}, "seeds holds 1 twice; use samples=", id="twice"),
        pytest.param({"seeds": [-1]}, "seeds holds -1; a seed is a whole number from 0", id="negative"),
        pytest.param({"seeds": [True]}, "seeds holds True; a seed is a whole number", id="bool"),
        pytest.param({"seeds": [0.5]}, "seeds holds 0.5; a seed is a whole number", id="fraction"),
        pytest.param(
            {"seeds": [1], "min_reward": 80}, "min_reward is 80; allowed: a number in [0, 1]", id="%"
        ),
        pytest.param({"seeds": [1], "min_reward": float("nan")}, "min_reward is nan; allowed", id="nan"),
        pytest.param({"seeds": [1], "min_reward": "0.8"}, "min_reward is '0.8'; allowed", id="text number"),
        pytest.param(
            {"seeds": [1], "samples": 0}, "samples is 0; allowed: a whole number from 1", id="samples"
        ),
        pytest.param(
            {"seeds": range(10**30)}, "seeds is range(0, 1000000000000000000000000000000); a", id="endless"
        ),
        pytest.param(
            {"seeds": range(1000), "samples": 101},
            "1,000 seeds with 101 samples are 101,000 rollouts; an eval may have 100,000",
            id="too many rollouts",
        ),
        pytest.param({"seeds": [1], "timeout": 0}, "timeout is 0; allowed: seconds above 0", id="timeout"),
        pytest.param({"seeds": [1], "policy": "gpt"}, "policy is 'gpt'; allowed: a mapping", id="policy"),
        pytest.param({"seeds": [1], "prompt": ""}, "prompt: a prompt must not be empty", id="empty prompt"),
        pytest.param({"seeds": [1], "prompt": 7}, "prompt: a prompt is a string, a list", id="prompt type"),
        pytest.param(
            {"seeds": [1], "prompt": [{"role": "sytem", "pattern": "x"}]},
            "messages[0].role is 'sytem'; allowed: system,",
            id="role",
        ),
        pytest.param(
            {"seeds": [1], "prompt": Path("absent.md")}, "cannot read the prompt file", id="prompt file"
        ),
        pytest.param({"seeds": {1, "a"}}, "seeds holds 'a'; a seed is a whole number", id="mixed set"),
        pytest.param({"seeds": [2**53]}, "seeds holds 9007199254740992; a seed is a whole", id="beyond JSON"),
        pytest.param(
            {"seeds": [1], "min_reward": 10**400}, "min_reward is 1000", id="number that no float can hold"
        ),
        pytest.param(
            {"seeds": [1], "env_config": {"rows": {1, 2}}},
            "env_config['rows'] is {1, 2}; allowed: what JSON can hold",
            id="no JSON",
        ),
        pytest.param(
            {"seeds": [1], "policy": {"temperature": float("nan")}},
            "policy['temperature'] is nan; allowed: what JSON can hold",
            id="nan in a policy",
        ),
        pytest.param(
            {"seeds": [1], "split": "test", "env_config": {"split": "train"}},
            "split is 'test' and env_config['split'] is 'train'; give one of them",
            id="two splits",
        ),
    ],
)
def test_mistake_names_the_argument_and_what_is_allowed(arguments: dict[str, object], text: str) -> None:
    with pytest.raises(SpecError) as caught:
        parse(**arguments)
    assert text in str(caught.value)


def test_unknown_argument_is_told_all_that_exist() -> None:
    with pytest.raises(SpecError) as caught:
        parse([1], thresh=1)
    assert all(name in str(caught.value) for name in ARGUMENTS)


def test_only_seeds_may_be_given_by_position() -> None:
    with pytest.raises(SpecError, match="takes seeds as its only positional argument, not 2"):
        parse([1], 0.8)
    with pytest.raises(SpecError, match="seeds is given twice"):
        parse([1], seeds=[2])


def test_specification_is_frozen_and_does_not_share_the_users_mappings() -> None:
    policy = {"model": "m"}
    spec = parse([1], policy=policy)
    policy["model"] = "other"
    assert spec.policy == {"model": "m"}
