"""A task that all processes of these tests know: which intents a prompt must name for which rows.

A model of this world gives the right intent only if the system prompt names it, or if it is the first one,
which it knows by itself. So the reward of every prompt on every row can be told beforehand. Standard library
only: task apps and drivers import it under interpreters that have nothing of ours.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

INTENTS = ("card_arrival", "refund", "exchange_rate", "top_up", "lost_card")
WRONG = "none_of_these"

PROPOSALS = (  # what the model proposes, one after the other; their rewards are 0.4, 0.2, 0.6, 0.4, 0.8
    "Classify. Intents: refund",
    "Classify quickly",
    "Classify. Intents: refund, exchange_rate",
    "Classify. Intents: lost_card",
    "Classify. Intents: refund, exchange_rate, top_up",
)


def intent_of(seed: int) -> str:
    return INTENTS[seed % len(INTENTS)]


def user_message(seed: int) -> str:
    """The message of a row, in the shape of the documented pattern."""
    listed = "\n".join(INTENTS)
    return f"Customer Query: number {seed} is about {intent_of(seed)}\n\nAvailable Intents:\n{listed}"


def answer(system: str, user: str) -> str:
    """What the model says to a prompt."""
    asked = re.search(r"is about (\w+)", user)
    assert asked is not None, user
    intent = asked[1]
    return intent if intent == INTENTS[0] or intent in system else WRONG


def reward(system: str, seeds: Iterable[int]) -> float:
    """Mean reward of a prompt on rows."""
    rewards = [float(answer(system, user_message(seed)) == intent_of(seed)) for seed in seeds]
    return sum(rewards) / len(rewards)
