"""The tasks of the jobs that run: started, cut one by one, and all stopped at once."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from pytest_synth.backend.store import JobRecord


class JobTasks:
    """One task for each running job; lives on the backend's loop."""

    def __init__(self) -> None:
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._cut: set[int] = set()
        self.is_stopping = False
        """Whether the backend ends: jobs that are cut then are left unfinished."""

    def start(self, job: JobRecord, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work, name=job.id)
        self._tasks[job.number] = task
        task.add_done_callback(lambda _: self._forget(job.number))

    async def ends(self, job: JobRecord, *, within_s: float) -> None:
        """Return once a job's task has ended by itself, or after `within_s` seconds."""
        task = self._tasks.get(job.number)
        if task is not None:
            await asyncio.wait({task}, timeout=within_s)

    async def cut(self, job: JobRecord) -> bool:
        """Cancel a job's task and return once it has ended; False if the job does not run."""
        task = self._tasks.get(job.number)
        if task is None:
            return False
        self._cancel(job.number, task)
        await asyncio.wait({task})
        return True

    async def stop(self) -> None:
        """Cancel all tasks and return once they have ended."""
        self.is_stopping = True
        tasks = dict(self._tasks)
        for number, task in tasks.items():
            self._cancel(number, task)
        if tasks:
            await asyncio.wait(tasks.values())

    def _cancel(self, number: int, task: asyncio.Task[None]) -> None:
        if number not in self._cut:  # a second cancel would cut the first one's cleaning up
            self._cut.add(number)
            task.cancel()

    def _forget(self, number: int) -> None:
        self._tasks.pop(number, None)
        self._cut.discard(number)
