"""`/health` and `/api/health`: no key needed."""

from __future__ import annotations

from importlib.metadata import version

from fastapi import APIRouter

from pytest_synth.backend.routes.answers import Json
from pytest_synth.backend.routes.models import Health

router = APIRouter(tags=["health"])


@router.get("/health", responses={200: {"model": Health}})
@router.get("/api/health", responses={200: {"model": Health}})
async def health() -> Json:
    return Json({"status": "ok", "service": "pytest-synth", "version": version("pytest-synth")})
