"""Routes that belong to no family: files, workflow state, tunnels."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, HTTPException, Query

from pytest_synth.backend.jobs import documents, prompt_documents
from pytest_synth.backend.routes.answers import Json, error_responses
from pytest_synth.backend.routes.jobs import any_job
from pytest_synth.backend.routes.models import FileList, WorkflowState
from pytest_synth.backend.routes.services import AUTHENTICATED, KeyedRoute, ServicesOf
from pytest_synth.backend.store import JobRecord

router = APIRouter(route_class=KeyedRoute, dependencies=AUTHENTICATED, responses=error_responses(401))


@router.get("/api/files", tags=["files"], responses={200: {"model": FileList}, **error_responses(422)})
async def files(
    limit: Annotated[int, Query(ge=1)] = 20, purpose: str | None = None, after: str | None = None
) -> Json:
    """List uploaded files: there are none, for nothing can be uploaded here."""
    return Json({"object": "list", "data": [], "has_more": False})


@router.get(
    "/api/jobs/{job_id}/workflow-state",
    tags=["jobs"],
    responses={200: {"model": WorkflowState}, **error_responses(404)},
)
async def workflow_state(job: Annotated[JobRecord, Depends(any_job)], services: ServicesOf) -> Json:
    if job.kind == "eval":
        return Json(documents.workflow_state(services.store, job))
    return Json(prompt_documents.workflow_state(job))


@router.api_route(
    "/api/v1/tunnels", methods=["GET", "POST"], include_in_schema=False, responses=error_responses(501)
)
@router.api_route(
    "/api/v1/tunnels/{rest:path}",
    methods=["GET", "POST", "DELETE"],
    include_in_schema=False,
    responses=error_responses(501),
)
async def tunnels(rest: str = "") -> Json:
    raise HTTPException(
        501,
        "the embedded backend has no managed tunnels; it reaches task apps on this machine directly"
        " (tunnel 'localhost')",
    )
