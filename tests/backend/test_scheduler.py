from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from pytest_synth.backend.jobs.scheduler import Lane, Scheduler


class Bench:
    """A scheduler with rollouts that end when the test says so."""

    def __init__(self, limit: int) -> None:
        self.scheduler = Scheduler(limit)
        self.started: list[str] = []
        self.open: dict[str, asyncio.Event] = {}
        self.most = 0

    def lane(self, tenant: str, position: int, number: int, limit: int = 100) -> Lane:
        return self.scheduler.lane(tenant, (position, number), limit=limit)

    def work(self, name: str) -> Callable[[], Awaitable[str]]:
        async def run() -> str:
            self.started.append(name)
            self.open[name] = asyncio.Event()
            self.most = max(self.most, len(self.open))
            try:
                await self.open[name].wait()
            finally:
                del self.open[name]
            return name

        return run

    def fill(self, lane: Lane, name: str, count: int) -> list[asyncio.Future[Any]]:
        return [lane.submit(self.work(f"{name}{i}")) for i in range(count)]

    async def end(self, *names: str) -> None:
        for name in names:
            self.open[name].set()
        await settle()

    async def end_all(self) -> None:
        """End rollouts one by one, always the one that has run longest, until there are none."""
        await settle()
        while self.open:
            await self.end(next(iter(self.open)))


async def settle() -> None:
    for _ in range(8):
        await asyncio.sleep(0)


def run(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(test())


def test_jobs_of_one_key_start_in_the_order_of_the_run_not_of_submission() -> None:
    async def scene() -> None:
        bench = Bench(1)
        first = bench.lane("me", 0, 0)
        bench.fill(first, "running", 1)
        bench.fill(bench.lane("me", 2, 1), "late", 2)
        bench.fill(bench.lane("me", 1, 2), "early", 2)
        await bench.end_all()
        assert bench.started == ["running0", "early0", "early1", "late0", "late1"]

    run(scene)


def test_equal_positions_start_in_the_order_of_submission() -> None:
    async def scene() -> None:
        bench = Bench(1)
        bench.fill(bench.lane("me", 0, 7), "first", 2)
        bench.fill(bench.lane("me", 0, 8), "second", 1)
        await bench.end_all()
        assert bench.started == ["first0", "first1", "second0"]

    run(scene)


def test_a_job_at_its_own_limit_passes_its_turn_on() -> None:
    async def scene() -> None:
        bench = Bench(4)
        bench.fill(bench.lane("me", 0, 0, limit=1), "a", 3)
        bench.fill(bench.lane("me", 1, 1), "b", 4)
        await settle()
        assert bench.started == ["a0", "b0", "b1", "b2"]
        await bench.end("a0")
        assert bench.started[4:] == ["a1"]

    run(scene)


def test_two_busy_keys_share_the_limit_half_and_half() -> None:
    async def scene() -> None:
        bench = Bench(4)
        bench.fill(bench.lane("ann", 0, 0), "a", 40)
        await settle()
        assert bench.started == ["a0", "a1", "a2", "a3"]
        bench.fill(bench.lane("bob", 0, 1), "b", 40)
        await bench.end("a0")
        await bench.end("a1")
        assert Counter(name[0] for name in bench.open) == {"a": 2, "b": 2}
        for _ in range(20):
            await bench.end(next(iter(bench.open)))
            assert Counter(name[0] for name in bench.open) == {"a": 2, "b": 2}

    run(scene)


def test_keys_take_turns_when_only_one_rollout_fits() -> None:
    async def scene() -> None:
        bench = Bench(1)
        for number, tenant in enumerate(("a", "b", "c")):
            bench.fill(bench.lane(tenant, 0, number), tenant, 3)
        await bench.end_all()
        assert [name[0] for name in bench.started] == ["a", "b", "c"] * 3

    run(scene)


def test_a_key_alone_gets_the_whole_limit() -> None:
    async def scene() -> None:
        bench = Bench(8)
        bench.lane("idle", 0, 0)
        bench.fill(bench.lane("busy", 0, 1), "x", 20)
        await settle()
        assert len(bench.open) == 8

    run(scene)


def test_cancel_drops_what_waits_and_cuts_what_runs() -> None:
    async def scene() -> None:
        bench = Bench(2)
        doomed = bench.lane("me", 0, 0)
        futures = bench.fill(doomed, "x", 5)
        others = bench.fill(bench.lane("me", 1, 1), "y", 2)
        await settle()
        await doomed.cancel()
        assert all(future.cancelled() for future in futures)
        await settle()
        assert bench.started == ["x0", "x1", "y0", "y1"]
        assert doomed.submit(bench.work("z")).cancelled()
        await bench.end_all()
        assert [future.result() for future in others] == ["y0", "y1"]

    run(scene)


def test_a_unit_cut_before_its_first_step_leaves_nobody_waiting() -> None:
    async def scene() -> None:
        bench = Bench(1)
        lane = bench.lane("me", 0, 0)
        future = lane.submit(bench.work("x"))
        await lane.cancel()
        assert future.cancelled()
        assert bench.started == []
        assert bench.scheduler.in_flight == 0

    run(scene)


def test_a_held_job_starts_nothing_more_and_others_go_on() -> None:
    async def scene() -> None:
        bench = Bench(2)
        held = bench.lane("me", 0, 0)
        futures = bench.fill(held, "x", 4)
        bench.fill(bench.lane("me", 1, 1), "y", 1)
        await settle()
        held.hold()
        await bench.end_all()
        assert bench.started == ["x0", "x1", "y0"]
        assert [future.done() for future in futures] == [True, True, False, False]
        await held.cancel()
        assert futures[3].cancelled()

    run(scene)


def test_a_cancelled_future_cuts_its_unit_and_frees_the_place() -> None:
    async def scene() -> None:
        bench = Bench(1)
        running, waiting, last = bench.fill(bench.lane("me", 0, 0), "x", 3)
        await settle()
        waiting.cancel()
        running.cancel()
        await settle()
        assert bench.started == ["x0", "x2"]
        await bench.end_all()
        assert last.result() == "x2"

    run(scene)


def test_a_unit_that_fails_frees_its_place_and_tells_its_submitter() -> None:
    async def scene() -> None:
        bench = Bench(1)
        lane = bench.lane("me", 0, 0)

        async def fail() -> None:
            raise RuntimeError("broken")

        failed = lane.submit(fail)
        [good] = bench.fill(lane, "x", 1)
        await bench.end_all()
        assert str(failed.exception()) == "broken"
        assert good.result() == "x0"

    run(scene)


def test_nothing_is_lost_and_no_limit_crossed_in_random_traffic() -> None:
    async def scene() -> None:
        luck = random.Random(7)
        bench = Bench(5)
        futures: list[asyncio.Future[Any]] = []
        limits: dict[str, int] = {}
        for number in range(12):
            limits[f"j{number}-"] = luck.randint(1, 6)
            lane = bench.lane(luck.choice("abc"), luck.randint(0, 3), number, limits[f"j{number}-"])
            futures += bench.fill(lane, f"j{number}-", luck.randint(1, 30))
            for _ in range(luck.randint(0, 20)):
                await settle()
                if bench.open:
                    await bench.end(luck.choice(list(bench.open)))
                now = Counter(name.split("-")[0] + "-" for name in bench.open)
                assert all(count <= limits[name] for name, count in now.items())
        await bench.end_all()
        assert bench.most == 5
        assert sorted(future.result() for future in futures) == sorted(bench.started)
        assert len(set(bench.started)) == len(futures)

    run(scene)
