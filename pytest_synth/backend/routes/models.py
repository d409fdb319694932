"""Documents that the API answers with, for its OpenAPI description."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field

from pytest_synth.contracts.evals import EvalRow
from pytest_synth.contracts.jobs import Event

EvalState = Literal["pending", "running", "completed", "failed", "cancelled"]


class Health(BaseModel):
    status: Literal["ok"]
    service: str
    version: str


class JobCreated(BaseModel):
    job_id: str
    status: str


class CancelRequest(BaseModel):
    reason: str | None = None


class Cancelled(BaseModel):
    """`status` is the state of the cancellation, not of the job."""

    job_id: str
    status: Literal["succeeded", "partial", "failed"]
    message: str
    attempt_id: str


class EvalProgress(BaseModel):
    completed: int
    total: int
    mean_reward: float | None
    total_tokens: int
    total_cost_usd: float | None
    num_seeds: int
    num_successful: int
    num_failed: int
    items: list[EvalRow] | None = None


class EvalStatus(BaseModel):
    job_id: str
    status: EvalState
    created_at: str
    started_at: str | None
    completed_at: str | None
    error: str | None
    config: dict[str, Any]
    mean_reward: float | None
    results: EvalProgress


class EvalSummary(BaseModel):
    mean_reward: float | None
    total_tokens: int
    total_cost_usd: float | None
    num_seeds: int
    num_successful: int
    num_failed: int


class EvalResults(BaseModel):
    job_id: str
    status: EvalState
    error: str | None
    summary: EvalSummary
    mean_reward: float | None
    total_tokens: int
    total_cost_usd: float | None
    results: list[EvalRow]


class EventPage(BaseModel):
    """Events after `since_seq`; ask again with `next_seq` for what comes after these."""

    events: list[Event]
    next_seq: int = Field(ge=0)
