"""Jobs of both kinds, and the rollouts that an eval job consists of."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pytest_synth.backend.store.database import Database, Row
from pytest_synth.backend.store.encoding import decode, encode
from pytest_synth.contracts.jobs import JobStatus

Kind = Literal["eval", "prompt_learning"]

_COLUMNS = (
    "number, id, tenant, kind, status, position, body, error, document, created_at, started_at, completed_at"
)


@dataclass(frozen=True)
class JobRecord:
    """One job as it was when it was read.

    Attributes:
        number: Order of submission; other tables name the job by it.
        position: Place of the job in its run; lower ones are served first.
        body: What was submitted, without secrets.
        document: What else the job's kind wants to keep (results of an optimisation).
        created_at, started_at, completed_at: Seconds since the epoch.
    """

    number: int
    id: str
    tenant: str
    kind: Kind
    status: JobStatus
    position: int
    body: Mapping[str, Any]
    error: str | None
    document: Mapping[str, Any]
    created_at: float
    started_at: float | None
    completed_at: float | None


@dataclass(frozen=True)
class RolloutPlace:
    """One rollout of an eval job: `sample` counts the runs of one seed from 0."""

    place: int
    seed: int
    sample: int


@dataclass(frozen=True)
class Progress:
    """What an eval job has done so far.

    Attributes:
        total: Rollouts asked for; `completed` of them have ended, with a reward or a reason.
        rewards: Of the ended ones that have one, in the order asked for.
        cost_usd: None when the cost of a rollout is not known.
    """

    total: int
    completed: int
    rewards: tuple[float, ...]
    tokens: int
    cost_usd: float | None


class JobTable:
    def __init__(self, database: Database) -> None:
        self._database = database

    def add(
        self,
        *,
        job_id: str,
        tenant: str,
        kind: Kind,
        body: Mapping[str, Any],
        position: int = 0,
        same_as: str | None = None,
        rollouts: Iterable[RolloutPlace] = (),
    ) -> JobRecord:
        """Store a new pending job with its rollouts.

        Args:
            same_as: Digest of an idempotent submission; `find_same` finds the job by it.
        """
        with self._database.transaction():
            number = self._database.insert(
                "INSERT INTO jobs (id, tenant, kind, status, position, same_as, body, created_at)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (job_id, tenant, kind, JobStatus.PENDING, position, same_as, encode(body), time.time()),
            )
            self._database.execute_many(
                "INSERT INTO rollouts (job, place, seed, sample) VALUES (?, ?, ?, ?)",
                ((number, r.place, r.seed, r.sample) for r in rollouts),
            )
        return self.get(number)

    def get(self, number: int) -> JobRecord:
        found = self._database.row(f"SELECT {_COLUMNS} FROM jobs WHERE number = ?", (number,))  # noqa: S608
        assert found is not None
        return _record(found)

    def find(self, tenant: str, job_id: str, kind: Kind | None = None) -> JobRecord | None:
        """Return a tenant's job; None if it has none of that id (and kind)."""
        found = self._database.row(
            f"SELECT {_COLUMNS} FROM jobs WHERE tenant = ? AND id = ?",  # noqa: S608
            (tenant, job_id),
        )
        record = None if found is None else _record(found)
        return record if record is not None and kind in (None, record.kind) else None

    def find_same(self, tenant: str, same_as: str) -> JobRecord | None:
        found = self._database.row(
            f"SELECT {_COLUMNS} FROM jobs WHERE tenant = ? AND same_as = ?",  # noqa: S608
            (tenant, same_as),
        )
        return None if found is None else _record(found)

    def unfinished(self) -> list[JobRecord]:
        """Return the jobs that have not ended, in the order of their submission."""
        found = self._database.rows(
            f"SELECT {_COLUMNS} FROM jobs WHERE completed_at IS NULL ORDER BY number"  # noqa: S608
        )
        return [_record(row) for row in found]

    def start(self, number: int) -> None:
        """Mark a job as running; the first start's time stays."""
        self._database.execute(
            "UPDATE jobs SET status = ?, started_at = coalesce(started_at, ?) WHERE number = ?",
            (JobStatus.RUNNING, time.time(), number),
        )

    def end(self, number: int, status: JobStatus, error: str | None = None) -> None:
        assert status.is_terminal
        self._database.execute(
            "UPDATE jobs SET status = ?, error = ?, completed_at = ? WHERE number = ?",
            (status, None if error is None else encode(error), time.time(), number),
        )

    def write_document(self, number: int, document: Mapping[str, Any]) -> None:
        self._database.execute(
            "UPDATE jobs SET document = ? WHERE number = ?", (encode(dict(document)), number)
        )

    def open_places(self, number: int) -> list[RolloutPlace]:
        """Return the rollouts of a job that have not ended, in the order asked for."""
        found = self._database.rows(
            "SELECT place, seed, sample FROM rollouts WHERE job = ? AND row IS NULL ORDER BY place", (number,)
        )
        return [RolloutPlace(*row) for row in found]

    def finish_place(
        self,
        number: int,
        place: int,
        row: Mapping[str, Any],
        *,
        reward: float | None,
        tokens: int,
        cost_usd: float | None,
        trace: Mapping[str, Any] | None = None,
    ) -> None:
        """Store the row of a rollout that has ended, and its trace if there is one to keep."""
        self._database.execute(
            "UPDATE rollouts SET row = ?, reward = ?, tokens = ?, cost_usd = ?, trace = ?"
            " WHERE job = ? AND place = ?",
            (encode(row), reward, tokens, cost_usd, None if trace is None else encode(trace), number, place),
        )

    def rows(self, number: int) -> list[dict[str, Any]]:
        """Return the rows of the rollouts that have ended, in the order asked for."""
        found = self._database.rows(
            "SELECT row FROM rollouts WHERE job = ? AND row IS NOT NULL ORDER BY place", (number,)
        )
        return [decode(row) for (row,) in found]

    def traces(self, number: int) -> list[tuple[RolloutPlace, str]]:
        """Return the traces, as JSON, of the rollouts that have ended; of one that never ran, its row."""
        found = self._database.rows(
            "SELECT place, seed, sample, coalesce(trace, row) FROM rollouts"
            " WHERE job = ? AND row IS NOT NULL ORDER BY place",
            (number,),
        )
        return [(RolloutPlace(place, seed, sample), trace) for place, seed, sample, trace in found]

    def progress(self, number: int) -> Progress:
        found = self._database.rows(
            "SELECT row IS NOT NULL, reward, tokens, cost_usd FROM rollouts WHERE job = ? ORDER BY place",
            (number,),
        )
        ended = [row for row in found if row[0]]
        costs = [cost for _, _, _, cost in ended]
        return Progress(
            total=len(found),
            completed=len(ended),
            rewards=tuple(reward for _, reward, _, _ in ended if reward is not None),
            tokens=sum(tokens for _, _, tokens, _ in ended),
            cost_usd=None if any(cost is None for cost in costs) else float(sum(costs)),
        )


def _record(row: Row) -> JobRecord:
    number, job_id, tenant, kind, status, position, body, error, document, created, started, completed = row
    return JobRecord(
        number=number,
        id=job_id,
        tenant=tenant,
        kind=kind,
        status=JobStatus(status),
        position=position,
        body=decode(body),
        error=None if error is None else decode(error),
        document=decode(document),
        created_at=created,
        started_at=started,
        completed_at=completed,
    )
