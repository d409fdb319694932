"""Parsing of the `prompt_learning` section: what is honoured, what is listed, what is refused."""

from __future__ import annotations

import copy
import pickle
import time
from typing import Any

import pytest

from pytest_synth.backend.optimizer.config import PipelineConfig
from pytest_synth.backend.optimizer.fields import GepaConfigError
from pytest_synth.backend.optimizer.parsing import parse_gepa_config
from pytest_synth.prompts import Message, Prompt


def published() -> dict[str, Any]:
    """The documented example, as a user writes it."""
    return {
        "algorithm": "gepa",
        "task_app_url": "http://127.0.0.1:8114",
        "env_name": "banking77",
        "initial_prompt": {
            "messages": [
                {"role": "system", "order": 0, "pattern": "Baseline system prompt"},
                {"role": "user", "order": 1, "pattern": "Query: {query}\n\nIntents:\n{available_intents}"},
            ],
            "wildcards": {"query": "REQUIRED", "available_intents": "OPTIONAL"},
        },
        "policy": {
            "model": "gpt-4.1-nano",
            "provider": "openai",
            "inference_mode": "synth_hosted",
            "temperature": 0.0,
            "max_completion_tokens": 256,
        },
        "gepa": {
            "env_name": "banking77",
            "evaluation": {"seeds": list(range(50)), "validation_seeds": list(range(50, 60))},
            "rollout": {"budget": 80, "max_concurrent": 8, "minibatch_size": 8},
            "mutation": {"rate": 0.3},
            "population": {"initial_size": 4, "num_generations": 3, "children_per_generation": 3},
            "archive": {"size": 5, "pareto_set_size": 10},
        },
    }


def as_client_sends_it() -> dict[str, Any]:
    """The same after the published client has filled in its defaults (recorded from version 0.7.0)."""
    section = published()
    section["auto_discover_patterns"] = False
    section["policy"]["config"] = {}
    section["train_seeds"] = section["evaluation_seeds"] = list(range(50))
    gepa = section["gepa"]
    gepa["evaluation"]["train_seeds"] = list(range(50))
    gepa.update(
        proposer_type="dspy",
        proposer_effort="LOW",
        proposer_output_tokens="FAST",
        proposed_prompt_max_tokens=32000,
        token={"max_limit": 32000, "counting_model": "gpt-4", "enforce_pattern_limit": True},
    )
    gepa["population"].update(crossover_rate=0.5, selection_pressure=1.0, patience_generations=3)
    gepa["archive"].update(pareto_eps=1e-6, feedback_fraction=0.5)
    return section


def changed(path: str, value: object) -> dict[str, Any]:
    """The published example with one field set, or taken out (by `...`)."""
    section = published()
    *parents, name = path.split(".")
    target = section
    for parent in parents:
        target = target.setdefault(parent, {})
    if value is ...:
        del target[name]
    else:
        target[name] = value
    return section


def test_every_field_of_the_published_example_is_honoured() -> None:
    config = parse_gepa_config(published())

    assert config.task.app_url == "http://127.0.0.1:8114"
    assert config.task.env_name == "banking77"
    assert config.task.policy["max_completion_tokens"] == 256
    assert config.prompt == Prompt(
        (
            Message("system", "Baseline system prompt"),
            Message("user", "Query: {query}\n\nIntents:\n{available_intents}"),
        )
    )
    assert config.required_wildcards == {"query"}
    assert config.train_seeds == tuple(range(50))
    assert config.validation_seeds == tuple(range(50, 60))
    assert (config.budget, config.max_concurrent, config.minibatch_size) == (80, 8, 8)
    assert (config.initial_size, config.num_generations, config.children_per_generation) == (4, 3, 3)
    assert (config.archive_size, config.pareto_set_size, config.mutation_rate) == (5, 10, 0.3)
    assert config.reuse_known
    assert config.pipeline.mode == "generations"
    assert config.rewritten == (0,)
    assert config.not_applied == (
        "prompt_learning.initial_prompt.messages[1] (user): it is not rewritten, only the first system"
        " message is",
        "prompt_learning.gepa.mutation.rate = 0.3: only one message is rewritten, and each child rewrites"
        " one",
    )


