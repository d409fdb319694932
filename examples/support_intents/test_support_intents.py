"""The support prompt under test: it keeps its score, a worse one is caught, and a body looks closer."""

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


@pytest.mark.synth_eval(seeds=ALL_TEST_ROWS, split="test")
def test_no_intent_is_lost(synth_result):
    """Without a threshold the body decides: here no intent may get less than half of its messages."""
    rewards = defaultdict(list)
    for row in synth_result.rows:
        rewards[row.details["expected"]].append(row.score)
    assert len(rewards) == 8
    assert {intent: mean(of_intent) for intent, of_intent in rewards.items() if mean(of_intent) < 0.5} == {}
