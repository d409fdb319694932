"""The support prompt under test: it keeps its score, a worse one is caught, a better one is found."""

from collections import defaultdict
from pathlib import Path
from statistics import mean

import pytest

from pytest_synth import GateFailed

ALL_TEST_ROWS = range(64)


@pytest.mark.synth_eval(seeds=ALL_TEST_ROWS, split="test", min_reward=0.7)
def test_prompt_holds():
    """The marker alone is the test: it fails if the mean reward is below `min_reward`."""


@pytest.mark.xfail(raises=GateFailed, strict=True, reason="shows how a regression is caught")
@pytest.mark.synth_eval(
    seeds=ALL_TEST_ROWS, split="test", min_reward=0.7, prompt=Path("prompts/names_only.md")
)
def test_regression_is_caught():
    """Somebody has cut the descriptions of the intents from the prompt, and the gate fails."""


@pytest.mark.synth_optimize(
    range(48),
    validation_seeds=range(48, 64),
    split="train",
    prompt=Path("prompts/names_only.md"),
    budget=300,
    minibatch_size=24,
    pareto_set_size=8,
)
@pytest.mark.synth_eval(seeds=ALL_TEST_ROWS, split="test", min_reward=0.6)
def test_descriptions_can_be_learnt():
    """Starts from the bare names; runs the prompt that `--synth-optimize --snapshot-update` has found from
    the training messages, and stored under `__snapshots__`."""


@pytest.mark.synth_eval(seeds=ALL_TEST_ROWS, split="test")
def test_no_intent_is_lost(synth_result):
    """Without a threshold the body decides: here no intent may get less than half of its messages."""
    rewards = defaultdict(list)
    for row in synth_result.rows:
        rewards[row.details["expected"]].append(row.score)
    assert len(rewards) == 8
    assert {intent: mean(of_intent) for intent, of_intent in rewards.items() if mean(of_intent) < 0.5} == {}
