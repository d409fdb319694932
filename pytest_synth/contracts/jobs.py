"""Job states, events and listing documents that eval and prompt-learning jobs share."""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class JobStatus(StrEnum):
    """State of a job. `succeeded` is the word of prompt-learning jobs for `completed`."""

    PENDING = "pending"
    QUEUED = "queued"
    RUNNING = "running"
    COMPLETED = "completed"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_terminal(self) -> bool:
        return self in _TERMINAL

    @property
    def is_success(self) -> bool:
        return self in (JobStatus.COMPLETED, JobStatus.SUCCEEDED)


_TERMINAL = frozenset(
    {JobStatus.COMPLETED, JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELLED},
)
_SYNONYMS = {
    "success": JobStatus.SUCCEEDED,
    "complete": JobStatus.COMPLETED,
    "canceled": JobStatus.CANCELLED,
    "cancel": JobStatus.CANCELLED,
    "failure": JobStatus.FAILED,
    "error": JobStatus.FAILED,
    "in_progress": JobStatus.RUNNING,
}


def parse_status(text: object) -> JobStatus:
    """Read a status word of either job family; case, spaces and known synonyms do not matter.

    Raises:
        ValueError: If the word is none that is known; it names the word.
    """
    word = str(text).strip().lower().replace(" ", "_")
    if word in _SYNONYMS:
        return _SYNONYMS[word]
    return JobStatus(word)


class Event(BaseModel):
    """One entry of a job's event list. `seq` starts at 1 and rises strictly within a job."""

    model_config = ConfigDict(extra="allow")

    seq: int
    type: str
    data: dict[str, Any] = Field(default_factory=dict)
    message: str = ""
    level: Literal["info", "warn", "error"] = "info"
    job_id: str = ""
    created_at: str = ""