def test_the_client_s_defaults_are_accepted_and_listed_as_not_applied() -> None:
    config = parse_gepa_config(as_client_sends_it())

    names = [note.split(" = ")[0].removeprefix("prompt_learning.") for note in config.not_applied]
    assert sorted(names) == [
        "auto_discover_patterns",
        "gepa.archive.feedback_fraction",
        "gepa.archive.pareto_eps",
        "gepa.mutation.rate",
        "gepa.population.crossover_rate",
        "gepa.population.selection_pressure",
        "gepa.proposer_effort",
        "gepa.proposer_output_tokens",
        "gepa.proposer_type",
        "gepa.token.counting_model",
        "initial_prompt.messages[1] (user): it is not rewritten, only the first system message is",
    ]
    assert "prompt_learning.gepa.population.crossover_rate = 0.5: there is no crossover" in config.not_applied
    assert config.patience == 3
    assert config.max_prompt_chars == 128_000


def test_the_task_app_s_own_policy_settings_go_beside_the_others() -> None:
    section = changed("policy.config", {"agent": "react", "model": "other"})

    policy = parse_gepa_config(section).task.policy

    assert (policy["agent"], policy["model"]) == ("react", "gpt-4.1-nano")
    assert "config" not in policy


def test_undeclared_braces_in_the_system_message_are_text() -> None:
    section = changed("initial_prompt.messages", [{"role": "system", "pattern": "Say {label}."}])
    del section["initial_prompt"]["wildcards"]

    assert parse_gepa_config(section).required_wildcards == {"label"}


def test_the_caller_s_section_is_not_changed() -> None:
    section = as_client_sends_it()
    before = copy.deepcopy(section)

    parse_gepa_config(section)

    assert section == before


def test_what_a_config_leaves_out_gets_defaults_that_fit_a_small_budget() -> None:
    section = published()
    section["gepa"] = {
        "evaluation": {"seeds": {"start": 0, "end": 12}, "validation_seeds": [20, 21]},
        "rollout": {"budget": 60},
    }

    config = parse_gepa_config(section)

    assert config.train_seeds == tuple(range(12))
    assert (config.pareto_set_size, config.minibatch_size) == (6, 3)
    assert (config.initial_size, config.children_per_generation) == (1, 3)
    assert (config.num_generations, config.patience, config.archive_size) == (None, None, None)
    assert config.validation_top_k == 1


@pytest.mark.parametrize(
    ("seeds", "expected"),
    [
        ([3, 1, 2], (3, 1, 2)),
        ({"start": 5, "end": 8}, (5, 6, 7)),
        ({"start": 0, "end": 7, "step": 3}, (0, 3, 6)),
        ({"end": 3}, (0, 1, 2)),
    ],
    ids=["list", "range", "step", "from-0"],
)
def test_seeds_are_a_list_or_a_range(seeds: object, expected: tuple[int, ...]) -> None:
    section = changed("gepa.evaluation", {"seeds": seeds, "validation_seeds": [50]})
    section["gepa"]["archive"] = {"pareto_set_size": 1}
    section["gepa"]["rollout"]["minibatch_size"] = 2

    assert parse_gepa_config(section).train_seeds == expected


