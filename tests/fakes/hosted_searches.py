"""The hosted service with searches, of which it tells as much as the published API has words for."""

from __future__ import annotations

from typing import Any

import httpx
from fakes.hosted_evals import HostedEvals
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

JOBS = ("/api/policy-optimization/online/jobs", "/api/prompt-learning/online/jobs")
PREFIX = "learning.policy.gepa."


class HostedSearches(HostedEvals):
    """A search runs the task app once on each validation seed, and finds `best`.

    Attributes:
        best: System message of the best prompt.
        searches: What was submitted, by id.
    """

    def __init__(self, best: str) -> None:
        super().__init__()
        self.best = best
        self.searches: dict[str, dict[str, Any]] = {}
        self.ran: list[str] = []
        for jobs in JOBS:
            self.app.router.routes += [
                Route(jobs, self._search, methods=["POST"]),
                Route(f"{jobs}/{{id}}", self._search_status),
                Route(f"{jobs}/{{id}}/events", self._search_events),
            ]

    async def _search(self, request: Request) -> Response:
        if refused := self._refused(request):
            return refused
        section = (await request.json())["config_body"]["prompt_learning"]
        evaluation = section["gepa"]["evaluation"]
        self.searches[job_id := f"pl_{len(self.searches)}"] = section
        async with httpx.AsyncClient(verify=self._tls, trust_env=False) as http:
            for seed in evaluation["validation_seeds"]:
                body = {
                    "trace_correlation_id": f"trace_{seed}",
                    "env": {"seed": seed, "config": section["env_config"]},
                    "policy": {
                        "config": {
                            **section["policy"],
                            "inference_url": f"{self.base_url}/api/interceptor/v1/search/trace_{seed}",
                        }
                    },
                }
                headers = {"X-API-Key": self.uploads[-1]}
                answer = await http.post(f"{section['task_app_url']}/rollout", headers=headers, json=body)
                self.ran.append(f"{seed}: {answer.status_code}")
        return JSONResponse({"job_id": job_id, "status": "queued"})

    async def _search_status(self, request: Request) -> Response:
        document = {"job_id": request.path_params["id"], "status": "succeeded", "best_score": 0.9}
        return self._refused(request) or JSONResponse(document)

    async def _search_events(self, request: Request) -> Response:
        best = {"messages": [{"role": "system", "pattern": self.best, "order": 0}]}
        told: list[tuple[str, dict[str, Any]]] = [
            (
                "candidate.evaluated",
                {"version_id": "v1", "parent_id": "v0", "outcome_reward": 0.9, "pattern": best},
            ),
            ("candidate.new_best", {"best_prompt": best, "outcome_reward": 0.9}),
            ("job.completed", {"total_rollouts": 31, "validation": [{"rank": 1, "outcome_reward": 0.8}]}),
        ]
        after = int(request.query_params.get("since_seq", 0))
        events = [
            {"seq": seq, "type": PREFIX + kind, "data": data}
            for seq, (kind, data) in enumerate(told, 1)
            if seq > after
        ]
        return self._refused(request) or JSONResponse({"events": events})
