"""`SynthClient`: the HTTP API as methods, each synchronous and, with an `a` before it, asynchronous."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import httpx

from pytest_synth.client import endpoints
from pytest_synth.client.driver import Driver, Timing
from pytest_synth.client.flows import Flow, Json, T


class SynthClient:
    """A backend's HTTP API. It holds nothing open between calls, and may be shared by threads.

    Args:
        base_url: With or without `/api` and a trailing slash; default: SYNTH_BACKEND_URL, else the
            hosted service.
        api_key: Default: SYNTH_API_KEY.
        timeout: Seconds for connecting and for each read of one request.
        transport: An httpx transport in place of httpx's own; the caller closes it.
        timing: Clock and sleeps.

    Raises:
        ConfigError: If the base URL is none; in a call: if there is no API key.

    All calls raise the errors of `pytest_synth.errors` only: ApiError and its kinds, BackendUnreachable,
    UnexpectedAnswer. Reading is tried up to four times after 429, 5xx or a lost connection; a submission
    never is.
    """

    def __init__(
        self,
        base_url: str | None = None,
        api_key: str | None = None,
        *,
        timeout: float = 30.0,
        transport: httpx.BaseTransport | None = None,
        timing: Timing | None = None,
    ) -> None:
        self._driver = Driver(
            base_url, api_key, timeout=timeout, transport=transport, timing=timing or Timing()
        )

    def __repr__(self) -> str:
        return f"SynthClient({self.base_url!r})"

    @property
    def base_url(self) -> str:
        """The backend's base URL, without `/api`."""
        return self._driver.base_url

    @property
    def api_key(self) -> str:
        """The key that calls send.

        Raises:
            ConfigError: If there is none.
        """
        return self._driver.api_key

    @property
    def timeout(self) -> float:
        """Seconds for connecting and for each read of one request."""
        return self._driver.timeout

    @property
    def timing(self) -> Timing:
        return self._driver.timing

    def run(self, flow: Flow[T]) -> T:
        """Carry out a flow of `endpoints`; it needs no event loop and works inside a running one."""
        return self._driver.run(flow)

    async def arun(self, flow: Flow[T]) -> T:
        """Carry out a flow of `endpoints` without blocking the event loop."""
        return await self._driver.arun(flow)

    def health(self) -> Json:
        """Ask whether the backend is up; needs no key."""
        return self.run(endpoints.health())

    async def ahealth(self) -> Json:
        return await self.arun(endpoints.health())

    def submit_eval(self, body: Mapping[str, Any]) -> str:
        """Submit an eval job and return its id."""
        return self.run(endpoints.submit_eval(body))

    async def asubmit_eval(self, body: Mapping[str, Any]) -> str:
        return await self.arun(endpoints.submit_eval(body))

    def eval_status(self, job_id: str) -> Json:
        """Read an eval job's status document."""
        return self.run(endpoints.eval_status(job_id))

    async def aeval_status(self, job_id: str) -> Json:
        return await self.arun(endpoints.eval_status(job_id))

    def eval_results(self, job_id: str) -> Json:
        """Read an eval job's results document: `summary`, and one row for each rollout."""
        return self.run(endpoints.eval_results(job_id))

    async def aeval_results(self, job_id: str) -> Json:
        return await self.arun(endpoints.eval_results(job_id))

    def cancel_eval(self, job_id: str, reason: str | None = None) -> Json:
        """Cancel an eval job; cancelling again is no error."""
        return self.run(endpoints.cancel_eval(job_id, reason))

    async def acancel_eval(self, job_id: str, reason: str | None = None) -> Json:
        return await self.arun(endpoints.cancel_eval(job_id, reason))

    def eval_events(self, job_id: str, *, since_seq: int = 0, limit: int = 5000) -> list[Json]:
        """Read one page of an eval job's events, those whose `seq` is above `since_seq`."""
        return self.run(endpoints.eval_events(job_id, since_seq, limit))

    async def aeval_events(self, job_id: str, *, since_seq: int = 0, limit: int = 5000) -> list[Json]:
        return await self.arun(endpoints.eval_events(job_id, since_seq, limit))

    def eval_traces(self, job_id: str) -> bytes:
        """Read an eval job's traces: a zip archive with a JSON file for each seed."""
        return self.run(endpoints.eval_traces(job_id))

    async def aeval_traces(self, job_id: str) -> bytes:
        return await self.arun(endpoints.eval_traces(job_id))

    def submit_prompt_job(self, body: Mapping[str, Any]) -> str:
        """Submit a prompt-learning job and return its id."""
        return self.run(endpoints.submit_prompt_job(body))

    async def asubmit_prompt_job(self, body: Mapping[str, Any]) -> str:
        return await self.arun(endpoints.submit_prompt_job(body))

    def prompt_job(self, job_id: str) -> Json:
        """Read a prompt-learning job's status document."""
        return self.run(endpoints.prompt_job(job_id))

    async def aprompt_job(self, job_id: str) -> Json:
        return await self.arun(endpoints.prompt_job(job_id))

    def prompt_events(self, job_id: str, *, since_seq: int = 0, limit: int = 5000) -> list[Json]:
        """Read one page of a prompt-learning job's events, those above `since_seq`."""
        return self.run(endpoints.prompt_events(job_id, since_seq, limit))

    async def aprompt_events(self, job_id: str, *, since_seq: int = 0, limit: int = 5000) -> list[Json]:
        return await self.arun(endpoints.prompt_events(job_id, since_seq, limit))

    def cancel_prompt_job(self, job_id: str, reason: str | None = None) -> Json:
        """Cancel a prompt-learning job; cancelling again is no error."""
        return self.run(endpoints.cancel_prompt_job(job_id, reason))

    async def acancel_prompt_job(self, job_id: str, reason: str | None = None) -> Json:
        return await self.arun(endpoints.cancel_prompt_job(job_id, reason))

    def workflow_state(self, job_id: str) -> Json:
        """Ask for the state of a job's workflow; if the backend cannot say, `error` tells why."""
        return self.run(endpoints.workflow_state(job_id))

    async def aworkflow_state(self, job_id: str) -> Json:
        return await self.arun(endpoints.workflow_state(job_id))

    def list_files(self, *, limit: int = 20, purpose: str | None = None, after: str | None = None) -> Json:
        """List uploaded files: `{"object": "list", "data": [...], "has_more": ...}`."""
        return self.run(endpoints.files(limit, purpose, after))

    async def alist_files(
        self, *, limit: int = 20, purpose: str | None = None, after: str | None = None
    ) -> Json:
        return await self.arun(endpoints.files(limit, purpose, after))

    def mint_demo_key(self, ttl_hours: int = 4) -> str:
        """Let the backend make an API key that expires; needs no key."""
        return self.run(endpoints.mint_demo_key(ttl_hours))

    async def amint_demo_key(self, ttl_hours: int = 4) -> str:
        return await self.arun(endpoints.mint_demo_key(ttl_hours))

    def upload_environment_key(self, key: str) -> Json:
        """Upload the key that the task app expects, sealed (extra `hosted`)."""
        return self.run(endpoints.upload_environment_key(key))

    async def aupload_environment_key(self, key: str) -> Json:
        return await self.arun(endpoints.upload_environment_key(key))
