"""Many calls to a provider that refuses, hangs and cuts."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import aiohttp
from fakes.gateway_server import GatewayUnderTest, Stage, chat
from fakes.rough_provider import RoughProvider

from pytest_synth.backend.gateway import Patience


async def streamed(session: aiohttp.ClientSession, url: str, query: str) -> str | None:
    """The text of a streamed answer; None if it was cut."""
    text = ""
    async with session.post(f"{url}/chat/completions", json=chat(query, stream=True)) as answer:
        assert answer.status == 200, await answer.text()
        async for line in answer.content:
            if not line.startswith(b"data: {"):
                continue
            value: dict[str, Any] = json.loads(line[6:])
            if "error" in value:
                return None
            text += "".join(choice["delta"].get("content") or "" for choice in value["choices"])
    return text


def test_every_seed_is_answered_once_with_few_calls_more_than_necessary(
    make_gateway: Callable[..., GatewayUnderTest], provider_stage: Stage
) -> None:
    served = make_gateway(patience=Patience(first_byte_s=0.5), sleep=asyncio.sleep)
    rough = RoughProvider(rate=300, hang=0.01, cut=0.01)
    provider_stage.app = rough.app
    seeds = range(400)

    async def seed(session: aiohttp.ClientSession, places: asyncio.Semaphore, number: int) -> str:
        async with places:
            for _ in range(5):
                rollout = served.open(seed=number)
                text = await streamed(session, rollout.inference_url, f"query {number}")
                use = served.gateway.close_rollout(rollout)
                if use.failure is None:
                    assert text is not None
                    return text
                assert use.is_cut_off  # what tells a job that the rollout is worth another try
        raise AssertionError(f"seed {number} was never answered")

    async def run() -> list[str]:
        places = asyncio.Semaphore(64)
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
            return await asyncio.gather(*(seed(session, places, number) for number in seeds))

    assert served.stage.run(run(), within_s=60) == [f"answer to query {number}" for number in seeds]
    necessary = len(seeds) + rough.hung + rough.cut_off
    assert rough.hung + rough.cut_off > 0
    assert necessary <= rough.calls <= 1.2 * necessary
