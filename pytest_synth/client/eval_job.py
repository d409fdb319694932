"""`EvalJob`: an eval job's life, synchronous and, with an `a` before each method, asynchronous."""

from __future__ import annotations

import asyncio
import io
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Self

from pytest_synth.client import endpoints
from pytest_synth.client.api import SynthClient
from pytest_synth.client.eval_toml import read_eval_toml
from pytest_synth.client.evals import EvalJobConfig, EvalResult
from pytest_synth.client.flows import Flow, Json
from pytest_synth.client.following import Follower, JobRoutes, OnEvent
from pytest_synth.client.polling import ProgressLines, poll, progress_of
from pytest_synth.contracts.jobs import JobStatus
from pytest_synth.errors import ApiError, ConfigError, SynthError, UnexpectedAnswer

OnStatus = Callable[[Json], None]


class EvalJob:
    """An eval job at a backend.

    Args:
        config: What to submit; None only together with `job_id`.
        job_id: A job that was submitted before.
        client: Default: a `SynthClient` for the config's `backend_url` and `api_key`.
    """

    def __init__(
        self,
        config: EvalJobConfig | None,
        job_id: str | None = None,
        *,
        client: SynthClient | None = None,
    ) -> None:
        if config is None and job_id is None:
            raise ConfigError("an EvalJob needs a config, or the id of a job that was submitted before")
        self.config = config
        self._job_id = job_id
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
        task_app_url: str | None = None,
        seeds: Sequence[int] | None = None,
    ) -> Self:
        """Read a TOML file; an argument stands above the file.

        The file has a section `[eval]` with `task_app_url` (or `url`, `local_api_url`), `seeds` (a list,
        or `{start, end, step}`), and the other fields of `EvalJobConfig`. A file of a prompt-learning job
        (`[prompt_learning]`) will do too: its training seeds are evaluated.

        Raises:
            ConfigError: If the file cannot be read, or something required is missing or wrong.
        """
        values = read_eval_toml(Path(config_path))
        if task_app_url is not None:
            values["task_app_url"] = task_app_url
        if seeds is not None:
            values["seeds"] = seeds
        config = EvalJobConfig(
            backend_url=backend_url, api_key=api_key or "", task_app_api_key=task_app_api_key, **values
        )
        return cls(config)

    @classmethod
    def from_job_id(cls, job_id: str, backend_url: str | None = None, api_key: str | None = None) -> Self:
        """Take up a job that was submitted before, here or elsewhere."""
        return cls(None, job_id, client=SynthClient(backend_url, api_key))

    def __repr__(self) -> str:
        return f"EvalJob({self._job_id or 'not submitted'})"

    @property
    def job_id(self) -> str | None:
        """The job's id; None before it is submitted."""
        return self._job_id

    def submit(self) -> str:
        """Submit the job and return its id.

        Raises:
            SynthError: If it was submitted before.
        """
        return self.client.run(self._submit())

    async def asubmit(self) -> str:
        return await self.client.arun(self._submit())

    def get_status(self) -> Json:
        """Read the status document: `status`, `results` with `completed` and `total`, `error`, ..."""
        return self.client.run(endpoints.eval_status(self._submitted()))

    async def aget_status(self) -> Json:
        return await self.client.arun(endpoints.eval_status(self._submitted()))

    def get_results(self) -> Json:
        """Read the results document: `summary`, and `results` with one row for each rollout."""
        return self.client.run(endpoints.eval_results(self._submitted()))

    async def aget_results(self) -> Json:
        return await self.client.arun(endpoints.eval_results(self._submitted()))

    def cancel(self, *, reason: str | None = None) -> Json:
        """Cancel the job; cancelling again is no error."""
        return self.client.run(endpoints.cancel_eval(self._submitted(), reason))

    async def acancel(self, *, reason: str | None = None) -> Json:
        return await self.client.arun(endpoints.cancel_eval(self._submitted(), reason))

    def poll_until_complete(
        self,
        *,
        timeout: float = 1200.0,
        interval: float = 15.0,
        progress: bool = False,
        on_status: OnStatus | None = None,
    ) -> EvalResult:
        """Wait until the job has ended, and return its result.

        A failed or cancelled job is a result too, with the rows that it has.

        Args:
            timeout, interval: Seconds.
            progress: Write a line to stdout whenever the job's state has changed.
            on_status: Called with each status document.

        Raises:
            JobTimeout: If it has not ended in time; it goes on, and the error carries the last document.
            ApiError, BackendUnreachable: 401, 403 and 404 at once; 429, 5xx and lost connections after
                five in a row.
            UnexpectedAnswer: If the backend reports a status that is not known.
        """
        return self.client.run(self._poll(timeout, interval, progress, on_status))

    async def apoll_until_complete(
        self,
        *,
        timeout: float = 1200.0,  # noqa: ASYNC109  # the published name; it ends by JobTimeout
        interval: float = 15.0,
        progress: bool = False,
        on_status: OnStatus | None = None,
    ) -> EvalResult:
        return await self.client.arun(self._poll(timeout, interval, progress, on_status))

    def stream_until_complete(
        self, *, timeout: float = 1200.0, interval: float = 15.0, on_event: OnEvent | None = None
    ) -> EvalResult:
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
        timeout: float = 1200.0,  # noqa: ASYNC109  # the published name; it ends by JobTimeout
        interval: float = 15.0,
        on_event: OnEvent | None = None,
    ) -> EvalResult:
        return await self.client.arun(self._follow(timeout, interval, on_event))

    def download_traces(self, output_dir: str | Path) -> Path:
        """Unpack the job's traces, a JSON file for each seed, into a folder, and return the folder.

        Raises:
            UnexpectedAnswer: If what the backend sends is no zip archive.
        """
        return unpack(self.client.run(endpoints.eval_traces(self._submitted())), Path(output_dir))

    async def adownload_traces(self, output_dir: str | Path) -> Path:
        archive = await self.client.arun(endpoints.eval_traces(self._submitted()))
        return await asyncio.to_thread(unpack, archive, Path(output_dir))

    def query_workflow_state(self) -> Json:
        """Ask for the state of the job's workflow; if the backend cannot say, `error` tells why."""
        return self.client.run(endpoints.workflow_state(self._submitted()))

    async def aquery_workflow_state(self) -> Json:
        return await self.client.arun(endpoints.workflow_state(self._submitted()))

    def _submitted(self) -> str:
        if self._job_id is None:
            raise SynthError("the job has not been submitted yet; call submit() first")
        return self._job_id

    def _submit(self) -> Flow[str]:
        if self._job_id is not None or self.config is None:
            raise SynthError(f"the job was submitted already, as {self._job_id}; make a new EvalJob")
        self._job_id = yield from endpoints.submit_eval(self.config.to_wire())
        return self._job_id

    def _poll(
        self, timeout: float, interval: float, progress: bool, on_status: OnStatus | None
    ) -> Flow[EvalResult]:
        job_id = self._submitted()
        lines = ProgressLines() if progress else None

        def look(document: Json, status: JobStatus, elapsed_s: float) -> None:
            if lines is not None and not status.is_terminal:
                done = progress_of(document)
                lines.show(
                    f"{status.value} | {done[0]}/{done[1]} completed" if done else status.value, elapsed_s
                )
            if on_status is not None:
                on_status(document)

        clock = self.client.timing.clock
        start = clock()
        document, status = yield from poll(
            lambda left_s: endpoints.eval_status(
                job_id, timeout_s=min(left_s, self.client.timeout), retry=False
            ),
            job_id=job_id,
            timeout=timeout,
            interval=interval,
            clock=clock,
            on_document=look,
        )
        result = yield from read_result(job_id, document, status)
        if lines is not None:
            mean = "" if result.mean_reward is None else f" | mean_reward: {result.mean_reward:.2f}"
            lines.show(result.status.value + mean, clock() - start)
        return result

    def _follow(self, timeout: float, interval: float, on_event: OnEvent | None) -> Flow[EvalResult]:
        job_id = self._submitted()
        job = f"/api/eval/jobs/{endpoints.segment(job_id)}"
        follower = Follower(
            JobRoutes(job_id, status=job, events=f"{job}/events", stream=f"{job}/events/stream"),
            timeout=timeout,
            interval=interval,
            request_timeout_s=self.client.timeout,
            clock=self.client.timing.clock,
            on_event=on_event,
        )
        document, status = yield from follower.run()
        return (yield from read_result(job_id, document, status))


def read_result(job_id: str, document: Json, status: JobStatus) -> Flow[EvalResult]:
    """Read the results of a job that has ended.

    A job that failed or was cancelled may have none (the hosted service does not say); then its status
    document is the result.
    """
    try:
        results = yield from endpoints.eval_results(job_id)
    except ApiError as error:
        if status.is_success or error.status_code >= 500 or error.status_code in (401, 403, 429):
            raise
        results = {}
    present = {name: value for name, value in results.items() if value is not None}
    return EvalResult.from_response(job_id, {**document, **present, "status": status.value})


def unpack(archive: bytes, folder: Path) -> Path:
    """Unpack a zip archive into a folder; `zipfile` lets no member out of it."""
    try:
        with zipfile.ZipFile(io.BytesIO(archive)) as members:
            folder.mkdir(parents=True, exist_ok=True)
            members.extractall(folder)
    except zipfile.BadZipFile as error:
        raise UnexpectedAnswer(f"the backend sent traces that are no zip archive: {error}") from error
    return folder
