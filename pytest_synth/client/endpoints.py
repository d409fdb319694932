"""The routes of the HTTP API, each as one flow."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from pytest_synth.client.answers import object_of
from pytest_synth.client.exchange import exchange
from pytest_synth.client.flows import Flow, Json
from pytest_synth.errors import ConfigError, UnexpectedAnswer


def health() -> Flow[Json]:
    """Ask whether the backend is up; needs no key."""
    return object_of((yield from exchange("GET", "/api/health", authenticated=False)))


def submit_eval(body: Mapping[str, Any]) -> Flow[str]:
    """Submit an eval job and return its id. Never tried twice: a second one would cost again."""
    answer = yield from exchange("POST", "/api/eval/jobs", body=body)
    job_id = object_of(answer).get("job_id")
    if not isinstance(job_id, str) or not job_id:
        raise UnexpectedAnswer(f"POST {answer.url} answered without a job_id")
    return job_id


def eval_status(job_id: str, *, timeout_s: float | None = None, retry: bool = True) -> Flow[Json]:
    path = f"/api/eval/jobs/{segment(job_id)}"
    return object_of((yield from exchange("GET", path, timeout_s=timeout_s, safe=retry)))


def eval_results(job_id: str) -> Flow[Json]:
    return object_of((yield from exchange("GET", f"/api/eval/jobs/{segment(job_id)}/results")))


def cancel_eval(job_id: str, reason: str | None = None) -> Flow[Json]:
    """Cancel an eval job; cancelling again is no error, so it is safe to try twice."""
    body = {} if reason is None else {"reason": reason}
    path = f"/api/eval/jobs/{segment(job_id)}/cancel"
    return object_of((yield from exchange("POST", path, body=body, safe=True)))


def segment(job_id: str) -> str:
    """Quote a job id for a path."""
    if not job_id:
        raise ConfigError("the job id is empty")
    return quote(job_id, safe="")
