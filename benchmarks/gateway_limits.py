"""What a rough provider costs a run: refusals, hung calls, cut streams, through the whole chain.

    python benchmarks/gateway_limits.py [--seeds 900] [--naive]

A stub provider on loopback, in a process of its own, lets 1 % of the calls hang for ever and cuts 1 % of the
streams in the middle. Beside that it refuses calls with 429 and a true Retry-After (whole seconds):

- `rate`: those above 30 a second (a token bucket of 10). `--naive` shows what becomes of a client that waits
  as it is told, and no more: about a third of its calls are refused.
- `whims`: a third of the calls, by the dice and whatever their rate.

An eval runs against each, `EvalJob` to embedded backend to task app to gateway to provider, once with a task
app that reads whole answers and once with one that streams. The necessary calls are those that were answered
whole and those that the provider spoiled (hung, cut, refused by the dice), as each had to be made again; only
calls above the rate could have been avoided. The ideal time is the necessary calls over the rate; where
there is no rate, the time that answers, hung calls and waits take together, over the rollouts at once.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import math
import multiprocessing
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import aiohttp
from fakes.rough_provider import RoughProvider

from pytest_synth import EvalJob, EvalJobConfig, task_app
from pytest_synth._serving import ServerThread
from pytest_synth.backend import BackendSettings, start

RATE, BURST, LATENCY_S = 30.0, 10.0, 0.3  # calls a second, calls at once, of an answer
CONCURRENCY = 24  # a naive client has RATE / 2 calls refused with it: 24 = 30 * (0.3 + 1 / 2)
TIMEOUT_S = 20.0  # of a rollout; a call that hangs is given up after half of it
WAIT_S = 1.0  # the Retry-After of all refusals, as it is given in whole seconds
KEY = "local-key-of-the-benchmark"


@dataclass(frozen=True)
class Weather:
    """What the provider has done."""

    calls: int
    refused: int
    whims: int
    hung: int
    cut: int

    @property
    def necessary(self) -> int:
        return self.calls - self.refused


def serve_provider(pipe: Connection, rate: float, refuse: float) -> None:
    provider = RoughProvider(
        rate=rate,
        burst=BURST,
        latency_s=LATENCY_S,
        retry_after_ms=None,
        hang=0.01,
        cut=0.01,
        refuse=refuse,
        hang_s=10 * TIMEOUT_S,
        dice=random.Random(5),
    )
    with ServerThread(provider.app) as server:
        pipe.send(server.url)
        pipe.recv()
        pipe.send(Weather(provider.calls, provider.refused, provider.whims, provider.hung, provider.cut_off))
        pipe.recv()


@contextmanager
def provider_process(rate: float, refuse: float) -> Iterator[tuple[Connection, str]]:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    child = context.Process(target=serve_provider, args=(theirs, rate, refuse))
    child.start()
    try:
        yield ours, ours.recv()
    finally:
        ours.send("stop")
        child.join(20)


def messages(row: str) -> list[dict[str, Any]]:
    return [{"role": "system", "content": "Answer."}, {"role": "user", "content": row}]


async def whole(row: str, llm: Any) -> str:
    return str((await llm.chat(messages(row))).text)


async def streamed(row: str, llm: Any) -> str:
    """What a task app with a streaming client does; an error in the stream is an exception, as in SDKs."""
    text = ""
    body = {"model": "stub", "messages": messages(row), "stream": True}
    url = f"{llm.policy['inference_url']}/chat/completions"
    async with aiohttp.ClientSession() as session, session.post(url, json=body) as answer:
        answer.raise_for_status()
        async for line in answer.content:
            if line.startswith(b"data: {"):
                event = json.loads(line[6:])
                if "error" in event:
                    raise RuntimeError(event["error"]["message"])
                text += "".join(choice["delta"].get("content") or "" for choice in event["choices"])
    return text


def evaluate(seeds: int, upstream: str, run: Any) -> tuple[list[dict[str, Any]], float]:
    """Run the eval; return the rows of its result and the seconds."""
    rows = [f"query {number}" for number in range(seeds)]
    app = task_app(
        rows={"test": rows}, run=run, score=lambda row, answer: float(answer == f"answer to {row}")
    )
    environ = {"OPENAI_BASE_URL": f"{upstream}/v1"}
    settings = BackendSettings(concurrency=CONCURRENCY, environ=environ, local_key=KEY)
    with ServerThread(app) as served, start(settings) as backend:
        config = EvalJobConfig(
            local_api_url=served.url,
            backend_url=backend.url,
            api_key=backend.key,
            task_app_api_key=KEY,
            seeds=list(range(seeds)),
            env_config={"split": "test"},
            policy_config={"provider": "openai", "model": "stub"},
            concurrency=CONCURRENCY,
            timeout=TIMEOUT_S,
        )
        job = EvalJob(config)
        started = time.perf_counter()
        job.submit()
        job.poll_until_complete(timeout=600, interval=0.1)
        seconds = time.perf_counter() - started
        return list(job.get_results()["results"]), seconds


def ideal_s(weather: Weather, rate: float) -> float:
    if rate < math.inf:
        return (weather.necessary - BURST) / rate
    busy = LATENCY_S * (weather.necessary - weather.whims - weather.hung)
    return (busy + weather.whims * WAIT_S + weather.hung * TIMEOUT_S / 2) / CONCURRENCY


def show(name: str, rate: float, refuse: float, seeds: int, run: Any) -> None:
    with provider_process(rate, refuse) as (pipe, upstream):
        rows, seconds = evaluate(seeds, upstream, run)
        pipe.send("tell")
        weather: Weather = pipe.recv()
    counts = Counter((row["seed"], row["sample"]) for row in rows)
    answered = sum(row["score"] == 1 for row in rows)
    print(
        f"{name:>6} {run.__name__:>9} {answered:>5} of {seeds} {sum(counts.values()) - len(counts):>6}"
        f" {weather.calls:>7} {weather.calls / weather.necessary:>6.2f} {seconds:>7.1f} s"
        f" {seconds / ideal_s(weather, rate):>6.2f}"
        f"   refused {weather.refused} + {weather.whims}, hung {weather.hung}, cut {weather.cut}",
        flush=True,
    )
    for row in rows:
        if row["score"] != 1:
            print(f"       seed {row['seed']}: {row['error']}")


async def naive(seeds: int, url: str) -> None:
    """Wait as told, and no more."""
    numbers = iter(range(seeds))

    async def lane(session: aiohttp.ClientSession) -> None:
        for number in numbers:
            body = {"model": "stub", "messages": messages(f"query {number}")}
            while True:
                with contextlib.suppress(TimeoutError):
                    async with session.post(f"{url}/v1/chat/completions", json=body) as answer:
                        if answer.status == 200:
                            break
                        await asyncio.sleep(float(answer.headers["Retry-After"]))

    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=TIMEOUT_S / 2)) as session:
        await asyncio.gather(*(lane(session) for _ in range(CONCURRENCY)))


def show_naive(seeds: int) -> None:
    with provider_process(RATE, 0) as (pipe, upstream):
        asyncio.run(naive(seeds, upstream))
        pipe.send("tell")
        weather: Weather = pipe.recv()
    print(f"a naive client: {weather.refused} of {weather.calls} calls refused")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=900)
    parser.add_argument("--naive", action="store_true", help="measure a client without limits too")
    given = parser.parse_args()
    os.environ["ENVIRONMENT_API_KEY"] = KEY
    print(f"{given.seeds} seeds, {CONCURRENCY} at once, {RATE:.0f} calls a second allowed in `rate`")
    if given.naive:
        show_naive(given.seeds)
    print("                  answered  twice   calls   /nec.      time /ideal")
    for name, rate, refuse in (("rate", RATE, 0.0), ("whims", math.inf, 1 / 3)):
        for run in (whole, streamed):
            show(name, rate, refuse, given.seeds, run)


if __name__ == "__main__":
    main()
