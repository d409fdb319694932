"""Adaptive concurrency, against simulated providers on a virtual clock."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Protocol

import pytest
from fakes.virtual_time import run_virtual

from pytest_synth.backend.gateway.limiter import START, Limiter

REFUSAL_S = 0.005  # providers refuse at once


class Simulated(Protocol):
    async def answer(self) -> float | None:
        """None for an answer, else the seconds to wait."""


@dataclass
class TokenBucket:
    """Takes `rate` calls a second, and up to `burst` that it has saved."""

    rate: float
    burst: float
    latency_s: float
    retry_after_s: float
    dice: random.Random = field(default_factory=lambda: random.Random(7))
    _saved: float = -1.0
    _at: float = 0.0

    async def answer(self) -> float | None:
        now = asyncio.get_running_loop().time()
        self._saved = self.burst if self._saved < 0 else self._saved
        self._saved = min(self.burst, self._saved + (now - self._at) * self.rate)
        self._at = now
        if self._saved < 1:
            await asyncio.sleep(REFUSAL_S)
            return self.retry_after_s
        self._saved -= 1
        await asyncio.sleep(self.latency_s * self.dice.uniform(0.7, 1.3))
        return None


@dataclass
class FixedWindow:
    """Takes `calls` in each window, and tells when the next one begins."""

    calls: int
    window_s: float
    latency_s: float
    _window: int = -1
    _taken: int = 0

    async def answer(self) -> float | None:
        now = asyncio.get_running_loop().time()
        window = int(now / self.window_s)
        if window != self._window:
            self._window, self._taken = window, 0
        self._taken += 1
        if self._taken > self.calls:
            await asyncio.sleep(REFUSAL_S)
            return (window + 1) * self.window_s - now
        await asyncio.sleep(self.latency_s)
        return None


@dataclass
class Moody:
    """Refuses a third of the calls, whatever their rate."""

    latency_s: float
    retry_after_s: float
    dice: random.Random = field(default_factory=lambda: random.Random(7))

    async def answer(self) -> float | None:
        if self.dice.random() < 1 / 3:
            await asyncio.sleep(REFUSAL_S)
            return self.retry_after_s
        await asyncio.sleep(self.latency_s)
        return None


async def nothing() -> None:
    """Beside the calls."""


def answer_all(
    provider: Simulated,
    calls: int,
    most: int,
    *,
    at_once: int = 1000,
    beside: Callable[[], Awaitable[None]] = nothing,
) -> tuple[int, float]:
    """Let `calls` calls be answered through a limiter; return how many were sent, and the seconds.

    Args:
        at_once: Callers, each of which waits for its answer before the next call.
    """
    sent = 0
    numbers = iter(range(calls))

    async def one(limiter: Limiter) -> None:
        nonlocal sent
        again = False
        while True:
            ticket = await limiter.enter(again=again)
            sent += 1
            wait = await provider.answer()
            if wait is None:
                limiter.leave_answered(ticket)
                return
            limiter.leave_refused(ticket, wait)
            await asyncio.sleep(wait)
            again = True

    async def caller(limiter: Limiter) -> None:
        for _ in numbers:
            await one(limiter)

    async def everything() -> None:
        limiter = Limiter(most)
        await asyncio.gather(beside(), *(caller(limiter) for _ in range(at_once)))
        assert limiter.in_flight == 0
        limiter.close()

    _, seconds = run_virtual(everything())
    return sent, seconds


@pytest.mark.parametrize(
    ("provider", "ideal_s"),
    [
        pytest.param(TokenBucket(50, 10, 0.1, 1.0), 990 / 50, id="50-a-second"),
        pytest.param(TokenBucket(100, 100, 1.0, 1.0), 1000 / 64, id="not-the-limit"),
        pytest.param(TokenBucket(20, 5, 0.5, 0.2), 995 / 20, id="20-a-second"),
        pytest.param(TokenBucket(8, 8, 2.0, 1.0), 992 / 8, id="8-a-second"),
        pytest.param(TokenBucket(2, 2, 1.0, 1.0), 998 / 2, id="2-a-second"),
        pytest.param(TokenBucket(100, 20, 0.1, 0.02), 980 / 100, id="100-a-second"),
        pytest.param(FixedWindow(60, 1.0, 0.1), 1000 / 60, id="60-each-second"),
        pytest.param(FixedWindow(300, 10.0, 0.1), 30.0, id="300-each-10-seconds"),
    ],
)
def test_a_rate_is_met_with_few_calls_refused(provider: Simulated, ideal_s: float) -> None:
    sent, seconds = answer_all(provider, 1000, 64)
    assert sent <= 1.2 * 1000
    assert seconds <= 1.5 * ideal_s


def test_without_a_limiter_most_calls_would_be_refused() -> None:
    """What the tests above are worth: the same provider without adaptation."""

    class Open(Limiter):
        def leave_refused(self, ticket: object, wait_s: float) -> None:
            self.in_flight -= 1
            self._let_in()

    provider = TokenBucket(50, 10, 0.1, 1.0)
    sent = 0

    async def one(limiter: Limiter) -> None:
        nonlocal sent
        while True:
            ticket = await limiter.enter()
            sent += 1
            wait = await provider.answer()
            if wait is None:
                limiter.leave_answered(ticket)
                return
            limiter.leave_refused(ticket, wait)
            await asyncio.sleep(wait)

    async def everything() -> None:
        limiter = Open(64)
        await asyncio.gather(*(one(limiter) for _ in range(1000)))

    run_virtual(everything())
    assert sent > 3 * 1000


@pytest.mark.parametrize("latency_s", [0.1, 0.5, 2.0])
def test_refusals_that_have_nothing_to_do_with_the_rate_hardly_slow_a_run(latency_s: float) -> None:
    provider, calls = Moody(latency_s, 1.0), 600
    sent, seconds = answer_all(provider, calls, 16, at_once=24)
    assert sent <= 1.2 * 1.5 * calls  # a third is refused, whatever is done
    ideal_s = max(calls * latency_s / 16, calls * (latency_s + 0.5 * provider.retry_after_s) / 24)
    assert seconds <= 1.5 * ideal_s


def test_a_rate_that_falls_is_met_again() -> None:
    provider = TokenBucket(100, 10, 0.2, 1.0)

    async def fall() -> None:
        await asyncio.sleep(20)
        provider.rate = 20

    sent, seconds = answer_all(provider, 3000, 64, beside=fall)
    assert sent <= 1.2 * 3000
    assert seconds <= 1.5 * (20 + 1000 / 20)


def test_a_key_of_ten_calls_a_minute_is_not_hammered() -> None:
    sent, seconds = answer_all(FixedWindow(10, 60.0, 0.5), 60, 64)
    assert sent <= 1.3 * 60  # the first round tells what the key takes
    assert seconds <= 1.3 * 300


def test_the_limit_starts_low_and_doubles_while_nothing_is_refused() -> None:
    async def peaks() -> list[int]:
        limiter, running, peaks = Limiter(100), 0, [0]

        async def one() -> None:
            nonlocal running
            ticket = await limiter.enter()
            running += 1
            peaks[-1] = max(peaks[-1], running)
            await asyncio.sleep(1)
            running -= 1
            limiter.leave_answered(ticket)

        calls = [asyncio.create_task(one()) for _ in range(400)]
        for _ in range(4):
            await asyncio.sleep(1)
            peaks.append(0)
        await asyncio.gather(*calls)
        return peaks[:4]

    found, _ = run_virtual(peaks())
    assert found[0] == START
    assert found[1] == 2 * START
    assert found[3] == 100


def test_a_repeated_call_goes_before_the_others() -> None:
    async def order() -> list[str]:
        limiter, entered = Limiter(1), list[str]()

        async def one(name: str, *, again: bool) -> None:
            ticket = await limiter.enter(again=again)
            entered.append(name)
            limiter.leave_answered(ticket)

        first = await limiter.enter()
        waiting = [
            asyncio.create_task(one("new", again=False)),
            asyncio.create_task(one("repeated", again=True)),
        ]
        await asyncio.sleep(0)
        limiter.leave_answered(first)
        await asyncio.gather(*waiting)
        return entered

    assert run_virtual(order())[0] == ["repeated", "new"]


def test_a_held_limiter_lets_nobody_in_until_then() -> None:
    async def entered_at() -> float:
        limiter = Limiter(4)
        limiter.hold(7.5)
        await limiter.enter()
        return asyncio.get_running_loop().time()

    assert run_virtual(entered_at())[0] == pytest.approx(7.5)


@pytest.mark.parametrize("is_let_in", [False, True])
def test_a_cancelled_call_gives_its_place_back(is_let_in: bool) -> None:
    async def scene() -> int:
        limiter = Limiter(1)
        first = await limiter.enter()
        second = asyncio.create_task(limiter.enter())
        await asyncio.sleep(0)
        if is_let_in:
            limiter.leave_answered(first)  # the place is given in the same moment
        second.cancel()
        with pytest.raises(asyncio.CancelledError):
            await second
        if not is_let_in:
            limiter.leave_answered(first)
        await limiter.enter()
        return limiter.in_flight

    assert run_virtual(scene())[0] == 1