@pytest.mark.parametrize(
    ("path", "value", "field", "text"),
    [
        ("algorithm", ..., "algorithm", "is missing; allowed: gepa"),
        ("algorithm", "mipro", "algorithm", "is 'mipro'; allowed: gepa"),
        ("task_app_url", ..., "task_app_url", "is missing; it is the URL of the task app"),
        ("task_app_url", "127.0.0.1:8", "task_app_url", "it must start with http:// or https://"),
        ("initial_prompt", ..., "initial_prompt", "is missing; the search starts from its messages"),
        ("initial_prompt.messages", [], "initial_prompt.messages", "is [], not a list with at least one"),
        (
            "initial_prompt.messages",
            [{"role": "system", "content": "x"}],
            "initial_prompt.messages",
            "has a message without 'pattern'",
        ),
        (
            "initial_prompt.messages",
            [{"role": "robot", "pattern": "x"}],
            "initial_prompt.messages",
            "messages[0].role is 'robot'",
        ),
        (
            "initial_prompt",
            {"messages": [{"role": "user", "pattern": "x"}]},
            "initial_prompt.messages",
            "has no system message, but only that one can be put into the task app's model calls",
        ),
        (
            "initial_prompt.wildcards",
            {"query": "MAYBE"},
            "initial_prompt.wildcards.query",
            "is 'MAYBE'; allowed: REQUIRED, OPTIONAL",
        ),
        (
            "initial_prompt.wildcards",
            {"topic": "REQUIRED"},
            "initial_prompt.wildcards.topic",
            "is REQUIRED, but no message has {topic}",
        ),
        (
            "initial_prompt.metadata",
            {"pipeline_modules": ["a"]},
            "initial_prompt.metadata.pipeline_modules",
            "only one prompt can be searched",
        ),
        ("policy", ..., "policy", "is missing; it names the model"),
        ("policy.model", ..., "policy.model", "is missing"),
        ("policy.temperature", "hot", "policy.temperature", "is 'hot', not a number"),
        ("policy.inference_url", "http://x", "policy.inference_url", "the backend supplies the URL"),
        ("policy.inference_mode", "byok", "policy.inference_mode", "allowed: synth_hosted"),
        ("gepa", ..., "gepa", "is missing; it holds the settings of the search"),
        ("gepa.evaluation", ..., "gepa.evaluation.seeds", "is missing; it lists the seeds"),
        ("gepa.evaluation.seeds", ..., "gepa.evaluation.seeds", "is missing; it lists the seeds"),
        ("gepa.evaluation.seeds", [], "gepa.evaluation.seeds", "holds no seed"),
        ("gepa.evaluation.seeds", [1, "2"], "gepa.evaluation.seeds", "holds '2', which is no integer"),
        ("gepa.evaluation.seeds", [1, 2, 1], "gepa.evaluation.seeds", "holds seed 1 more than once"),
        ("gepa.evaluation.seeds", [-1, 2], "gepa.evaluation.seeds", "holds -1; seeds start at 0"),
        ("gepa.evaluation.seeds", "0-49", "gepa.evaluation.seeds", "give a list of seeds or a range"),
        (
            "gepa.evaluation.seeds",
            {"start": 0, "end": 50, "step": 0},
            "gepa.evaluation.seeds",
            "step must be 1 or more",
        ),
        (
            "gepa.evaluation.validation_seeds",
            ...,
            "gepa.evaluation.validation_seeds",
            "is missing; it lists the seeds that check the result",
        ),
        (
            "gepa.evaluation.validation_seeds",
            [48, 49, 50],
            "gepa.evaluation.validation_seeds",
            "shares seeds 48, 49 with prompt_learning.gepa.evaluation.seeds; held-out seeds must be others",
        ),
        ("train_seeds", [1, 2], "train_seeds", "differs from prompt_learning.gepa.evaluation.seeds"),
        ("gepa.evaluation.test_pool", [70], "gepa.evaluation.test_pool", "made on validation_seeds"),
        ("gepa.evaluation.validation_top_k", 0, "gepa.evaluation.validation_top_k", "must be at least 1"),
        ("gepa.rollout.budget", 0, "gepa.rollout.budget", "is 0; it must be at least 1"),
        ("gepa.rollout.budget", "80", "gepa.rollout.budget", "is '80', not an integer"),
        ("gepa.rollout.budget", True, "gepa.rollout.budget", "is True, not an integer"),
        (
            "gepa.rollout.budgte",
            9,
            "gepa.rollout.budgte",
            "is no field of this section; did you mean 'budget'?",
        ),
        ("gepa.rollout.max_concurrent", 0, "gepa.rollout.max_concurrent", "is 0; it must be at least 1"),
        (
            "gepa.rollout.minibatch_size",
            41,
            "gepa.rollout.minibatch_size",
            "is 41, but 50 seeds less a Pareto set of 10 leave 40 for feedback",
        ),
        ("gepa.mutation.rate", 1.5, "gepa.mutation.rate", "is 1.5; it must be at least 0 and at most 1"),
        (
            "gepa.mutation.llm_model",
            "gpt-4o",
            "gepa.mutation.llm_model",
            "in prompt_learning.gepa.reflection",
        ),
        ("gepa.mutation.prompt", "Improve it", "gepa.mutation.prompt", "lacks <curr_param> and <side_info>"),
        ("gepa.population.initial_size", 0, "gepa.population.initial_size", "must be at least 1"),
        (
            "gepa.population.crossover_rate",
            0.7,
            "gepa.population.crossover_rate",
            "is 0.7, but there is no crossover; only 0.5 or 0.0 is accepted",
        ),
        (
            "gepa.population.selection_pressure",
            2.0,
            "gepa.population.selection_pressure",
            "only 1.0 is accepted",
        ),
        (
            "gepa.archive.pareto_set_size",
            50,
            "gepa.archive.pareto_set_size",
            "is 50, but of 50 seeds at least one must be left for feedback",
        ),
        ("gepa.archive.feedback_fraction", 0.2, "gepa.archive.feedback_fraction", "only 0.5 is accepted"),
        ("gepa.archive.pareto_eps", 0.01, "gepa.archive.pareto_eps", "only 1e-06 is accepted"),
        ("gepa.proposer_effort", "HIGH", "gepa.proposer_effort", "only 'LOW' is accepted"),
        ("gepa.proposer_type", "spec", "gepa.proposer_type", "only 'dspy' or 'gepa-ai' is accepted"),
        ("gepa.modules", [{"module_id": "a"}], "gepa.modules", "there is no such thing here"),
        ("gepa.verifier", {"reward_source": "verifier"}, "gepa.verifier", "but there is none here"),
        ("verifier", {"enabled": True}, "verifier", "or give reward_source = 'task_app'"),
        ("verifier", "task_app", "verifier", "is 'task_app', but there is none here"),
        ("gepa.rollout.budget", 100_001, "gepa.rollout.budget", "is 100001; it must be at most 100000"),
        ("policy.temperature", 10**400, "policy.temperature", "is 1000"),
        ("gepa.max_time_seconds", 10**400, "gepa.max_time_seconds", "not a number"),
        ("gepa.rng_seed", 2**53, "gepa.rng_seed", "it must be at most 9007199254740991"),
        (
            "gepa.evaluation.validation_seeds",
            [2**53],
            "gepa.evaluation.validation_seeds",
            "holds 9007199254740992; a seed is at most 9007199254740991",
        ),
        ("gepa.adaptive_pool", {"level": "HIGH"}, "gepa.adaptive_pool", "only the level NONE is accepted"),
        ("gepa.token.counting_model", "gpt-5", "gepa.token.counting_model", "only 'gpt-4' is accepted"),
        ("gepa.token.max_spend_usd", 0, "gepa.token.max_spend_usd", "must be more than 0"),
        ("gepa.rollout_budget", 80, "gepa.rollout_budget", "is no field of this section"),
        ("gepa.env_name", "other", "gepa.env_name", "but prompt_learning.env_name is 'banking77'"),
        ("gepa.pipeline", {"mode": "async"}, "gepa.pipeline.mode", "allowed: generations, window"),
        ("gepa.rollout", [], "gepa.rollout", "is [], not a section of fields"),
        ("auto_discover_patterns", True, "auto_discover_patterns", "only False is accepted"),
    ],
)
def test_a_bad_field_is_refused_by_its_path(path: str, value: object, field: str, text: str) -> None:
    with pytest.raises(GepaConfigError) as refusal:
        parse_gepa_config(changed(path, value))

    named = dict(refusal.value.problems)
    assert f"prompt_learning.{field}" in named
    assert text in named[f"prompt_learning.{field}"]
    assert f"prompt_learning.{field} " in str(refusal.value)


