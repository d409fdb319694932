"""Relayed rollouts as the owner of a backend sees them: opened and closed from other event loops."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from pytest_synth.backend.gateway.gateway import Gateway
from pytest_synth.backend.gateway.rollouts import Rollout, RolloutUse
from pytest_synth.prompts import Prompt

T = TypeVar("T")


@dataclass(frozen=True)
class RelayUse:
    """What the gateway saw of a relayed rollout.

    Attributes:
        calls, tokens: Of all model calls; 0 tokens when no usage was reported.
        prompt_applied: None when no prompt was to be applied.
        prompt_reason: Why the prompt was not applied.
        prompt_fingerprint: Of the system message that ran.
        replaced_fingerprint: Of the task app's own that the prompt has replaced, if one was.
        query, answer: Last user message and the model's answer, shortened.
        model_error: Why no model call was answered; None if one was, or none was made.
    """

    calls: int
    tokens: int
    prompt_applied: bool | None
    prompt_reason: str | None
    prompt_fingerprint: str | None
    replaced_fingerprint: str | None
    query: str | None
    answer: str | None
    model_error: str | None

    @classmethod
    def of(cls, use: RolloutUse) -> RelayUse:
        errors = [call.error for call in use.calls]
        return cls(
            calls=len(use.calls),
            tokens=use.tokens,
            prompt_applied=use.prompt_applied,
            prompt_reason=use.prompt_reason,
            prompt_fingerprint=use.prompt_fingerprint,
            replaced_fingerprint=use.replaced_fingerprint,
            query=use.query,
            answer=use.answer,
            model_error=errors[-1] if errors and None not in errors else None,
        )


class Relay:
    """A relayed rollout that is open at a gateway; used from other event loops than the gateway's.

    Attributes:
        inference_url: Where the task app sends its model calls.
    """

    def __init__(self, gateway: Gateway, rollout: Rollout) -> None:
        self._gateway = gateway
        self._rollout = rollout
        self.inference_url = rollout.inference_url

    @classmethod
    async def open(
        cls, gateway: Gateway, chat_url: str, *, prompt: Prompt | None, correlation_id: str
    ) -> Relay:
        """Open a rollout as `Gateway.open_relay` does.

        Raises:
            ConfigError: If `chat_url` is none.
        """
        return cls(
            gateway,
            await on_loop(
                gateway.loop, gateway.open_relay, chat_url, prompt=prompt, correlation_id=correlation_id
            ),
        )

    async def close(self) -> RelayUse:
        """End it, and say what it used; called once."""
        use = await on_loop(self._gateway.loop, self._gateway.close_rollout, self._rollout)
        return RelayUse.of(use)


async def on_loop(loop: asyncio.AbstractEventLoop, function: Callable[..., T], *args: Any, **named: Any) -> T:
    """Call a function on another event loop than this one, and wait for what it returns or raises."""

    async def call() -> T:
        return function(*args, **named)

    return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(call(), loop))
