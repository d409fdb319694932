"""Documents that the API answers with, for its OpenAPI description."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from pytest_synth.contracts.evals import EvalRow, JsonObject, WholeNumber
from pytest_synth.contracts.jobs import Event

EvalState = Literal["pending", "running", "completed", "failed", "cancelled"]


class Health(BaseModel):
    """`service` tells this backend from others of the API; `extensions`: the key sent may use them."""

    status: Literal["ok"]
    service: str
    version: str
    extensions: bool


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


class DemoKeyRequest(BaseModel):
    ttl_hours: WholeNumber = Field(default=4, ge=1, le=24 * 30)


class DemoKey(BaseModel):
    api_key: str
    ttl_hours: int
    expires_at: str


class PublicKey(BaseModel):
    """`public_key` is the base64 of the 32 bytes of an X25519 key."""

    public_key: str
    alg: str


class EnvKeyUpload(BaseModel):
    name: str = Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,127}$")
    ciphertext_b64: str = Field(min_length=1)


class EnvKeyStored(BaseModel):
    id: str
    name: str
    updated_at: str


class FileList(BaseModel):
    object: Literal["list"]
    data: list[dict[str, Any]]
    has_more: bool


class WorkflowState(BaseModel):
    job_id: str
    workflow_state: dict[str, Any] | None
    query_name: str
    error: str | None


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


class CassetteOutcome(BaseModel):
    """What became of the job's cassette: entries now, used, made, not used, and removed by `rewrite`."""

    name: str
    entries: int
    replayed: int
    recorded: int
    unused: int
    dropped: int


class EvalResults(BaseModel):
    job_id: str
    status: EvalState
    error: str | None
    summary: EvalSummary
    mean_reward: float | None
    total_tokens: int
    total_cost_usd: float | None
    results: list[EvalRow]
    cassette: CassetteOutcome | None = None


class EventPage(BaseModel):
    """Events after `since_seq`; ask again with `next_seq` for what comes after these."""

    events: list[Event]
    next_seq: int = Field(ge=0)


class PromptSubmit(BaseModel):
    """A job's config: the section `prompt_learning` (or `policy_optimization`), bare or in `config_body`.

    `overrides` are values by dotted path into the section.
    """

    model_config = ConfigDict(extra="ignore")

    algorithm: str | None = None
    config_body: JsonObject | None = None
    prompt_learning: JsonObject | None = None
    policy_optimization: JsonObject | None = None
    overrides: JsonObject | None = None
    metadata: JsonObject | None = None
    auto_start: bool = Field(default=True, strict=True)


PromptState = Literal["pending", "running", "succeeded", "failed", "cancelled"]


class PromptStatus(BaseModel):
    """`best_score` and `best_reward` are the same number: the search's own, so a flattering one."""

    model_config = ConfigDict(extra="allow")

    job_id: str
    id: str
    kind: Literal["prompt_learning"]
    algorithm: str | None
    status: PromptState
    created_at: str
    started_at: str | None
    completed_at: str | None
    error: str | None
    best_score: float | None
    best_reward: float | None
    best_prompt: dict[str, Any] | None
    best_candidate: dict[str, Any] | None
    baseline_score: float | None
    plan: dict[str, Any] | None
    not_applied: list[str]
    finish_reason: str | None


class PromptResults(BaseModel):
    model_config = ConfigDict(extra="allow")

    job_id: str
    status: PromptState
    error: str | None
    best_reward: float | None
    best_prompt: dict[str, Any] | None
    validation: list[dict[str, Any]]
    history: list[dict[str, Any]]


class Metrics(BaseModel):
    points: list[dict[str, Any]]
