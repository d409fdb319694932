"""A small stand-in for the hosted service: keys, files, eval jobs and scripted prompt-learning jobs.

It opens the sealed environment key and runs real rollouts at the task app with it, one after the other,
at each look at a job's status.
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import httpx
from nacl.public import PrivateKey, SealedBox
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

GEPA = "learning.policy.gepa."
BEST = {
    "messages": [
        {"role": "system", "pattern": "A better system prompt", "order": 0},
        {"role": "user", "pattern": "Customer Query: {query}", "order": 1},
    ]
}


@dataclass
class Job:
    body: dict[str, Any]
    rows: list[dict[str, Any]] = field(default_factory=list)


class HostedService:
    """The service; `app` is what is served.

    Attributes:
        jobs: Submitted jobs by id.
        environment_key: What was uploaded, opened; None before that.
    """

    def __init__(self) -> None:
        self.jobs: dict[str, Job] = {}
        self.environment_key: str | None = None
        self._demo_keys: set[str] = set()
        self._private = PrivateKey.generate()
        jobs, online = "/api/eval/jobs", "/api/{kind}/online/jobs"
        self.app = Starlette(
            routes=[
                Route("/api/health", self._health),
                Route("/api/demo/keys", self._demo_key, methods=["POST"]),
                Route("/api/v1/crypto/public-key", self._public_key),
                Route("/api/v1/env-keys", self._env_key, methods=["POST"]),
                Route("/api/files", self._files),
                Route(jobs, self._submit_eval, methods=["POST"]),
                Route(f"{jobs}/{{id}}", self._eval_status),
                Route(f"{jobs}/{{id}}/results", self._eval_results),
                Route(online, self._submit_prompt_job, methods=["POST"]),
                Route(f"{online}/{{id}}", self._prompt_status),
                Route(f"{online}/{{id}}/events", self._prompt_events),
            ]
        )

    def _is_known(self, request: Request) -> bool:
        given = request.headers.get("authorization", "").removeprefix("Bearer ")
        return given in self._demo_keys

    async def _health(self, request: Request) -> JSONResponse:
        return JSONResponse({"status": "ok"})

    async def _demo_key(self, request: Request) -> JSONResponse:
        key = f"sk_demo_{uuid4().hex}"
        self._demo_keys.add(key)
        return JSONResponse({"api_key": key})

    async def _public_key(self, request: Request) -> JSONResponse:
        if not self._is_known(request):
            return JSONResponse({"detail": "unknown key"}, 401)
        return JSONResponse({"public_key": base64.b64encode(bytes(self._private.public_key)).decode()})

    async def _env_key(self, request: Request) -> JSONResponse:
        sealed = base64.b64decode((await request.json())["ciphertext_b64"])
        self.environment_key = SealedBox(self._private).decrypt(sealed).decode()
        return JSONResponse({"id": "1", "name": "ENVIRONMENT_API_KEY"}, 201)

    async def _files(self, request: Request) -> JSONResponse:
        if not self._is_known(request):
            return JSONResponse({"detail": "unknown key"}, 401)
        return JSONResponse({"object": "list", "data": [], "has_more": False})

    async def _submit_eval(self, request: Request) -> JSONResponse:
        job_id = f"eval-{uuid4().hex[:8]}"
        self.jobs[job_id] = Job(await request.json())
        return JSONResponse({"job_id": job_id, "status": "running"}, 201)

    async def _eval_status(self, request: Request) -> JSONResponse:
        job = self.jobs[request.path_params["id"]]
        seeds = job.body["seeds"]
        if len(job.rows) < len(seeds):
            async with httpx.AsyncClient() as http:
                job.rows += [await self._rollout(http, job, seed) for seed in seeds[len(job.rows) :][:20]]
        state = "completed" if len(job.rows) == len(seeds) else "running"
        return JSONResponse({"status": state, "results": {"completed": len(job.rows), "total": len(seeds)}})

    async def _rollout(self, http: httpx.AsyncClient, job: Job, seed: int) -> dict[str, Any]:
        answer = await http.post(
            f"{job.body['task_app_url']}/rollout",
            headers={"X-API-Key": self.environment_key or ""},
            json={
                "trace_correlation_id": f"trace_{seed}",
                "env": {"env_name": job.body["env_name"], "seed": seed, "config": job.body["env_config"]},
                "policy": {"config": job.body["policy"]},
            },
        )
        if answer.status_code != 200:
            return {"seed": seed, "score": None, "error": f"{answer.status_code}: {answer.text}"}
        return {"seed": seed, "score": answer.json()["reward_info"]["outcome_reward"]}

    async def _eval_results(self, request: Request) -> JSONResponse:
        rows = self.jobs[request.path_params["id"]].rows
        scores = [row["score"] for row in rows if row["score"] is not None]
        mean = sum(scores) / len(scores) if scores else None
        return JSONResponse({"status": "completed", "summary": {"mean_reward": mean}, "results": rows})

    async def _submit_prompt_job(self, request: Request) -> JSONResponse:
        if not request.headers.get("x-api-key"):
            return JSONResponse({"detail": "no X-API-Key"}, 401)
        job_id = f"pl_{uuid4().hex[:8]}"
        self.jobs[job_id] = Job(await request.json())
        return JSONResponse({"job_id": job_id}, 201)

    async def _prompt_status(self, request: Request) -> JSONResponse:
        job = self.jobs[request.path_params["id"]]
        job.rows.append({})  # here only the number of looks
        state = "running" if len(job.rows) < 3 else "succeeded"
        return JSONResponse({"status": state, "best_score": 0.4 * len(job.rows)})

    async def _prompt_events(self, request: Request) -> JSONResponse:
        since = int(request.query_params["since_seq"])
        best = {"best_prompt": BEST, "outcome_reward": 0.8125}
        ranked = {"rank": 1, "full_text": "A better system prompt", "train_accuracy": 0.8125}
        kinds = [("candidate.new_best", best), ("candidate.evaluated", ranked), ("job.completed", {})]
        events = [{"seq": n, "type": GEPA + kind, "data": data} for n, (kind, data) in enumerate(kinds, 1)]
        return JSONResponse(json.loads(json.dumps({"events": [e for e in events if e["seq"] > since]})))
