"""The routes of the HTTP API, each as one flow."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from pytest_synth.client.answers import json_of, object_of
from pytest_synth.client.exchange import exchange
from pytest_synth.client.flows import Flow, Json
from pytest_synth.client.sealing import ALGORITHM, sealer
from pytest_synth.errors import ApiError, AuthenticationError, ConfigError, UnexpectedAnswer

PAGE = 5000  # events asked for at once; the backend may give fewer
TRACES_TIMEOUT_S = 60.0
LONGEST_KEY_BYTES = 8 * 1024


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


def eval_traces(job_id: str) -> Flow[bytes]:
    """Read the traces of an eval job: a zip archive with a JSON file for each seed."""
    path = f"/api/eval/jobs/{segment(job_id)}/traces"
    return (yield from exchange("GET", path, timeout_s=TRACES_TIMEOUT_S)).content


def eval_events(job_id: str, since_seq: int = 0, limit: int = PAGE) -> Flow[list[Json]]:
    return (yield from events(f"/api/eval/jobs/{segment(job_id)}/events", since_seq, limit))


def submit_prompt_job(body: Mapping[str, Any]) -> Flow[str]:
    """Submit a prompt-learning job and return its id. Never tried twice: a second one would cost again."""
    answer = yield from exchange("POST", "/api/policy-optimization/online/jobs", body=body, timeout_s=60.0)
    document = object_of(answer)
    job_id = document.get("job_id") or document.get("id")
    if not isinstance(job_id, str) or not job_id:
        raise UnexpectedAnswer(f"POST {answer.url} answered without a job_id")
    return job_id


def prompt_job(job_id: str) -> Flow[Json]:
    """Read the status document of a prompt-learning job."""
    path = f"/api/prompt-learning/online/jobs/{prompt_segment(job_id)}"
    return object_of((yield from exchange("GET", path)))


def prompt_events(job_id: str, since_seq: int = 0, limit: int = PAGE) -> Flow[list[Json]]:
    path = f"/api/prompt-learning/online/jobs/{prompt_segment(job_id)}/events"
    return (yield from events(path, since_seq, limit))


def all_prompt_events(job_id: str) -> Flow[list[Json]]:
    return (yield from events_after(f"/api/prompt-learning/online/jobs/{prompt_segment(job_id)}/events", 0))


def cancel_prompt_job(job_id: str, reason: str | None = None) -> Flow[Json]:
    """Cancel a prompt-learning job; cancelling again is no error, so it is safe to try twice."""
    body = {} if reason is None else {"reason": reason}
    path = f"/api/policy-optimization/online/jobs/{prompt_segment(job_id)}/cancel"
    return object_of((yield from exchange("POST", path, body=body, safe=True)))


def workflow_state(job_id: str) -> Flow[Json]:
    """Ask for the state of a job's workflow, of either kind.

    A backend that cannot say is no error: then `workflow_state` is None and `error` says why.

    Raises:
        AuthenticationError: If the key is not accepted.
    """
    try:
        return object_of(
            (yield from exchange("GET", f"/api/jobs/{segment(job_id)}/workflow-state", timeout_s=10.0))
        )
    except AuthenticationError:
        raise
    except ApiError as error:
        return {
            "job_id": job_id,
            "workflow_state": None,
            "error": f"HTTP {error.status_code}: {error.detail}",
        }


def files(limit: int = 20, purpose: str | None = None, after: str | None = None) -> Flow[Json]:
    """List uploaded files: `{"object": "list", "data": [...], "has_more": ...}`."""
    params: dict[str, str | int] = {"limit": limit}
    if purpose is not None:
        params["purpose"] = purpose
    if after is not None:
        params["after"] = after
    return object_of((yield from exchange("GET", "/api/files", params=params)))


def mint_demo_key(ttl_hours: int = 4) -> Flow[str]:
    """Let the backend make an API key that expires; needs no key."""
    body = {"ttl_hours": ttl_hours}
    answer = yield from exchange("POST", "/api/demo/keys", body=body, authenticated=False)
    key = object_of(answer).get("api_key")
    if not isinstance(key, str) or not key:
        raise UnexpectedAnswer(f"POST {answer.url} answered without an api_key")
    return key


def upload_environment_key(key: str) -> Flow[Json]:
    """Upload the key that the task app expects, sealed; doing it again does no harm."""
    if not 0 < len(key.encode()) <= LONGEST_KEY_BYTES:
        raise ConfigError(
            f"the key to upload has {len(key.encode())} bytes; allowed are 1 to {LONGEST_KEY_BYTES}"
        )
    seal = sealer()
    document = object_of((yield from exchange("GET", "/api/v1/crypto/public-key")))
    algorithm = document.get("alg")
    if algorithm not in (None, ALGORITHM):
        raise UnexpectedAnswer(f"the backend wants keys sealed by {algorithm!r}; known: {ALGORITHM}")
    body = {"name": "ENVIRONMENT_API_KEY", "ciphertext_b64": seal(document.get("public_key"), key)}
    stored = object_of((yield from exchange("POST", "/api/v1/env-keys", body=body, safe=True)))
    return {"stored": True, **{name: stored.get(name) for name in ("id", "name", "updated_at")}}


def events(path: str, since_seq: int, limit: int) -> Flow[list[Json]]:
    """Read one page of a job's events, those after `since_seq`."""
    answer = yield from exchange("GET", path, params={"since_seq": since_seq, "limit": limit})
    document = json_of(answer)
    page = document.get("events") if isinstance(document, Mapping) else document
    if not isinstance(page, list) or not all(isinstance(event, dict) for event in page):
        raise UnexpectedAnswer(f"GET {answer.url} answered without a list of events")
    return page


def events_after(path: str, since_seq: int) -> Flow[list[Json]]:
    """Read all of a job's events after `since_seq`, page by page, in order."""
    found: list[Json] = []
    while True:
        page = yield from events(path, since_seq, PAGE)
        numbers = [event["seq"] for event in page if isinstance(event.get("seq"), int)]
        new = [event for event in page if not isinstance(event.get("seq"), int) or event["seq"] > since_seq]
        found += sorted(new, key=lambda event: event["seq"]) if len(numbers) == len(page) else new
        if max(numbers, default=0) <= since_seq:  # the end, or a backend that does not know since_seq
            return found
        since_seq = max(numbers)


def prompt_segment(job_id: str) -> str:
    """Quote the id of a prompt-learning job for a path.

    Raises:
        ConfigError: If it does not start with `pl_`, as all of them do.
    """
    if not job_id.startswith("pl_"):
        raise ConfigError(f"{job_id!r} is no id of a prompt-learning job; those start with 'pl_'")
    return segment(job_id)


def segment(job_id: str) -> str:
    """Quote a job id for a path."""
    if not job_id:
        raise ConfigError("the job id is empty")
    return quote(job_id, safe="")
