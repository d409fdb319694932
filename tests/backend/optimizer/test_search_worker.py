"""The thread that gepa runs in, and its bridge to the event loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import TypeVar

import pytest

from pytest_synth.backend.optimizer.worker import Worker, WorkerStopped

T = TypeVar("T")


async def echo(value: T) -> T:
    await asyncio.sleep(0)
    return value


def test_the_function_runs_in_a_thread_and_its_coroutines_on_the_loop() -> None:
    threads: list[str] = []

    async def note() -> int:
        threads.append(threading.current_thread().name)
        return 20

    async def main() -> int:
        worker = Worker()

        def function() -> int:
            threads.append(threading.current_thread().name)
            return worker.wait(note()) + worker.wait(echo(1))

        return await worker.run(function)

    assert asyncio.run(main()) == 21
    assert threads == ["synth-gepa", threading.current_thread().name]


def test_errors_pass_in_both_directions() -> None:
    async def fail() -> None:
        raise ValueError("on the loop")

    async def main(body: Callable[[Worker], None]) -> None:
        worker = Worker()
        await worker.run(lambda: body(worker))

    def passes_on(worker: Worker) -> None:
        worker.wait(fail())

    def fails_itself(worker: Worker) -> None:
        raise KeyError("in the thread")

    with pytest.raises(ValueError, match="on the loop"):
        asyncio.run(main(passes_on))
    with pytest.raises(KeyError, match="in the thread"):
        asyncio.run(main(fails_itself))


def test_a_cancelled_run_unwinds_the_thread_and_ends_its_coroutine() -> None:
    seen: list[str] = []

    async def for_ever() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            seen.append("coroutine ended")
            raise

    async def main() -> None:
        worker = Worker()
        waiting = asyncio.Event()

        async def begin() -> None:
            waiting.set()
            await for_ever()

        def function() -> None:
            try:
                worker.wait(begin())
            except Exception:
                seen.append("swallowed")
            except WorkerStopped:
                seen.append("unwound")
                with pytest.raises(WorkerStopped):
                    worker.wait(echo(1))
                raise

        task = asyncio.create_task(worker.run(function))
        await waiting.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert seen == ["coroutine ended", "unwound"]
    assert "synth-gepa" not in {thread.name for thread in threading.enumerate()}


def test_it_says_whose_turn_it_is() -> None:
    turns: list[bool] = []

    async def main() -> None:
        worker = Worker()

        async def look() -> None:
            turns.append(worker.is_computing)

        await worker.run(lambda: worker.wait(look()))
        turns.append(worker.is_computing)

    asyncio.run(main())
    assert turns == [False, False]
