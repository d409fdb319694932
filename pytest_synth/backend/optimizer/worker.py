"""Runs a synchronous function in a thread of its own, which may have coroutines run on the loop."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class WorkerStopped(BaseException):
    """Unwinds the worker's thread; not an Exception, so that library code does not swallow it."""


class Worker:
    """One thread for one function, and the bridge from it to the event loop.

    The function calls `wait` to have a coroutine run on the loop. Only one of the two sides computes at
    any time: the loop is free while the thread computes, the thread sleeps while its coroutine runs.

    Attributes:
        is_computing: Whether it is the thread's turn. Written on the loop alone.
    """

    def __init__(self) -> None:
        self.is_computing = False
        self._is_closed = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[Any] | None = None

    async def run(self, function: Callable[[], T]) -> T:
        """Run the function in the thread; raise what it raises.

        If this is cancelled, the function's current or next `wait` raises `WorkerStopped`, and the thread
        has ended when this returns.
        """
        self._loop = asyncio.get_running_loop()
        result: asyncio.Future[T] = self._loop.create_future()
        thread = threading.Thread(target=self._body, args=(function, result), name="synth-gepa", daemon=True)
        self.is_computing = True
        thread.start()
        try:
            return await asyncio.shield(result)
        finally:
            self._is_closed = True
            if self._task is not None and not self._task.done():
                self._task.cancel()
            if not result.done():
                await asyncio.wait({result})
                if not result.cancelled():
                    result.exception()  # retrieved: this call raises its own
            self.is_computing = False
            thread.join()

    def wait(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the loop and return its result; for the worker's thread."""
        assert self._loop is not None
        box: concurrent.futures.Future[T] = concurrent.futures.Future()
        self._loop.call_soon_threadsafe(self._begin, coroutine, box)
        return box.result()

    def _body(self, function: Callable[[], T], result: asyncio.Future[T]) -> None:
        assert self._loop is not None
        try:
            value = function()
        except BaseException as error:
            self._loop.call_soon_threadsafe(self._end, result, None, error)
        else:
            self._loop.call_soon_threadsafe(self._end, result, value, None)

    def _begin(self, coroutine: Coroutine[Any, Any, T], box: concurrent.futures.Future[T]) -> None:
        self.is_computing = False
        if self._is_closed:
            coroutine.close()
            box.set_exception(WorkerStopped())
            return
        self._task = asyncio.ensure_future(coroutine)
        self._task.add_done_callback(lambda task: self._answer(task, box))

    def _answer(self, task: asyncio.Task[T], box: concurrent.futures.Future[T]) -> None:
        self.is_computing = True
        if task.cancelled():
            box.set_exception(WorkerStopped())
        elif (error := task.exception()) is not None:
            box.set_exception(error)
        else:
            box.set_result(task.result())

    def _end(self, result: asyncio.Future[T], value: Any, error: BaseException | None) -> None:
        self.is_computing = False
        if result.done():
            return
        if isinstance(error, WorkerStopped):
            result.cancel()
        elif error is not None:
            result.set_exception(error)
        else:
            result.set_result(value)
