"""`/api/eval/jobs`: submit, status, results, events, cancel."""

from __future__ import annotations

import secrets
from typing import Annotated

from fastapi import APIRouter, Depends, HTTPException, Query

from pytest_synth.backend.gateway import PolicyRefused
from pytest_synth.backend.jobs import documents
from pytest_synth.backend.routes.answers import Json, Refused, error_responses
from pytest_synth.backend.routes.models import (
    Cancelled,
    CancelRequest,
    EvalResults,
    EvalStatus,
    EventPage,
    JobCreated,
)
from pytest_synth.backend.routes.services import AUTHENTICATED, ServicesOf, TenantOf
from pytest_synth.backend.store import JobRecord
from pytest_synth.contracts.evals import EvalSubmit
from pytest_synth.errors import ConfigError
from pytest_synth.prompts import Prompt

MAX_ROLLOUTS = 100_000  # of one job; each is a row that is kept
MAX_EVENTS = 10_000  # of one page; what published clients ask for at most

router = APIRouter(tags=["eval jobs"], dependencies=AUTHENTICATED, responses=error_responses(401))


def eval_job(job_id: str, services: ServicesOf, tenant: TenantOf) -> JobRecord:
    """Find the tenant's job; another tenant's is as unknown as one that never was."""
    job = services.store.jobs.find(tenant, job_id, "eval")
    if job is None:
        raise HTTPException(404, f"no eval job {job_id!r}")
    return job


EvalJobOf = Annotated[JobRecord, Depends(eval_job)]


@router.post(
    "/api/eval/jobs", status_code=201, responses={201: {"model": JobCreated}, **error_responses(422)}
)
async def submit(body: EvalSubmit, services: ServicesOf, tenant: TenantOf) -> Json:
    _refuse(body, is_local=tenant == services.tenants.local)
    try:
        job = services.evals.submit(tenant, body)
    except PolicyRefused as error:
        raise Refused("policy", str(error)) from error
    return Json({"job_id": job.id, "status": job.status.value}, status_code=201)


@router.get("/api/eval/jobs/{job_id}", responses={200: {"model": EvalStatus}, **error_responses(404, 422)})
async def status(job: EvalJobOf, services: ServicesOf) -> Json:
    return Json(documents.status(services.store, job))


@router.get(
    "/api/eval/jobs/{job_id}/results", responses={200: {"model": EvalResults}, **error_responses(404, 422)}
)
async def results(job: EvalJobOf, services: ServicesOf) -> Json:
    return Json(documents.results(services.store, job))


@router.get(
    "/api/eval/jobs/{job_id}/events", responses={200: {"model": EventPage}, **error_responses(404, 422)}
)
async def events(
    job: EvalJobOf,
    services: ServicesOf,
    since_seq: Annotated[int, Query(ge=0, le=2**53)] = 0,
    limit: Annotated[int, Query(ge=1)] = 5000,
) -> Json:
    found = services.store.events.after(job.number, job.id, since_seq=since_seq, limit=min(limit, MAX_EVENTS))
    return Json({"events": found, "next_seq": found[-1]["seq"] if found else since_seq})


@router.post(
    "/api/eval/jobs/{job_id}/cancel", responses={200: {"model": Cancelled}, **error_responses(404, 422)}
)
async def cancel(job: EvalJobOf, services: ServicesOf, body: CancelRequest | None = None) -> Json:
    state = await services.evals.cancel(job)
    return Json(
        {
            "job_id": job.id,
            "status": "succeeded",
            "message": f"the job is {state.value}",
            "attempt_id": f"cancel-{secrets.token_hex(8)}",
        }
    )


def _refuse(body: EvalSubmit, *, is_local: bool) -> None:
    """Refuse what the model alone cannot see.

    Raises:
        Refused: Naming the field.
    """
    if body.verifier_config is not None:
        raise Refused(
            "verifier_config",
            "verifier_config is not supported by the embedded backend: rewards come from the task app",
        )
    if body.extensions is None:
        return
    if not is_local:
        raise Refused("extensions", "extensions are taken from the backend's own local key only")
    count = len(body.seeds) * body.extensions.samples
    if count > MAX_ROLLOUTS:
        raise Refused(
            "extensions.samples",
            f"{len(body.seeds)} seeds with {body.extensions.samples} samples are {count} rollouts;"
            f" a job may have {MAX_ROLLOUTS}",
        )
    if body.extensions.prompt is not None:
        try:
            Prompt.parse([message.model_dump() for message in body.extensions.prompt])
        except ConfigError as error:
            raise Refused("extensions.prompt", str(error)) from error
