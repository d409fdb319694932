"""`PromptLearningJob`: the life of a prompt-learning job, such as GEPA.

Each method is synchronous and, with an `a` before its name, asynchronous. The published client's own
asynchronous names (`get_status_async`, ...) work too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

from pytest_synth.client import endpoints
from pytest_synth.client.answers import object_of
from pytest_synth.client.api import SynthClient
from pytest_synth.client.eval_job import OnStatus
from pytest_synth.client.exchange import exchange
from pytest_synth.client.flows import Flow, Json
from pytest_synth.client.following import Follower, JobRoutes, OnEvent
from pytest_synth.client.polling import ProgressLines, poll, progress_of
from pytest_synth.client.prompt_config import PromptLearningJobConfig
from pytest_synth.client.prompt_results import PromptLearningResult, PromptResults, read_prompt_results
from pytest_synth.client.task_app_check import check_task_app, is_tunnel, split_url
from pytest_synth.contracts.jobs import JobStatus
from pytest_synth.errors import ConfigError, SynthError


class PromptLearningJob:
    """A prompt-learning job at a backend.

    Args:
        config: What to submit; None only together with `job_id`.
        job_id: A job that was submitted before.
        skip_health_check: Submit without asking the task app for `/health` and `/task_info` first.
            Through a Cloudflare quick tunnel it is not asked in any case: the name may not resolve yet.
        client: Default: a `SynthClient` for the config's `backend_url` and `api_key`.
    """

    def __init__(
        self,
        config: PromptLearningJobConfig | None,
        job_id: str | None = None,
        skip_health_check: bool = False,
        *,
        client: SynthClient | None = None,
    ) -> None:
        if config is None and job_id is None:
            raise ConfigError(
                "a PromptLearningJob needs a config, or the id of a job that was submitted before"
            )
        if job_id is not None:
            endpoints.prompt_segment(job_id)
        self.config = config
        self._job_id = job_id
        self._skip_health_check = skip_health_check
        if client is None:
            client = SynthClient(config.backend_url, config.api_key) if config else SynthClient()
        self.client = client

    @classmethod
    def from_config(
        cls,
        config_path: str | Path,
        backend_url: str | None = None,
        api_key: str | None = None,
        task_app_api_key: str | None = None,
        allow_experimental: bool | None = None,
        overrides: Mapping[str, Any] | None = None,
        skip_health_check: bool = False,
    ) -> Self:
        """Take a configuration from a TOML file; it is read when the job is submitted.

        `allow_experimental` has no effect, as models are for the backend to judge.
        """
        return cls(
            PromptLearningJobConfig(
                backend_url=backend_url,
                api_key=api_key,
                config_path=config_path,
                task_app_api_key=task_app_api_key,
                overrides=overrides,
            ),
            skip_health_check=skip_health_check,
        )

    @classmethod
    def from_dict(
        cls,
        config_dict: Mapping[str, Any],
        backend_url: str | None = None,
        api_key: str | None = None,
        task_app_api_key: str | None = None,
        allow_experimental: bool | None = None,
        overrides: Mapping[str, Any] | None = None,
        skip_health_check: bool = False,
    ) -> Self:
        """Take a configuration as a mapping with a section `prompt_learning`; it is never changed.

        `allow_experimental` has no effect, as models are for the backend to judge.
        """
        return cls(
            PromptLearningJobConfig(
                backend_url=backend_url,
                api_key=api_key,
                config_dict=config_dict,
                task_app_api_key=task_app_api_key,
                overrides=overrides,
            ),
            skip_health_check=skip_health_check,
        )

    @classmethod
    def from_job_id(cls, job_id: str, backend_url: str | None = None, api_key: str | None = None) -> Self:
        """Take up a job that was submitted before, here or elsewhere."""
        return cls(None, job_id, client=SynthClient(backend_url, api_key))

    def __repr__(self) -> str:
        return f"PromptLearningJob({self._job_id or 'not submitted'})"

    @property
    def job_id(self) -> str | None:
        """The job's id; None before it is submitted."""
        return self._job_id

    def submit(self) -> str:
        """Submit the job and return its id.

        Raises:
            SynthError: If it was submitted before.
            TaskAppError: If the task app does not answer `/health` and `/task_info`.
            InvalidRequestError: If the backend refuses the configuration; the message names the field.
        """
        body = self._body()
        if (probe := self._probe(body)) is not None:
            probe[0].run(probe[1])
        return self.client.run(self._submit(body))

    async def asubmit(self) -> str:
        body = self._body()
        if (probe := self._probe(body)) is not None:
            await probe[0].arun(probe[1])
        return await self.client.arun(self._submit(body))

    def get_status(self) -> Json:
        """Read the status document: `status`, `best_score`, `best_prompt`, `error`, ..."""
        return self.client.run(endpoints.prompt_job(self._submitted()))

    async def aget_status(self) -> Json:
        return await self.client.arun(endpoints.prompt_job(self._submitted()))

    def get_results(self) -> Json:
        """Read prompts and scores out of the job's events, as the fields of `PromptResults`."""
        return dict(vars(self.client.run(self._results())))

    async def aget_results(self) -> Json:
        return dict(vars(await self.client.arun(self._results())))

    def get_best_prompt_text(self, rank: int = 1) -> str | None:
        """Return the text of the prompt of a rank, 1 being the best; None if there is none."""
        return self.client.run(self._text(rank))

    async def aget_best_prompt_text(self, rank: int = 1) -> str | None:
        return await self.client.arun(self._text(rank))

    def cancel(self, *, reason: str | None = None) -> Json:
        """Cancel the job; cancelling again is no error."""
        return self.client.run(endpoints.cancel_prompt_job(self._submitted(), reason))

    async def acancel(self, *, reason: str | None = None) -> Json:
        return await self.client.arun(endpoints.cancel_prompt_job(self._submitted(), reason))

    def query_workflow_state(self) -> Json:
        """Ask for the state of the job's workflow; if the backend cannot say, `error` tells why."""
        return self.client.run(endpoints.workflow_state(self._submitted()))

    async def aquery_workflow_state(self) -> Json:
        return await self.client.arun(endpoints.workflow_state(self._submitted()))

    def poll_until_complete(
        self,
        *,
        timeout: float = 3600.0,
        interval: float = 15.0,
        progress: bool = False,
        on_status: OnStatus | None = None,
        request_timeout: float = 180.0,
    ) -> PromptLearningResult:
        """Wait until the job has ended, and return its result; a failed or cancelled job is one too.

        Args:
            timeout, interval, request_timeout: Seconds; the last one for each request.
            progress: Write a line to stdout whenever the job's state has changed.
            on_status: Called with each status document.

        Raises:
            JobTimeout: If it has not ended in time; it goes on, and the error carries the last document.
            ApiError, BackendUnreachable: 401, 403 and 404 at once; 429, 5xx and lost connections after
                five in a row.
            UnexpectedAnswer: If the backend reports a status that is not known.
        """
        return self.client.run(self._poll(timeout, interval, progress, on_status, request_timeout))

    async def apoll_until_complete(
        self,
        *,
        timeout: float = 3600.0,  # noqa: ASYNC109  # the published name; it ends by JobTimeout
        interval: float = 15.0,
        progress: bool = False,
        on_status: OnStatus | None = None,
        request_timeout: float = 180.0,
    ) -> PromptLearningResult:
        return await self.client.arun(self._poll(timeout, interval, progress, on_status, request_timeout))

    def stream_until_complete(
        self, *, timeout: float = 3600.0, interval: float = 15.0, on_event: OnEvent | None = None
    ) -> PromptLearningResult:
        """Hand on each event of the job, once and in order, until it has ended; return its result.

        A stream that breaks is taken up again after the last event that came; where there is no stream,
        the events are polled.

        Args:
            timeout: Seconds.
            interval: Seconds of silence before the stream is taken up anew, and between polls where there
                is no stream.
            on_event: Called with each event.

        Raises:
            As `poll_until_complete`.
        """
        return self.client.run(self._follow(timeout, interval, on_event))

    async def astream_until_complete(
        self,
        *,
        timeout: float = 3600.0,  # noqa: ASYNC109  # the published name; it ends by JobTimeout
        interval: float = 15.0,
        on_event: OnEvent | None = None,
    ) -> PromptLearningResult:
        return await self.client.arun(self._follow(timeout, interval, on_event))

    get_status_async = aget_status
    get_results_async = aget_results
    get_best_prompt_text_async = aget_best_prompt_text
    stream_until_complete_async = astream_until_complete

    def _submitted(self) -> str:
        if self._job_id is None:
            raise SynthError("the job has not been submitted yet; call submit() first")
        return self._job_id

    def _body(self) -> Json:
        if self._job_id is not None or self.config is None:
            raise SynthError(
                f"the job was submitted already, as {self._job_id}; make a new PromptLearningJob"
            )
        return self.config.to_wire()

    def _probe(self, body: Json) -> tuple[SynthClient, Flow[None]] | None:
        """Return what looks at the task app; None if it is not to be looked at."""
        url: str = body["config_body"]["prompt_learning"]["task_app_url"]
        if self._skip_health_check or is_tunnel(url) or self.config is None:
            return None
        key = self.config.task_app_api_key
        client = SynthClient(split_url(url)[0], key, timeout=self.client.timeout, timing=self.client.timing)
        return client, check_task_app(url, has_key=key is not None)

    def _submit(self, body: Json) -> Flow[str]:
        job_id = yield from endpoints.submit_prompt_job(body)
        endpoints.prompt_segment(job_id)
        self._job_id = job_id
        return job_id

    def _results(self) -> Flow[PromptResults]:
        return read_prompt_results((yield from endpoints.all_prompt_events(self._submitted())))

    def _text(self, rank: int) -> Flow[str | None]:
        check_rank(rank)
        return (yield from self._results()).text_of_rank(rank)

    def _routes(self) -> JobRoutes:
        name = endpoints.prompt_segment(self._submitted())
        job = f"/api/policy-optimization/online/jobs/{name}"
        return JobRoutes(
            job_id=self._submitted(),
            status=job,
            events=f"/api/prompt-learning/online/jobs/{name}/events",
            stream=f"{job}/events/stream",
        )

    def _poll(
        self,
        timeout: float,
        interval: float,
        progress: bool,
        on_status: OnStatus | None,
        request_timeout: float,
    ) -> Flow[PromptLearningResult]:
        routes = self._routes()
        lines = ProgressLines() if progress else None
        told: set[str] = set()

        def read(left_s: float) -> Flow[Json]:
            wait = min(left_s, request_timeout)
            return object_of((yield from exchange("GET", routes.status, timeout_s=wait, safe=False)))

        def look(document: Json, status: JobStatus, elapsed_s: float) -> None:
            if lines is not None:
                for line in _told(routes.job_id, document, told):
                    lines.show(line, elapsed_s)
            if on_status is not None:
                on_status(document)

        document, _ = yield from poll(
            read,
            job_id=routes.job_id,
            timeout=timeout,
            interval=interval,
            clock=self.client.timing.clock,
            on_document=look,
        )
        return (yield from self._finish(document))

    def _follow(
        self, timeout: float, interval: float, on_event: OnEvent | None
    ) -> Flow[PromptLearningResult]:
        follower = Follower(
            self._routes(),
            timeout=timeout,
            interval=interval,
            request_timeout_s=self.client.timeout,
            clock=self.client.timing.clock,
            on_event=on_event,
        )
        document, _ = yield from follower.run()
        return (yield from self._finish(document))

    def _finish(self, document: Json) -> Flow[PromptLearningResult]:
        """Make the result; what a status document does not say of the best prompt, the events do."""
        result = PromptLearningResult.from_response(self._submitted(), document)
        if not result.succeeded or (result.best_prompt is not None and result.best_score is not None):
            return result
        found = yield from self._results()
        return replace(
            result,
            best_prompt=found.best_prompt if result.best_prompt is None else result.best_prompt,
            best_score=found.best_score if result.best_score is None else result.best_score,
        )


def check_rank(rank: int) -> None:
    if rank < 1:
        raise ConfigError(f"rank is {rank!r}; the best prompt has rank 1")


def _told(job_id: str, document: Json, told: set[str]) -> list[str]:
    """What there is to say of a job: the plan once, its state, and in the end what came of it."""
    result = PromptLearningResult.from_response(job_id, document)
    plan, summary = document.get("plan"), document.get("summary")
    before = [f"plan: {plan['text']}"] if isinstance(plan, dict) and "text" in plan else []
    state, done = result.status.value, progress_of(document)
    if done is not None and not result.is_terminal:
        state += f" | {done[0]}/{done[1]} rollouts"
    if result.best_score is not None:
        state += f" | score: {result.best_score:.2f}"
    lines = [line for line in before if line not in told]
    told.update(lines)
    return [*lines, state, *([summary] if result.is_terminal and isinstance(summary, str) else [])]
