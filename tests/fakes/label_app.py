"""A task app that asks its model for a label, as a user's does; its prompt can be made better."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
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
        system: Its own prompt for a seed.
        asks_first: System message of a call that it makes before, for something else.
    """

    def __init__(
        self,
        *,
        delay_s: float = 0.0,
        key: str | None = "env-key-1",
        system: Callable[[int], str] = lambda seed: BASELINE,
        asks_first: str | None = None,
    ) -> None:
        super().__init__(self._label, key=key)
        self.delay_s = delay_s
        self.system = system
        self.asks_first = asks_first

    async def _label(self, body: dict[str, Any]) -> dict[str, Any]:
        await asyncio.sleep(self.delay_s)
        seed, config = body["env"]["seed"], body["policy"]["config"]
        text, label = ROWS[seed % len(ROWS)]
        async with aiohttp.ClientSession() as session:
            if self.asks_first is not None:
                await self._said(session, config, self.asks_first, text)
            said = await self._said(session, config, self.system(seed), text)
        feedback = {"feedback": f"expected {label}, predicted {said}", "expected": label, "predicted": said}
        return reward_answer(body, float(said == label), details=feedback)

    async def _said(
        self, session: aiohttp.ClientSession, config: dict[str, Any], system: str, text: str
    ) -> str:
        messages = [{"role": "system", "content": system}, {"role": "user", "content": text}]
        call = {"model": config["model"], "messages": messages}
        async with session.post(config["inference_url"] + "/chat/completions", json=call) as response:
            response.raise_for_status()
            answer = await response.json()
        return str(answer["choices"][0]["message"]["content"])
