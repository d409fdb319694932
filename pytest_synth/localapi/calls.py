"""Call the user's functions, `def` or `async def`, without blocking the event loop."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import inspect
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from starlette.requests import Request

Result = TypeVar("Result")

# Threads start when they are needed; this is above any sensible number of rollouts in flight.
_THREADS = 256


class CallerGone(Exception):
    """Nobody waits for the answer any more."""


class Threads:
    """Threads for the user's blocking functions, as many as needed between `open` and `close`.

    An app that is called without its lifespan has the few threads of the event loop, which end with it.
    """

    def __init__(self) -> None:
        self._pool: ThreadPoolExecutor | None = None

    def open(self) -> None:
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="synth-rollout")

    def close(self) -> None:
        """Let the threads end; one that still runs ends when its function returns."""
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
            self._pool = None

    async def run(self, function: Callable[..., Result], *args: Any) -> Result:
        """Run a function in a thread, with the caller's context variables."""
        context = contextvars.copy_context()
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._pool, context.run, _guarded(function), *args)


def is_async(function: Callable[..., Any]) -> bool:
    """Whether calling a function gives an awaitable for certain (partials and callable objects too)."""
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
        getattr(function, "__call__", None)  # noqa: B004 - not whether, but how it is called
    )


async def call(threads: Threads, function: Callable[..., Any], *args: Any) -> Any:
    """Call a function and await what it gives, if that is to be awaited."""
    result = function(*args) if is_async(function) else await threads.run(function, *args)
    return await result if inspect.isawaitable(result) else result


async def collect(threads: Threads, function: Callable[..., Any], *args: Any) -> list[Any]:
    """Call a function and list what it gives: an iterable, a generator, or their asynchronous kin."""
    if is_async(function) or inspect.isasyncgenfunction(function):
        result = function(*args)
    else:
        result = await threads.run(_list_if_plain, function, args)
    if inspect.isawaitable(result):
        result = await result
    if hasattr(result, "__aiter__"):
        return [entry async for entry in result]
    return list(result)


async def until_gone(request: Request, work: Coroutine[Any, Any, Result]) -> Result:
    """Await work, and cancel it when the caller has closed the connection: nobody would get its result.

    The work must let no SystemExit out: it would end the event loop.

    Raises:
        CallerGone: If the work was cancelled for that.
    """
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_disconnect(request))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            task.cancel()
            await asyncio.wait({task})
            raise CallerGone("the caller has closed the connection")
        return task.result()
    finally:
        task.cancel()
        gone.cancel()


async def _disconnect(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        continue


def _list_if_plain(function: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    """A generator's body runs here, in the thread, and not in the loop."""
    result = function(*args)
    plain = not inspect.isawaitable(result) and not hasattr(result, "__aiter__")
    return list(result) if plain else result


def _guarded(function: Callable[..., Result]) -> Callable[..., Result]:
    """StopIteration cannot pass through a future (before Python 3.12 the awaiting task would hang)."""

    @functools.wraps(function)
    def run(*args: Any) -> Result:
        try:
            return function(*args)
        except StopIteration as error:
            raise RuntimeError("the function raised StopIteration") from error

    return run
