"""Eval jobs: submit, status, results, events, stream, traces, cancel."""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import APIRouter, Depends
from starlette.responses import Response, StreamingResponse

from pytest_synth.backend.gateway import PolicyRefused
from pytest_synth.backend.jobs import documents
from pytest_synth.backend.jobs.traces import pack
from pytest_synth.backend.routes.answers import Json, Refused, error_responses
from pytest_synth.backend.routes.jobs import (
    CANCEL,
    EVENTS,
    STREAM,
    Cursor,
    Limit,
    SinceSeq,
    cancellation,
    eval_job,
    event_page,
    event_stream,
)
from pytest_synth.backend.routes.models import CancelRequest, EvalResults, EvalStatus, JobCreated
from pytest_synth.backend.routes.services import AUTHENTICATED, KeyedRoute, ServicesOf, TenantOf
from pytest_synth.backend.store import JobRecord
from pytest_synth.backend.store.uploads import is_header_text
from pytest_synth.contracts.evals import MAX_ROLLOUTS, EvalSubmit
from pytest_synth.contracts.rewards import asks_for_task_app_rewards
from pytest_synth.errors import ConfigError
from pytest_synth.prompts import Prompt

router = APIRouter(
    route_class=KeyedRoute, tags=["eval jobs"], dependencies=AUTHENTICATED, responses=error_responses(401)
)

EvalJobOf = Annotated[JobRecord, Depends(eval_job)]


@router.post(
    "/api/eval/jobs", status_code=201, responses={201: {"model": JobCreated}, **error_responses(400, 422)}
)
async def submit(body: EvalSubmit, services: ServicesOf, tenant: TenantOf) -> Json:
    _refuse(body, is_local=tenant == services.tenants.local)
    try:
        job = services.evals.submit(tenant, body)
    except PolicyRefused as error:
        raise Refused("policy", str(error)) from error
    return Json({"job_id": job.id, "status": job.status.value}, status_code=201)


# Published clients strip every `/api` from their base URL before they stream, and never put it back.
@router.get("/eval/jobs/{job_id}", include_in_schema=False)
@router.get("/api/eval/jobs/{job_id}", responses={200: {"model": EvalStatus}, **error_responses(404)})
async def status(job: EvalJobOf, services: ServicesOf) -> Json:
    return Json(documents.status(services.store, job))


@router.get(
    "/api/eval/jobs/{job_id}/results", responses={200: {"model": EvalResults}, **error_responses(404)}
)
async def results(job: EvalJobOf, services: ServicesOf) -> Json:
    return Json(documents.results(services.store, job))


@router.get("/eval/jobs/{job_id}/events", include_in_schema=False)
@router.get("/api/eval/jobs/{job_id}/events", responses=EVENTS)
async def events(job: EvalJobOf, services: ServicesOf, since_seq: SinceSeq = 0, limit: Limit = 5000) -> Json:
    return event_page(services, job, since_seq, limit)


@router.get("/eval/jobs/{job_id}/events/stream", include_in_schema=False)
@router.get("/api/eval/jobs/{job_id}/events/stream", responses=STREAM)
async def stream(job: EvalJobOf, services: ServicesOf, since_seq: Cursor = None) -> StreamingResponse:
    return event_stream(services, job, since_seq)


@router.get(
    "/api/eval/jobs/{job_id}/traces",
    response_class=Response,
    responses={
        200: {"content": {"application/zip": {}}, "description": "one JSON file for each rollout"},
        **error_responses(404),
    },
)
async def traces(job: EvalJobOf, services: ServicesOf) -> Response:
    content = await asyncio.to_thread(pack, services.store.jobs.traces(job.number))
    headers = {"Content-Disposition": f'attachment; filename="{job.id}.zip"'}
    return Response(content, media_type="application/zip", headers=headers)


@router.post("/api/eval/jobs/{job_id}/cancel", responses=CANCEL)
async def cancel(job: EvalJobOf, services: ServicesOf, body: CancelRequest | None = None) -> Json:
    return cancellation(job, await services.evals.cancel(job))


def _refuse(body: EvalSubmit, *, is_local: bool) -> None:
    """Refuse what the model alone cannot see.

    Raises:
        Refused: Naming the field.
    """
    if body.task_app_api_key is not None and not is_header_text(body.task_app_api_key):
        raise Refused("task_app_api_key", "is empty, or holds characters that a header cannot carry")
    if body.verifier_config is not None and not asks_for_task_app_rewards(body.verifier_config):
        raise Refused(
            "verifier_config", "is not supported by the embedded backend: rewards come from the task app"
        )
    if len(body.seeds) > MAX_ROLLOUTS:
        raise Refused("seeds", f"are {len(body.seeds)}; a job may have {MAX_ROLLOUTS} rollouts")
    if body.extensions is None:
        return
    if not is_local:
        raise Refused("extensions", "are taken from the backend's own local key only")
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
