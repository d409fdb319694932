"""Prompt-learning jobs, under both published prefixes and the read paths of later clients."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Depends, HTTPException
from starlette.responses import StreamingResponse

from pytest_synth.backend.jobs import documents, prompt_documents
from pytest_synth.backend.jobs.optimizers import FieldsRefused
from pytest_synth.backend.routes.answers import Json, Refused, error_responses
from pytest_synth.backend.routes.jobs import (
    CANCEL,
    EVENTS,
    STREAM,
    Cursor,
    Limit,
    SinceSeq,
    any_job,
    cancellation,
    event_page,
    event_stream,
)
from pytest_synth.backend.routes.models import (
    CancelRequest,
    JobCreated,
    Metrics,
    PromptResults,
    PromptStatus,
    PromptSubmit,
)
from pytest_synth.backend.routes.services import AUTHENTICATED, KeyedRoute, ServicesOf, TenantOf
from pytest_synth.backend.store import JobRecord
from pytest_synth.backend.store.uploads import is_header_text
from pytest_synth.contracts.evals import MAX_DEPTH

PREFIXES = ("/api/prompt-learning/online/jobs", "/api/policy-optimization/online/jobs")
READ_PREFIXES = ("/api/v1/offline/jobs", "/api/v2/offline/jobs", "/v1/offline/jobs", "/v2/offline/jobs")
"""Where later generations of the published client read the same documents; they cannot submit there."""

_SECTIONS = ("prompt_learning", "policy_optimization")

router = APIRouter(
    route_class=KeyedRoute,
    tags=["prompt-learning jobs"],
    dependencies=AUTHENTICATED,
    responses=error_responses(401),
)


def prompt_job(job_id: str, services: ServicesOf, tenant: TenantOf) -> JobRecord:
    """Find the tenant's job; another tenant's is as unknown as one that never was."""
    job = services.store.jobs.find(tenant, job_id, "prompt_learning")
    if job is None:
        raise HTTPException(404, f"no prompt-learning job {job_id!r}")
    return job


PromptJobOf = Annotated[JobRecord, Depends(prompt_job)]
AnyJobOf = Annotated[JobRecord, Depends(any_job)]


async def submit(body: PromptSubmit, services: ServicesOf, tenant: TenantOf) -> Json:
    section = read_section(body)
    if not body.auto_start:
        raise Refused("auto_start", "is false, but a job starts at once here; leave it out")
    try:
        job = services.prompts.submit(tenant, section, body.metadata or {})
    except FieldsRefused as error:
        raise Refused.all(error.problems) from error
    return Json({"job_id": job.id, "id": job.id, "status": job.status.value}, status_code=201)


async def status(job: PromptJobOf) -> Json:
    return Json(prompt_documents.status(job))


async def results(job: PromptJobOf) -> Json:
    return Json(prompt_documents.results(job))


async def events(
    job: PromptJobOf, services: ServicesOf, since_seq: SinceSeq = 0, limit: Limit = 5000
) -> Json:
    return event_page(services, job, since_seq, limit)


async def stream(job: PromptJobOf, services: ServicesOf, since_seq: Cursor = None) -> StreamingResponse:
    return event_stream(services, job, since_seq)


async def metrics(job: PromptJobOf) -> Json:
    """Published clients ask after every event of a stream; the events hold all there is."""
    return Json({"points": []})


async def cancel(job: PromptJobOf, services: ServicesOf, body: CancelRequest | None = None) -> Json:
    return cancellation(job, await services.prompts.cancel(job))


@router.get("/api/jobs/{job_id}", include_in_schema=False)
async def any_status(job: AnyJobOf, services: ServicesOf) -> Json:
    """The status of a job of either kind."""
    if job.kind == "eval":
        return Json(documents.status(services.store, job))
    return Json(prompt_documents.status(job))


@router.post("/api/jobs/{job_id}/cancel", include_in_schema=False)
async def any_cancel(job: AnyJobOf, services: ServicesOf, body: CancelRequest | None = None) -> Json:
    jobs = services.evals if job.kind == "eval" else services.prompts
    return cancellation(job, await jobs.cancel(job))


_STATUS = {200: {"model": PromptStatus}, **error_responses(404)}
_RESULTS = {200: {"model": PromptResults}, **error_responses(404)}
_METRICS = {200: {"model": Metrics}, **error_responses(404)}

for prefix in PREFIXES:
    router.add_api_route(
        prefix,
        submit,
        methods=["POST"],
        status_code=201,
        responses={201: {"model": JobCreated}, **error_responses(400, 422)},
    )
for prefix in (*PREFIXES, *READ_PREFIXES):
    job_path, shown = prefix + "/{job_id}", prefix in PREFIXES
    router.add_api_route(job_path, status, responses=_STATUS, include_in_schema=shown)
    router.add_api_route(job_path + "/results", results, responses=_RESULTS, include_in_schema=shown)
    router.add_api_route(job_path + "/events", events, responses=EVENTS, include_in_schema=shown)
    router.add_api_route(job_path + "/events/stream", stream, responses=STREAM, include_in_schema=shown)
    router.add_api_route(job_path + "/metrics", metrics, responses=_METRICS, include_in_schema=shown)
    router.add_api_route(
        job_path + "/cancel", cancel, methods=["POST"], responses=CANCEL, include_in_schema=shown
    )


def read_section(body: PromptSubmit) -> dict[str, Any]:
    """Find the config in a submit body, whole or bare, and apply its overrides.

    Raises:
        Refused: If there is none, or it cannot be read.
    """
    root = body.model_dump() if body.config_body is None else body.config_body
    name = next((name for name in _SECTIONS if root.get(name) is not None), None)
    if name is None:
        raise Refused("prompt_learning", "is missing; the job's config stands in it")
    if not isinstance(root[name], Mapping):
        raise Refused(f"config_body.{name}", "is not an object")
    section = dict(root[name])
    for path, value in (body.overrides or {}).items():
        steps = path.removeprefix(f"{name}.").split(".")
        if len(steps) > MAX_DEPTH:
            raise Refused("overrides", f"has a path of {len(steps)} steps; at most {MAX_DEPTH} are read")
        _override(section, steps, value, path)
    if body.algorithm is not None and section.setdefault("algorithm", body.algorithm) != body.algorithm:
        raise Refused("algorithm", f"is {body.algorithm!r}, but {name}.algorithm is another")
    key = section.get("task_app_api_key")
    if key is not None and not (isinstance(key, str) and is_header_text(key)):
        raise Refused(f"{name}.task_app_api_key", "is empty, or no text that a header can carry")
    return section


def _override(section: dict[str, Any], path: list[str], value: object, shown: str) -> None:
    name, rest = path[0], path[1:]
    if not rest:
        section[name] = value
        return
    inner = section.get(name)
    if inner is not None and not isinstance(inner, Mapping):
        raise Refused("overrides", f"has {shown!r}, but {name!r} is no section")
    section[name] = dict(inner or {})
    _override(section[name], rest, value, shown)
