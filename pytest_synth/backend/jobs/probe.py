"""Before the first rollout: does the task app answer, does it accept the key, does it have the seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pytest_synth.backend.jobs.task_apps import Answer, TaskApp, TaskAppCaller, Unreachable, refusal
from pytest_synth.errors import TaskAppError

PROBE_S = 30.0  # a task app whose loop is blocked by rollouts of another job answers late
_REFUSALS = (400, 401, 403)
_ABSENT = (404, 405, 501)


class NotReady(TaskAppError):
    """A job cannot run at its task app.

    Attributes:
        kind: `error_kind` of the rows that it leaves without a reward.
    """

    def __init__(self, message: str, *, kind: str) -> None:
        super().__init__(message)
        self.kind = kind


@dataclass(frozen=True)
class Probe:
    """Asks a task app what must be true before rollouts are sent to it."""

    caller: TaskAppCaller
    timeout_s: float = PROBE_S

    async def check_alive(self, app: TaskApp) -> None:
        """Ask `/health`.

        Raises:
            NotReady: If there is no answer, the key is refused, or the answer is an error.
        """
        answer = await self._get(app, "/health")
        self._refuse(app, "/health", answer)

    async def check(self, app: TaskApp, *, split: str | None, seeds: Sequence[int]) -> None:
        """Ask `/health`, then `/task_info`, which not every task app has, for the split's size.

        Raises:
            NotReady: As `check_alive`; or the split or a seed does not exist.
        """
        await self.check_alive(app)
        answer = await self._get(app, "/task_info")
        if answer.status in _ABSENT:
            return
        self._refuse(app, "/task_info", answer)
        try:
            document = answer.json()
        except ValueError:
            raise NotReady(
                f"task app at {app.shown} answered GET /task_info with text instead of JSON: {answer.text}",
                kind="task_app",
            ) from None
        reason = refuse_seeds(document, split, seeds)
        if reason is not None:
            raise NotReady(reason, kind="out_of_range")

    async def _get(self, app: TaskApp, path: str) -> Answer:
        try:
            return await self.caller.get(app, path, timeout_s=self.timeout_s)
        except TimeoutError:
            raise NotReady(
                f"task app at {app.shown} did not answer GET {path} within {self.timeout_s:g} s",
                kind="unreachable",
            ) from None
        except Unreachable as error:
            raise NotReady(
                f"task app at {app.shown} is unreachable ({error}); is it running?", kind="unreachable"
            ) from error

    @staticmethod
    def _refuse(app: TaskApp, path: str, answer: Answer) -> None:
        if answer.status in _REFUSALS:
            raise NotReady(refusal(app, f"GET {path}", answer.status), kind="refused")
        if answer.status != 200:
            raise NotReady(
                f"task app at {app.shown} answered GET {path} with {answer.status}: {answer.text}",
                kind="unreachable" if answer.status in (502, 503, 504, 530) else "task_app",
            )


def refuse_seeds(document: object, split: str | None, seeds: Sequence[int]) -> str | None:
    """Say which seed or split a task app does not have, by its `/task_info`; None if all is well.

    Where the description gives no size for the split, or the job names no split, nothing is refused.
    """
    taskset = document.get("taskset") if isinstance(document, Mapping) else None
    if split is None or not isinstance(taskset, Mapping):
        return None
    sizes = taskset.get("sizes")
    sizes = sizes if isinstance(sizes, Mapping) else {}
    listed = taskset.get("splits")
    names = [str(name) for name in listed] if isinstance(listed, list) else []
    known = list(dict.fromkeys([*names, *(str(name) for name in sizes)]))
    if known and split not in known:
        return f"split {split!r} is unknown: the task app has {', '.join(repr(name) for name in known)}"
    size = sizes.get(split)
    if not isinstance(size, int) or isinstance(size, bool):
        return None
    outside = next((seed for seed in seeds if not 0 <= seed < size), None)
    if outside is None:
        return None
    rows = f"{size} rows (0 to {size - 1})" if size else "no rows"
    return f"seed {outside} is out of range: split {split!r} has {rows}"