def test_all_bad_fields_are_told_at_once() -> None:
    section = changed("gepa.rollout", {"budget": -1, "max_concurrent": 0})
    section["policy"]["provider"] = ""

    with pytest.raises(GepaConfigError) as refusal:
        parse_gepa_config(section)

    assert [path for path, _ in refusal.value.problems] == [
        "prompt_learning.policy.provider",
        "prompt_learning.gepa.rollout.budget",
        "prompt_learning.gepa.rollout.max_concurrent",
    ]


def test_a_refusal_survives_the_way_to_another_process() -> None:
    with pytest.raises(GepaConfigError) as refusal:
        parse_gepa_config(changed("gepa.rollout.budget", 0))

    copied = pickle.loads(pickle.dumps(refusal.value))
    assert copied.problems == refusal.value.problems
    assert str(copied) == str(refusal.value)


def test_a_config_without_budget_and_generations_is_refused() -> None:
    section = changed("gepa.rollout.budget", ...)
    del section["gepa"]["population"]["num_generations"]

    with pytest.raises(GepaConfigError, match=r"rollout\.budget is missing, and so is .*num_generations"):
        parse_gepa_config(section)


def test_the_path_of_the_section_can_be_given() -> None:
    with pytest.raises(GepaConfigError, match=r"^gepa\.toml: prompt_learning\.algorithm is 'mipro'"):
        parse_gepa_config(changed("algorithm", "mipro"), path="gepa.toml: prompt_learning")


