"""`/health` and `/api/health`: no key needed."""

from __future__ import annotations

from importlib.metadata import version

from fastapi import APIRouter, Request

from pytest_synth.backend.routes.answers import Json
from pytest_synth.backend.routes.models import Health
from pytest_synth.backend.routes.services import ServicesOf

router = APIRouter(tags=["health"])


# The documented example joins this path to a base URL that may end in a slash, in `/api` or in `/api/`.
@router.get("//api/health", include_in_schema=False)
@router.get("/api/api/health", include_in_schema=False)
@router.get("/api//api/health", include_in_schema=False)
@router.get("/health", responses={200: {"model": Health}})
@router.get("/api/health", responses={200: {"model": Health}})
async def health(request: Request, services: ServicesOf) -> Json:
    tenants = services.tenants
    return Json(
        {
            "status": "ok",
            "service": "pytest-synth",
            "version": version("pytest-synth"),
            "extensions": tenants.authorize(request.headers) == tenants.local,
        }
    )
