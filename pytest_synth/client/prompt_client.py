"""`PromptLearningClient`: what a prompt-learning job has found, read out of its events."""

from __future__ import annotations

from pytest_synth.client import endpoints
from pytest_synth.client.api import SynthClient
from pytest_synth.client.flows import Flow, Json
from pytest_synth.client.prompt_job import check_rank
from pytest_synth.client.prompt_results import PromptResults, read_prompt_results, scoring_summary


class PromptLearningClient:
    """Reads prompt-learning jobs by their ids, which start with `pl_`.

    The methods are asynchronous, as the published client's are; each has a synchronous twin that ends in
    `_sync` and works inside a running event loop too.

    Args:
        base_url, api_key: Default: SYNTH_BACKEND_URL and SYNTH_API_KEY.
        timeout: Seconds for connecting and for each read of one request.
        client: A `SynthClient` in place of the three.
    """

    def __init__(
        self,
        base_url: str | None = None,
        api_key: str | None = None,
        *,
        timeout: float = 30.0,
        client: SynthClient | None = None,
    ) -> None:
        self._client = SynthClient(base_url, api_key, timeout=timeout) if client is None else client

    async def get_job(self, job_id: str) -> Json:
        """Read the status document: `status`, `best_score`, `best_prompt`, `error`, ..."""
        return await self._client.arun(endpoints.prompt_job(job_id))

    async def get_events(self, job_id: str, *, since_seq: int = 0, limit: int = 5000) -> list[Json]:
        """Read one page of events, those whose `seq` is above `since_seq`."""
        return await self._client.arun(endpoints.prompt_events(job_id, since_seq, limit))

    async def get_prompts(self, job_id: str) -> PromptResults:
        """Read prompts and scores out of all events."""
        return await self._client.arun(_prompts(job_id))

    async def get_prompt_text(self, job_id: str, rank: int = 1) -> str | None:
        """Return the text of the prompt of a rank, 1 being the best; None if there is none."""
        return await self._client.arun(_text(job_id, rank))

    async def get_scoring_summary(self, job_id: str) -> Json:
        """Sum up the scores: best and mean, training and validation, numbers of candidates, histogram."""
        return await self._client.arun(_summary(job_id))

    def get_job_sync(self, job_id: str) -> Json:
        return self._client.run(endpoints.prompt_job(job_id))

    def get_events_sync(self, job_id: str, *, since_seq: int = 0, limit: int = 5000) -> list[Json]:
        return self._client.run(endpoints.prompt_events(job_id, since_seq, limit))

    def get_prompts_sync(self, job_id: str) -> PromptResults:
        return self._client.run(_prompts(job_id))

    def get_prompt_text_sync(self, job_id: str, rank: int = 1) -> str | None:
        return self._client.run(_text(job_id, rank))

    def get_scoring_summary_sync(self, job_id: str) -> Json:
        return self._client.run(_summary(job_id))


def _prompts(job_id: str) -> Flow[PromptResults]:
    return read_prompt_results((yield from endpoints.all_prompt_events(job_id)))


def _text(job_id: str, rank: int) -> Flow[str | None]:
    check_rank(rank)
    return (yield from _prompts(job_id)).text_of_rank(rank)


def _summary(job_id: str) -> Flow[Json]:
    return scoring_summary((yield from _prompts(job_id)))
