"""A running backend as tests see it: over HTTP, with its local key."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httpx

from pytest_synth.backend import RunningBackend

ENDED = ("completed", "failed", "cancelled")
LOCAL_KEY = "local-key-of-the-tests"


@dataclass
class Api:
    """A running backend and a client with its local key."""

    backend: RunningBackend
    http: httpx.Client

    def submit(self, app_url: str, seeds: list[int] | range = range(3), **more: Any) -> str:
        body = {
            "task_app_url": app_url,
            "task_app_api_key": "env-key-1",
            "seeds": list(seeds),
            "policy": {"provider": "offline", "model": "lexical"},
            **more,
        }
        answer = self.http.post("/api/eval/jobs", json=body)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["job_id"])

    def submit_search(self, app_url: str, **more: Any) -> str:
        """Submit a small prompt-learning job; `more` is merged into its section."""
        answer = self.http.post("/api/prompt-learning/online/jobs", json=search_body(app_url, **more))
        assert answer.status_code == 201, answer.text
        return str(answer.json()["job_id"])

    def search(self, job_id: str) -> dict[str, Any]:
        answer = self.http.get(f"/api/prompt-learning/online/jobs/{job_id}")
        assert answer.status_code == 200, answer.text
        document: dict[str, Any] = answer.json()
        return document

    def search_events(self, job_id: str) -> list[dict[str, Any]]:
        answer = self.http.get(f"/api/prompt-learning/online/jobs/{job_id}/events")
        found: list[dict[str, Any]] = answer.json()["events"]
        return found

    def wait_search(self, job_id: str) -> dict[str, Any]:
        """Poll until the job has ended; returns its status."""
        wait_until(lambda: self.search(job_id)["completed_at"] is not None)
        return self.search(job_id)

    def status(self, job_id: str) -> dict[str, Any]:
        answer = self.http.get(f"/api/eval/jobs/{job_id}")
        assert answer.status_code == 200, answer.text
        document: dict[str, Any] = answer.json()
        return document

    def results(self, job_id: str) -> dict[str, Any]:
        document: dict[str, Any] = self.http.get(f"/api/eval/jobs/{job_id}/results").json()
        return document

    def events(self, job_id: str, **params: int) -> list[dict[str, Any]]:
        answer = self.http.get(f"/api/eval/jobs/{job_id}/events", params=params)
        found: list[dict[str, Any]] = answer.json()["events"]
        return found

    def wait(self, job_id: str, timeout_s: float = 20.0) -> dict[str, Any]:
        """Poll until the job has ended; returns its results."""
        wait_until(lambda: self.status(job_id)["status"] in ENDED, timeout_s)
        return self.results(job_id)

    def run(self, app_url: str, seeds: list[int] | range = range(3), **more: Any) -> dict[str, Any]:
        return self.wait(self.submit(app_url, seeds, **more))


def search_body(app_url: str, **more: Any) -> dict[str, Any]:
    """A prompt-learning job of some 40 rollouts, on the offline models."""
    section: dict[str, Any] = {
        "algorithm": "gepa",
        "task_app_url": app_url,
        "task_app_api_key": "env-key-1",
        "env_name": "toy",
        "env_config": {"split": "train"},
        "initial_prompt": {"messages": [{"role": "system", "pattern": "Pick one label.\n- card\n- refund"}]},
        "policy": {"provider": "offline", "model": "lexical", "inference_mode": "synth_hosted"},
        "gepa": {
            "evaluation": {"seeds": list(range(20)), "validation_seeds": list(range(20, 26))},
            "rollout": {"budget": 60, "max_concurrent": 8, "minibatch_size": 3},
            "population": {"initial_size": 2, "num_generations": 2, "children_per_generation": 2},
            "archive": {"pareto_set_size": 10},
        },
    }
    return {"prompt_learning": {**section, **more}}


def wait_until(condition: Callable[[], bool], timeout_s: float = 20.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "what was waited for did not happen"
        time.sleep(0.005)