def test_where_the_host_can_replace_any_message_all_are_rewritten() -> None:
    config = parse_gepa_config(published(), replaced="all")

    assert config.rewritten is None
    assert config.not_applied == ()


def test_undeclared_wildcards_must_stay() -> None:
    config = parse_gepa_config(changed("initial_prompt.wildcards", ...))

    assert config.required_wildcards == {"query", "available_intents"}


@pytest.mark.parametrize("place", ["verifier", "gepa.verifier"])
@pytest.mark.parametrize(
    "value",
    [{"reward_source": "task_app"}, {"enabled": False}, {"enabled": True, "reward_source": "TASK_APP "}],
)
def test_a_verifier_that_leaves_the_rewards_to_the_task_app_is_noted(
    place: str, value: dict[str, object]
) -> None:
    config = parse_gepa_config(changed(place, value))

    assert f"prompt_learning.{place}: rewards come from the task app, as it says" in config.not_applied


def test_many_seeds_given_twice_are_refused_at_once() -> None:
    started = time.process_time()
    with pytest.raises(GepaConfigError, match=r"holds seeds 0, 1, 2, 3, 4, \.\.\. more than once"):
        parse_gepa_config(changed("gepa.evaluation.seeds", [*range(20_000), *range(20_000)]))

    assert time.process_time() - started < 2.0  # counting each seed anew took 20 s


def test_declared_wildcards_make_the_messages_patterns() -> None:
    assert parse_gepa_config(published()).has_wildcards
    assert not parse_gepa_config(changed("initial_prompt.wildcards", ...)).has_wildcards


def test_braces_of_a_system_message_that_are_not_declared_make_it_text() -> None:
    section = published()
    section["initial_prompt"]["messages"][0]["pattern"] = "Answer as {label}, of {available_intents}."

    assert not parse_gepa_config(section).has_wildcards


def test_the_client_s_minibatch_is_cut_to_the_seeds_that_are_left_for_feedback() -> None:
    section = changed("gepa.evaluation.seeds", list(range(13)))
    section["gepa"]["rollout"]["minibatch_size"] = 8

    config = parse_gepa_config(section)

    assert config.minibatch_size == 3
    assert (
        "prompt_learning.gepa.rollout.minibatch_size = 8: only 3 seeds are left for feedback, so 3 are taken"
    ) in config.not_applied


def test_validation_seeds_of_another_split_may_have_the_same_numbers() -> None:
    section = changed("gepa.evaluation.validation_pool", "test")
    section["env_config"] = {"split": "train"}
    section["gepa"]["evaluation"]["validation_seeds"] = list(range(10))

    config = parse_gepa_config(section)

    assert (config.task.split, config.validation_split) == ("train", "test")


def test_known_rollouts_are_run_again_above_temperature_0() -> None:
    assert not parse_gepa_config(changed("policy.temperature", 0.7)).reuse_known
    section = changed("policy.temperature", 0.7)
    section["gepa"]["rollout"]["reuse_known"] = True
    assert parse_gepa_config(section).reuse_known


def test_reflection_and_pipeline_have_settings_of_their_own() -> None:
    section = changed("gepa.reflection", {"provider": "openai", "model": "gpt-5", "temperature": 0.5})
    section["gepa"]["pipeline"] = {"mode": "window", "window": 6}
    section["gepa"]["mutation"]["prompt"] = "Mend <curr_param> by <side_info>"

    config = parse_gepa_config(section)

    assert (config.reflection.provider, config.reflection.model) == ("openai", "gpt-5")
    assert config.reflection.temperature == 0.5
    assert config.reflection.template == "Mend <curr_param> by <side_info>"
    assert config.pipeline == PipelineConfig("window", 6)


def test_the_length_limit_is_the_lower_of_the_two_and_can_be_switched_off() -> None:
    section = changed("gepa.token", {"max_limit": 1000})
    assert parse_gepa_config(section).max_prompt_chars == 4000
    section["gepa"]["token"]["enforce_pattern_limit"] = False
    assert parse_gepa_config(section).max_prompt_chars is None


def test_keys_do_not_show_in_the_config_s_text() -> None:
    section = changed("policy.api_key", "sk-secret-1")
    section["task_app_api_key"] = "env-secret-2"

    config = parse_gepa_config(section)

    assert config.task.app_key == "env-secret-2"
    assert config.task.policy["api_key"] == "sk-secret-1"
    assert "secret" not in repr(config)
