"""The end of what a run has started."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_synth import task_app
from pytest_synth._serving import ServerThread
from pytest_synth.client import EvalJob, EvalJobConfig
from pytest_synth.evals.resources import Resources
from pytest_synth.evals.settings import Settings
from pytest_synth.localapi.llm import LLM


def test_rollouts_in_flight_are_cut_before_their_server_waits_for_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else each end of a run with slow rollouts in flight would take the whole grace time."""
    started, cut = threading.Event(), threading.Event()
    seen: list[bool] = []
    stop: Callable[[ServerThread], None] = ServerThread.stop

    async def run(row: int, llm: LLM) -> str:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            cut.set()
        return ""

    def stop_later(server: ServerThread) -> None:
        if not seen:  # the first to be stopped is the last that was started: the task app
            seen.append(cut.wait(10))
        stop(server)

    monkeypatch.setattr("pytest_synth._serving.GRACE_S", 12)
    app = task_app(rows={"test": [0]}, run=run, score=lambda row, answer: 1.0)
    resources = Resources(Settings(rootpath=tmp_path))
    address = resources.app(app).address()
    config = EvalJobConfig(
        task_app_url=address.url,
        task_app_api_key=address.key,
        backend_url=resources.client().base_url,
        api_key=resources.client().api_key,
        env_name="slow",
        seeds=[0],
        policy_config={"provider": "offline", "model": "lexical"},
    )
    EvalJob(config).submit()
    assert started.wait(10)
    monkeypatch.setattr(ServerThread, "stop", stop_later)
    resources.close()
    assert seen == [True]
