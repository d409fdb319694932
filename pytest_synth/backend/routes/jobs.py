"""What both kinds of job have in common on the wire: lookup, event list, event stream, cancellation."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import HTTPException, Query
from starlette.responses import StreamingResponse

from pytest_synth.backend.routes.answers import Json, error_responses
from pytest_synth.backend.routes.models import Cancelled, EventPage
from pytest_synth.backend.routes.services import Services, ServicesOf, TenantOf
from pytest_synth.backend.store import JobRecord
from pytest_synth.backend.store.encoding import encode
from pytest_synth.contracts.evals import MAX_INTEGER
from pytest_synth.contracts.jobs import JobStatus

MAX_EVENTS = 10_000  # of one page; what published clients ask for at most

SinceSeq = Annotated[int, Query(ge=0, le=MAX_INTEGER, description="give events after this number")]
Cursor = Annotated[
    int | None,
    Query(ge=0, le=MAX_INTEGER, description="give events after this number, and end with the job"),
]
Limit = Annotated[int, Query(ge=1)]

EVENTS = {200: {"model": EventPage}, **error_responses(404, 422)}
STREAM: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/event-stream": {}}, "description": "one JSON event in each `data:` line"},
    **error_responses(404, 422),
}
CANCEL = {200: {"model": Cancelled}, **error_responses(400, 404, 422)}


def any_job(job_id: str, services: ServicesOf, tenant: TenantOf) -> JobRecord:
    """Find the tenant's job of either kind; another tenant's is as unknown as one that never was."""
    job = services.store.jobs.find(tenant, job_id)
    if job is None:
        raise HTTPException(404, f"no job {job_id!r}")
    return job


def eval_job(job_id: str, services: ServicesOf, tenant: TenantOf) -> JobRecord:
    job = services.store.jobs.find(tenant, job_id, "eval")
    if job is None:
        raise HTTPException(404, f"no eval job {job_id!r}")
    return job


def event_page(services: Services, job: JobRecord, since_seq: int, limit: int) -> Json:
    found = services.store.events.after(job.number, job.id, since_seq=since_seq, limit=min(limit, MAX_EVENTS))
    return Json({"events": found, "next_seq": found[-1]["seq"] if found else since_seq})


def event_stream(services: Services, job: JobRecord, since_seq: int | None) -> StreamingResponse:
    """Send events as they come: LF framing and one `data:` line, which is all that published clients read."""

    async def frames() -> AsyncIterator[bytes]:
        yield b": events\n\n"  # so that the headers are sent before the first event comes
        async for event in services.feeds.follow(job, since_seq=since_seq):
            if event is None:
                yield b": still here\n\n"
            else:
                yield b"data: " + encode(event).encode("ascii") + b"\n\n"

    headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
    return StreamingResponse(frames(), media_type="text/event-stream", headers=headers)


def cancellation(job: JobRecord, state: JobStatus) -> Json:
    return Json(
        {
            "job_id": job.id,
            "status": "succeeded",
            "message": f"the job is {state.value}",
            "attempt_id": f"cancel-{secrets.token_hex(8)}",
        }
    )
