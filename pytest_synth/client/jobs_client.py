"""`JobsClient`: the older, asynchronous client; of it only the list of files is in use."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from pytest_synth.client import endpoints
from pytest_synth.client.api import SynthClient
from pytest_synth.client.flows import Json


class Files:
    """The files of a `JobsClient`."""

    def __init__(self, client: SynthClient) -> None:
        self._client = client

    async def list(self, *, purpose: str | None = None, after: str | None = None, limit: int = 20) -> Json:
        """List uploaded files: `{"object": "list", "data": [...], "has_more": ...}`."""
        return await self._client.arun(endpoints.files(limit, purpose, after))


class JobsClient:
    """`async with JobsClient(base_url=..., api_key=...) as client: await client.files.list(limit=5)`.

    Args:
        base_url, api_key: Default: SYNTH_BACKEND_URL and SYNTH_API_KEY.
        timeout: Seconds for connecting and for each read of one request.
    """

    def __init__(
        self, base_url: str | None = None, api_key: str | None = None, timeout: float = 30.0
    ) -> None:
        self.files = Files(SynthClient(base_url, api_key, timeout=timeout))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing is open between calls, so there is nothing to close."""
