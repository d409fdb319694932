"""A gateway on loopback, over a fake provider."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx
from fakes.model_provider import FakeProvider
from starlette.applications import Starlette
from starlette.routing import BaseRoute

from pytest_synth.backend.gateway import Gateway, Rollout, RolloutSpec
from pytest_synth.prompts import Prompt

KEY = "sk-planted-0123456789"


class Stage:
    """An ASGI app that hands every request to the app that a test puts in, and lends out its loop."""

    def __init__(self) -> None:
        self.app: Any = None
        self.url = ""
        self._loop: asyncio.AbstractEventLoop | None = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            self._loop = asyncio.get_running_loop()
            for answer in ("startup", "shutdown"):
                await receive()
                await send({"type": f"lifespan.{answer}.complete"})
            return
        await self.app(scope, receive, send)

    @staticmethod
    def starlette(routes: Sequence[BaseRoute]) -> Starlette:
        return Starlette(routes=routes)

    def run(self, coroutine: Coroutine[Any, Any, Any], *, within_s: float = 10) -> Any:
        """Run a coroutine on the server's loop and wait for it."""
        assert self._loop is not None
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(within_s)

    def call(self, function: Callable[..., Any], *args: Any) -> None:
        """Call a function on the server's loop, soon."""
        assert self._loop is not None
        self._loop.call_soon_threadsafe(function, *args)


@dataclass
class GatewayUnderTest:
    """A served gateway, its fake provider, and the waits that it would have made."""

    provider: FakeProvider
    environ: dict[str, str]
    gateway: Gateway
    stage: Stage
    provider_stage: Stage
    sleeps: list[float] = field(default_factory=list)

    def open(
        self,
        policy: Mapping[str, Any] | None = None,
        prompt: object = None,
        **more: Any,
    ) -> Rollout:
        spec = RolloutSpec(
            **{
                "job_id": "eval_1",
                "tenant": "local",
                "split": "test",
                "seed": 3,
                "sample": 0,
                "policy": {"provider": "openai", "model": "m-1"} if policy is None else policy,
                "prompt": None if prompt is None else Prompt.parse(prompt),
                **more,
            }
        )
        return self.gateway.open_rollout(spec)

    def post(self, rollout: Rollout | str, body: Any = None, **more: Any) -> httpx.Response:
        url = rollout if isinstance(rollout, str) else f"{rollout.inference_url}/chat/completions"
        with httpx.Client(trust_env=False, timeout=60) as client:  # a loaded machine may be slow
            return client.post(url, json=chat() if body is None else body, **more)


def chat(user: str = "hello", system: str | None = "you are terse", **more: Any) -> dict[str, Any]:
    """A chat body."""
    messages = [] if system is None else [{"role": "system", "content": system}]
    return {"model": "app-model", "messages": [*messages, {"role": "user", "content": user}], **more}
