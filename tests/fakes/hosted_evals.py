"""The hosted service as far as evals need it: it knows the published API only, and runs real rollouts.

Unknown fields of a submission are refused, so that an extension of ours would be seen. Rollouts are sent with
the uploaded key alone. Its model answers "yes" if the system message asks for it, else "no".
"""

from __future__ import annotations

import asyncio
import base64
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import httpx
from fakes.cloudflared import CA_FILE
from fakes.model_provider import completion
from nacl.public import PrivateKey, SealedBox
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

API_KEY = "synth-key-of-the-test"
FIELDS = {
    "task_app_url",
    "task_app_api_key",
    "app_id",
    "env_name",
    "seeds",
    "policy",
    "env_config",
    "verifier_config",
    "max_concurrent",
    "timeout",
    "save_trace",
}


@dataclass
class HostedJob:
    """A job: what was submitted, its rows, and whether it was cancelled."""

    body: dict[str, Any]
    rows: list[dict[str, Any]] = field(default_factory=list)
    status: str = "running"
    task: asyncio.Task[None] | None = None


@dataclass(frozen=True)
class Call:
    """A model call as the interceptor got it."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]

    @property
    def system(self) -> str:
        return str(self.body["messages"][0]["content"])


class HostedEvals:
    """The service; `app` is what is served, at `base_url`.

    Attributes:
        jobs: By id, in the order of their submission.
        uploads: Environment keys, opened.
        calls: What the interceptor got.
        answer: The interceptor's answer to a call.
        has_query: The correlation id stands in the query of `inference_url`.
        cancels: Whether it cancels jobs when it is asked to.
    """

    def __init__(self) -> None:
        self.base_url = ""
        self.jobs: dict[str, HostedJob] = {}
        self.uploads: list[str] = []
        self.calls: list[Call] = []
        self.answer: Callable[[Call], Response] = yes_or_no
        self.has_query = False
        self.cancels = True
        self._private = PrivateKey.generate()
        self._tls = ssl.create_default_context(cafile=str(CA_FILE))
        jobs = "/api/eval/jobs"
        self.app = Starlette(
            routes=[
                Route("/api/health", self._health),
                Route("/api/v1/crypto/public-key", self._public_key),
                Route("/api/v1/env-keys", self._env_key, methods=["POST"]),
                Route(jobs, self._submit, methods=["POST"]),
                Route(f"{jobs}/{{id}}", self._status),
                Route(f"{jobs}/{{id}}/results", self._results),
                Route(f"{jobs}/{{id}}/cancel", self._cancel, methods=["POST"]),
                Route("/api/interceptor/v1/{rest:path}", self._intercept, methods=["POST"]),
            ]
        )

    def job(self, number: int = 0) -> HostedJob:
        return list(self.jobs.values())[number]

    def _refused(self, request: Request) -> Response | None:
        if request.headers.get("authorization") == f"Bearer {API_KEY}":
            return None
        return JSONResponse({"detail": "this key is not known"}, 401)

    async def _health(self, request: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def _public_key(self, request: Request) -> Response:
        key = base64.b64encode(bytes(self._private.public_key)).decode()
        return self._refused(request) or JSONResponse({"public_key": key})

    async def _env_key(self, request: Request) -> Response:
        if refused := self._refused(request):
            return refused
        sealed = base64.b64decode((await request.json())["ciphertext_b64"])
        self.uploads.append(SealedBox(self._private).decrypt(sealed).decode())
        return JSONResponse({"id": "1"}, 201)

    async def _submit(self, request: Request) -> Response:
        if refused := self._refused(request):
            return refused
        body = await request.json()
        if unknown := set(body) - FIELDS:
            return JSONResponse({"detail": f"unknown fields: {sorted(unknown)}"}, 422)
        job_id, job = f"eval-{uuid4().hex[:8]}", HostedJob(body)
        self.jobs[job_id] = job
        job.task = asyncio.create_task(self._run(job))
        return JSONResponse({"job_id": job_id, "status": "running"})

    async def _run(self, job: HostedJob) -> None:
        places = asyncio.Semaphore(job.body["max_concurrent"])
        limits = httpx.Timeout(job.body["timeout"])
        async with httpx.AsyncClient(verify=self._tls, trust_env=False, timeout=limits) as http:

            async def one(seed: int) -> None:
                async with places:
                    job.rows.append(await self._rollout(http, job, seed))

            await asyncio.gather(*(one(seed) for seed in job.body["seeds"]))
        job.status = "completed" if any(row["score"] is not None for row in job.rows) else "failed"

    async def _rollout(self, http: httpx.AsyncClient, job: HostedJob, seed: int) -> dict[str, Any]:
        trial, cid = uuid4().hex, f"trace_{uuid4().hex}"
        path = f"{trial}?cid={cid}" if self.has_query else f"{trial}/{cid}"
        url = f"{self.base_url}/api/interceptor/v1/{path}"
        body = {
            "trace_correlation_id": cid,
            "env": {"env_name": job.body["env_name"], "seed": seed, "config": job.body["env_config"]},
            "policy": {"config": {**job.body["policy"], "inference_url": url}},
        }
        row: dict[str, Any] = {"seed": seed, "score": None, "tokens": 150, "cost_usd": 0.002}
        try:
            answer = await http.post(
                f"{job.body['task_app_url']}/rollout", headers={"X-API-Key": self.uploads[-1]}, json=body
            )
        except httpx.HTTPError as error:
            return {**row, "error": f"task app is unreachable: {error}"}
        if answer.status_code != 200:
            return {**row, "error": f"task app answered {answer.status_code}: {answer.text}"}
        return {**row, "score": answer.json()["reward_info"]["outcome_reward"], "error": None}

    async def _status(self, request: Request) -> Response:
        job = self.jobs[request.path_params["id"]]
        total = len(job.body["seeds"])
        document = {"status": job.status, "results": {"completed": len(job.rows), "total": total}}
        return self._refused(request) or JSONResponse(document)

    async def _results(self, request: Request) -> Response:
        job = self.jobs[request.path_params["id"]]
        if job.status != "completed":
            return JSONResponse({"detail": f"the job is {job.status}"}, 400)
        scores = [row["score"] for row in job.rows if row["score"] is not None]
        summary = {"mean_reward": sum(scores) / len(scores), "total_tokens": 150 * len(job.rows)}
        return JSONResponse({"status": job.status, "summary": summary, "results": job.rows})

    async def _cancel(self, request: Request) -> Response:
        if refused := self._refused(request):
            return refused
        if not self.cancels:
            return JSONResponse({"detail": "not now"}, 503)
        job = self.jobs[request.path_params["id"]]
        if job.status == "running":
            assert job.task is not None
            job.task.cancel()
            job.status = "cancelled"
        return JSONResponse({"status": "succeeded"})

    async def _intercept(self, request: Request) -> Response:
        target = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        call = Call(target, dict(request.headers), await request.json())
        self.calls.append(call)
        return self.answer(call)


def yes_or_no(call: Call) -> Response:
    return JSONResponse(completion("yes" if "say yes" in call.system else "no"))
