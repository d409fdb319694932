"""What the gateway costs: calls through it against calls straight to the provider, replay, rough weather.

    python benchmarks/gateway.py [--calls 2000] [--rounds 3]

The provider (a stub on loopback) and the gateway run in processes of their own; this one makes the calls. All
figures of a table come from one run, in turns, so that the ratios hold on a busy machine too.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import aiohttp
from fakes.gateway_server import Stage
from fakes.model_provider import completion
from fakes.rough_provider import RoughProvider
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from pytest_synth._serving import ServerThread
from pytest_synth.backend.gateway import Gateway, Patience, RolloutSpec
from pytest_synth.backend.gateway.cassette import Cassette
from pytest_synth.backend.gateway.dialect import dump
from pytest_synth.backend.gateway.entries import Entry, Identity, request_of
from pytest_synth.prompts import Prompt

CONCURRENCY = 64
WARM_UP = 128  # calls that make connections and import what is needed late
SYSTEM = "Classify the customer's query into one of these intents:\n" + "\n".join(
    f"- intent_{number}: what it is about" for number in range(77)
)
POLICY = {"provider": "openai", "model": "stub"}
CASSETTE = "cassettes/benchmark.jsonl"
ANSWER = dump(completion("intent_7"))
CHUNKS = 50
STREAM = [
    b"data: "
    + dump({"id": "c", "choices": [{"index": 0, "delta": {"content": "word "}, "finish_reason": end}]})
    + b"\n\n"
    for end in [None] * (CHUNKS - 1) + ["stop"]
] + [b"data: [DONE]\n\n"]


def query(number: int, *, stream: bool = False) -> dict[str, Any]:
    messages = [
        {"role": "system", "content": SYSTEM},
        {"role": "user", "content": f"customer query number {number}"},
    ]
    return {"model": "stub", "messages": messages, "temperature": 0, **({"stream": True} if stream else {})}


def serve_provider(pipe: Connection, latency_s: float) -> None:
    async def events() -> AsyncIterator[bytes]:
        for event in STREAM:
            yield event

    async def answer(request: Request) -> Response:
        body = await request.body()
        if latency_s:
            await asyncio.sleep(latency_s)
        if b'"stream":true' in body:
            return StreamingResponse(events(), media_type="text/event-stream")
        return Response(ANSWER, media_type="application/json")

    with ServerThread(Starlette(routes=[Route("/{path:path}", answer, methods=["POST"])])) as server:
        pipe.send(server.url)
        pipe.recv()


def serve_gateway(pipe: Connection, upstream: str, root: str, mode: str) -> None:
    gateway = Gateway(
        environ={"OPENAI_BASE_URL": f"{upstream}/v1"},
        authorize=lambda headers: None,
        cassettes=Path(root),
        prices={"openai/stub": {"input": 0.1, "output": 0.4}},
    )
    stage = Stage()
    stage.app = Stage.starlette(gateway.routes())
    with ServerThread(stage) as server:
        gateway.base_url = server.url
        stage.run(gateway.startup())
        spec = RolloutSpec(
            "job", "local", "test", 0, 0, POLICY, Prompt.parse(SYSTEM), cassette=CASSETTE, record_mode=mode
        )
        rollout = gateway.open_rollout(spec)
        pipe.send(rollout.inference_url)
        before = cpu_s()
        pipe.recv()
        spent = cpu_s() - before
        use = gateway.close_rollout(rollout)
        assert use.failure is None, use.failure
        pipe.send((len(use.calls), use.replayed, spent))
        stage.run(gateway.shutdown())


def cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


@contextmanager
def process(target: Callable[..., None], *args: Any) -> Iterator[tuple[Connection, str]]:
    """A process that sends its URL, and ends when it is sent something."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    child = context.Process(target=target, args=(theirs, *args))
    child.start()
    try:
        yield ours, ours.recv()
    finally:
        if child.is_alive():
            ours.send("stop")
            child.join(20)


async def call_all(url: str, calls: int, *, stream: bool = False) -> float:
    """Make the calls, `CONCURRENCY` at once; return the seconds, as if the first ones took no longer."""
    bodies = [dump(query(number, stream=stream)) for number in range(calls)]

    async def lane(session: aiohttp.ClientSession, numbers: Iterator[int]) -> None:
        for number in numbers:
            async with session.post(url, data=bodies[number]) as answer:
                assert answer.status == 200, await answer.text()
                await answer.read()

    headers = {"Content-Type": "application/json"}
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), headers=headers) as session:
        first, rest = iter(range(WARM_UP)), iter(range(WARM_UP, calls))
        await asyncio.gather(*(lane(session, first) for _ in range(CONCURRENCY)))
        started = time.perf_counter()
        await asyncio.gather(*(lane(session, rest) for _ in range(CONCURRENCY)))
        return (time.perf_counter() - started) * calls / (calls - WARM_UP)


