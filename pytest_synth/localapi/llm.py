"""The model client that `task_app` hands to `run`: asynchronous, or blocking for a plain `def`."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from typing import Any

from pytest_synth.localapi.inference import ChatCalls
from pytest_synth.localapi.replies import Reply

Messages = Sequence[Mapping[str, Any]]


class AsyncLLM:
    """The model of one rollout, for `async def run(row, llm)`.

    Attributes:
        policy: The policy's configuration as the caller sent it (`model`, `provider`, ...).
    """

    def __init__(self, calls: ChatCalls) -> None:
        self._calls = calls
        self.policy = calls.policy

    async def chat(
        self,
        messages: Messages,
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        tool_choice: str | Mapping[str, Any] | None = None,
        response_format: Mapping[str, Any] | None = None,
        **parameters: Any,
    ) -> Reply:
        """Send messages to the model and return its answer.

        Args:
            messages: Chat messages (`{"role": ..., "content": ...}`).
            tools, tool_choice, response_format: As in the OpenAI API; passed on as they are.
            parameters: Any other parameter of a chat completion. Those that the policy names (`model`,
                `temperature`, `max_completion_tokens`, ...) are sent unless given here.

        Raises:
            ModelCallError: If the call is refused or not answered; `status_code` has the status. Left
                alone it becomes the reason why this seed has no reward.
        """
        return await self._calls.send(
            messages,
            {"tools": tools, "tool_choice": tool_choice, "response_format": response_format, **parameters},
        )


class LLM:
    """The model of one rollout, for a plain `def run(row, llm)`: the same calls, blocking.

    Attributes:
        policy: The policy's configuration as the caller sent it (`model`, `provider`, ...).
    """

    def __init__(self, calls: ChatCalls, loop: asyncio.AbstractEventLoop) -> None:
        self._async = AsyncLLM(calls)
        self._loop = loop
        self._pending: set[Future[Reply]] = set()
        self._closed = False
        self.policy = calls.policy

    def chat(
        self,
        messages: Messages,
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        tool_choice: str | Mapping[str, Any] | None = None,
        response_format: Mapping[str, Any] | None = None,
        **parameters: Any,
    ) -> Reply:
        """Send messages to the model and return its answer; arguments and errors as `AsyncLLM.chat`."""
        if _is_running():  # waiting here would wait for ever
            raise RuntimeError(
                "run gave a coroutine but is no async def, so its llm blocks; make it async def"
            )
        if self._closed:
            raise RuntimeError("the rollout is over: its caller has gone")
        future = asyncio.run_coroutine_threadsafe(
            self._async.chat(
                messages, tools=tools, tool_choice=tool_choice, response_format=response_format, **parameters
            ),
            self._loop,
        )
        self._pending.add(future)
        try:
            return future.result()
        finally:
            self._pending.discard(future)

    def close(self) -> None:
        """Cut calls in flight and refuse further ones; called when nobody waits for the rollout."""
        self._closed = True
        for future in tuple(self._pending):
            future.cancel()


def _is_running() -> bool:
    """Whether this thread runs an event loop."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
