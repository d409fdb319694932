"""The OpenAPI document is true: it names what is served, and documents are as it says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest
from fakes.backend_api import Api
from fakes.label_app import LabelApp
from fakes.rollout_app import RolloutApp

from pytest_synth._serving import bind_loopback
from pytest_synth.backend.routes import models
from pytest_synth.backend.routes.answers import FieldErrors

Serve = Callable[[RolloutApp], str]


@pytest.fixture(scope="module")
def document(api: Api) -> dict[str, Any]:
    answer = httpx.get(api.backend.url + "/openapi.json")
    found: dict[str, Any] = answer.json()
    return found


def dead_url() -> str:
    with bind_loopback() as sock:
        return f"http://127.0.0.1:{sock.getsockname()[1]}"


def test_no_page_of_the_backend_loads_anything_from_the_network(api: Api) -> None:
    for path in ("/docs", "/redoc"):
        assert httpx.get(api.backend.url + path).status_code == 404


def test_every_operation_with_a_key_says_so_and_describes_its_refusal(document: dict[str, Any]) -> None:
    public = {"/health", "/api/health", "/api/demo/keys"}
    for path, operations in document["paths"].items():
        for operation in operations.values():
            assert ("security" in operation) == (path not in public), path
            assert ("401" in operation["responses"]) == (path not in public), path
            assert ("404" in operation["responses"]) == ("{job_id}" in path), path


def test_refusals_are_described_as_they_are_sent(api: Api, document: dict[str, Any]) -> None:
    schema = document["paths"]["/api/eval/jobs"]["post"]["responses"]["422"]["content"]
    assert schema["application/json"]["schema"] == {"$ref": "#/components/schemas/FieldErrors"}
    for body in ({}, {"task_app_url": "http://x", "seeds": [1], "verifier_config": {"x": 1}}):
        answer = api.http.post("/api/eval/jobs", json=body)
        FieldErrors.model_validate_json(answer.text, strict=True)


@pytest.mark.parametrize("state", ["completed", "failed"])
def test_eval_documents_are_as_described(api: Api, serve: Serve, state: str) -> None:
    job_id = api.submit(serve(RolloutApp()) if state == "completed" else dead_url())
    api.wait(job_id)
    url = f"/api/eval/jobs/{job_id}"
    assert models.EvalStatus.model_validate_json(api.http.get(url).text, strict=True).status == state
    assert models.EvalResults.model_validate_json(api.http.get(url + "/results").text, strict=True).results
    assert models.EventPage.model_validate_json(api.http.get(url + "/events").text, strict=True).next_seq
    models.WorkflowState.model_validate_json(
        api.http.get(f"/api/jobs/{job_id}/workflow-state").text, strict=True
    )
    models.Cancelled.model_validate_json(api.http.post(url + "/cancel").text, strict=True)


@pytest.mark.parametrize("state", ["succeeded", "failed"])
def test_prompt_learning_documents_are_as_described(api: Api, serve: Serve, state: str) -> None:
    job_id = api.submit_search(serve(LabelApp()) if state == "succeeded" else dead_url())
    api.wait_search(job_id)
    url = f"/api/policy-optimization/online/jobs/{job_id}"
    assert models.PromptStatus.model_validate_json(api.http.get(url).text, strict=True).status == state
    models.PromptResults.model_validate_json(api.http.get(url + "/results").text, strict=True)
    assert models.EventPage.model_validate_json(api.http.get(url + "/events").text, strict=True).events
    models.Metrics.model_validate_json(api.http.get(url + "/metrics").text, strict=True)
    models.WorkflowState.model_validate_json(
        api.http.get(f"/api/jobs/{job_id}/workflow-state").text, strict=True
    )


def test_key_documents_are_as_described(api: Api) -> None:
    models.DemoKey.model_validate_json(api.http.post("/api/demo/keys").text, strict=True)
    models.PublicKey.model_validate_json(api.http.get("/api/v1/crypto/public-key").text, strict=True)
    models.FileList.model_validate_json(api.http.get("/api/files").text, strict=True)
    models.Health.model_validate_json(api.http.get("/health").text, strict=True)