def proxying(calls: int, rounds: int) -> None:
    print(f"{calls} calls, {CONCURRENCY} at once, body {len(dump(query(0)))} bytes, median of {rounds}")
    print(f"{'latency':>9} {'straight':>12} {'gateway':>12} {'ratio':>7} {'CPU a call':>12}")
    for latency_s, stream in ((0.0, False), (0.1, False), (0.1, True)):
        straight, through, cpu = [], [], 0.0
        with ExitStack() as stack:
            root = stack.enter_context(tempfile.TemporaryDirectory())
            _, upstream = stack.enter_context(process(serve_provider, latency_s))
            with process(serve_gateway, upstream, root, "off") as (pipe, url):
                for _ in range(rounds):
                    straight.append(
                        asyncio.run(call_all(f"{upstream}/v1/chat/completions", calls, stream=stream))
                    )
                    through.append(asyncio.run(call_all(f"{url}/chat/completions", calls, stream=stream)))
                pipe.send("stop")
                made, _, cpu = pipe.recv()
        a, b = statistics.median(straight), statistics.median(through)
        print(
            f"{1000 * latency_s:>6.0f} ms {calls / a:>10.0f}/s {calls / b:>10.0f}/s {b / a:>7.2f} "
            f"{1e6 * cpu / made:>9.0f} us{f'  streams of {CHUNKS} chunks' if stream else ''}"
        )


def replaying(calls: int) -> None:
    with tempfile.TemporaryDirectory() as root:
        cassette = Cassette(Path(root) / CASSETTE, CASSETTE)
        for number in range(calls):
            identity = Identity("chat/completions", "openai", "stub", request_of(query(number), None), 0)
            cassette.add(Entry(identity, completion("intent_7"), 100.0, 0.0001))
        started = time.perf_counter()
        cassette.snapshot().write()
        written = time.perf_counter() - started
        size = cassette.path.stat().st_size
        started = time.perf_counter()
        loaded = Cassette(cassette.path, CASSETTE)
        load_s = time.perf_counter() - started
        assert len(loaded) == calls
        with process(serve_gateway, "http://127.0.0.1:9", root, "none") as (pipe, url):
            seconds = asyncio.run(call_all(f"{url}/chat/completions", calls))
            pipe.send("stop")
            made, replayed, cpu = pipe.recv()
        assert made == replayed
        print(f"\nreplay of a cassette of {calls} calls, {size / 1e6:.1f} MB")
        print(f"written in {written:.2f} s, loaded in {load_s:.3f} s")
        print(f"{calls / seconds:.0f} calls a second, {1e6 * cpu / made:.0f} us of CPU a call")


def rough_weather(calls: int, rate: float) -> None:
    """429 beyond the rate, 1 % hang, 1 % of the answers are lost on the way."""
    rough = RoughProvider(rate=rate, burst=20, latency_s=0.1, retry_after_ms=500, hang=0.01)
    with ExitStack() as stack:
        upstream = stack.enter_context(ServerThread(rough.app)).url
        gateway = Gateway(
            environ={"OPENAI_BASE_URL": f"{upstream}/v1"},
            authorize=lambda headers: None,
            patience=Patience(first_byte_s=1.0),
        )
        stage = Stage()
        stage.app = Stage.starlette(gateway.routes())
        gateway.base_url = stack.enter_context(ServerThread(stage)).url
        stage.run(gateway.startup())
        stack.callback(lambda: stage.run(gateway.shutdown()))
        rollout = gateway.open_rollout(RolloutSpec("job", "local", None, 0, 0, POLICY, None))
        numbers = iter(range(calls))

        async def lane(session: aiohttp.ClientSession) -> None:
            for number in numbers:
                url = f"{rollout.inference_url}/chat/completions"
                async with session.post(url, json=query(number)) as answer:
                    assert answer.status == 200, await answer.text()
                    await answer.read()

        async def run() -> float:
            async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
                started = time.perf_counter()
                await asyncio.gather(*(lane(session) for _ in range(CONCURRENCY)))
                return time.perf_counter() - started

        seconds = asyncio.run(run())
    necessary = calls + rough.hung
    ideal = (necessary - rough.burst) / rate
    print(f"\n{calls} calls to a provider that takes {rate:.0f} a second and lets 1 % hang for ever")
    print(
        f"calls made {rough.calls}, {rough.calls / necessary:.2f} times the necessary, "
        f"{rough.refused} refused"
    )
    print(f"{seconds:.1f} s, {seconds / ideal:.2f} times the ideal")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--calls", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    proxying(given.calls, given.rounds)
    replaying(5000)
    rough_weather(given.calls, 100)


if __name__ == "__main__":
    main()
