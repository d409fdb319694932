"""A task app that asks its model for a label, as a user's does; its prompt can be made better."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
from fakes.rollout_app import RolloutApp, reward_answer

ROWS = [
    ("I want my money back", "refund"),
    ("the card was declined", "card"),
    ("give the money back please", "refund"),
    ("my card does not work", "card"),
]
BASELINE = "Pick one label.\n- card\n- refund"


class LabelApp(RolloutApp):
    """Sends its own system prompt; the reward is 1 if the answer is the row's label.

    Attributes:
        delay_s: What each rollout takes beside its call.
    """

    def __init__(self, *, delay_s: float = 0.0, key: str | None = "env-key-1") -> None:
        super().__init__(self._label, key=key)
        self.delay_s = delay_s

    async def _label(self, body: dict[str, Any]) -> dict[str, Any]:
        await asyncio.sleep(self.delay_s)
        text, label = ROWS[body["env"]["seed"] % len(ROWS)]
        config = body["policy"]["config"]
        messages = [{"role": "system", "content": BASELINE}, {"role": "user", "content": text}]
        async with (
            aiohttp.ClientSession() as session,
            session.post(
                config["inference_url"] + "/chat/completions",
                json={"model": config["model"], "messages": messages},
            ) as response,
        ):
            response.raise_for_status()
            answer = await response.json()
        said = answer["choices"][0]["message"]["content"]
        feedback = {"feedback": f"expected {label}, predicted {said}", "expected": label, "predicted": said}
        return reward_answer(body, float(said == label), details=feedback)
