"""Streams of events: framing, replay, cursors, and what published clients need at the end."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fakes.backend_api import Api, wait_until
from fakes.rollout_app import RolloutApp, reward_answer

from pytest_synth.backend.jobs import feeds
from pytest_synth.backend.jobs.feeds import Feeds
from pytest_synth.backend.store import JobRecord, RootSecret, Store
from pytest_synth.contracts.jobs import JobStatus

Serve = Callable[[RolloutApp], str]
Open = Callable[..., Api]
PATHS = ["/api/eval/jobs/{}/events/stream", "/eval/jobs/{}/events/stream"]


def read(http: httpx.Client, url: str, **params: int) -> tuple[bytes, list[dict[str, Any]]]:
    """Read a stream to its end; gives its bytes and its events."""
    with http.stream("GET", url, params=params, headers={"Accept": "text/event-stream"}) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        raw = answer.read()
    return raw, events_of(raw)


def events_of(raw: bytes) -> list[dict[str, Any]]:
    return [json.loads(block[6:]) for block in raw.split(b"\n\n") if block.startswith(b"data: ")]


@pytest.mark.parametrize("path", PATHS)
def test_an_ended_job_is_replayed_from_the_start(api: Api, serve: Serve, path: str) -> None:
    job_id = api.submit(serve(RolloutApp()), range(4))
    api.wait(job_id)
    _, events = read(api.http, path.format(job_id), since_seq=0)
    assert events == api.events(job_id)
    assert events[-1]["type"] == "eval.policy.job.completed"


def test_frames_are_what_the_published_parser_reads(api: Api, serve: Serve) -> None:
    async def behave(body: dict[str, Any]) -> dict[str, Any]:
        return reward_answer(body, "naïve\r\n\u2028text")

    job_id = api.submit(serve(RolloutApp(behave)), [0])
    api.wait(job_id)
    raw, events = read(api.http, PATHS[0].format(job_id), since_seq=0)

    assert b"\r" not in raw
    assert raw.isascii()
    assert raw.endswith(b"\n\n")
    for block in raw.removesuffix(b"\n\n").split(b"\n\n"):
        assert b"\n" not in block
        assert block.startswith((b"data: {", b": "))
    assert {"seq", "type", "job_id", "data"} <= set(events[0])
    assert "naïve\\r\\n" in events[1]["data"]["error"]


def test_events_come_while_the_job_runs(api: Api, serve: Serve) -> None:
    release: list[bool] = []

    async def behave(body: dict[str, Any]) -> dict[str, Any]:
        while body["env"]["seed"] == 1 and not release:
            await asyncio.sleep(0.002)
        return reward_answer(body)

    job_id = api.submit(serve(RolloutApp(behave)), [0, 1])
    seen: list[str] = []
    with api.http.stream("GET", PATHS[0].format(job_id), params={"since_seq": 0}) as answer:
        for line in answer.iter_lines():
            if line.startswith("data: "):
                seen.append(json.loads(line[6:])["type"])
                if seen[-1] == "eval.policy.job.progress":
                    release.append(True)  # the job cannot end before its first progress was read here
    assert [name.removeprefix("eval.policy.") for name in seen] == [
        "job.started", "seed.completed", "job.progress", "seed.completed", "job.progress", "job.completed",
    ]  # fmt: skip


def test_a_reader_goes_on_from_its_cursor_after_each_cut(open_api: Open, serve: Serve) -> None:
    """1,000 events, read over a connection that is cut three times."""
    app = RolloutApp()
    api = open_api(concurrency=64)
    job_id = api.submit(serve(app), range(499), max_concurrent=64)
    seen: list[int] = []
    for cut_at in (50, 400, 700, None):
        params = {"since_seq": seen[-1] if seen else 0}
        with api.http.stream("GET", PATHS[0].format(job_id), params=params) as answer:
            for line in answer.iter_lines():
                if line.startswith("data: "):
                    seen.append(json.loads(line[6:])["seq"])
                    if cut_at is not None and len(seen) >= cut_at:
                        break
    assert seen == list(range(1, 1001))


def test_without_a_cursor_the_end_is_held_back_until_the_status_was_seen(
    open_api: Open, serve: Serve
) -> None:
    api = open_api(stream_linger_s=0.5)
    job_id = api.submit(serve(RolloutApp()), [0])
    api.wait(job_id)
    arrived: dict[str, float] = {}
    came = time.monotonic()
    with api.http.stream("GET", PATHS[1].format(job_id)) as answer:
        for line in answer.iter_lines():
            if line.startswith("data: "):
                arrived[json.loads(line[6:])["type"]] = time.monotonic() - came
    assert arrived["eval.policy.job.progress"] < 0.4
    assert arrived["eval.policy.job.completed"] >= 0.5


@pytest.mark.parametrize(
    ("event_type", "comes_late", "at_least_s", "below_s"),
    [
        ("learning.policy.gepa.job.completed", False, 0.1, 0.9),
        ("learning.policy.gepa.job.completed", True, 1.0, 5.0),
        ("learning.policy.gepa.job.failed", False, 1.0, 5.0),
        ("eval.policy.job.completed", False, 1.0, 5.0),
    ],
)
def test_only_the_success_of_a_search_is_told_soon(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    event_type: str,
    comes_late: bool,
    at_least_s: float,
    below_s: float,
) -> None:
    def end() -> None:
        with store.database.transaction():
            store.events.add(job.number, event_type, {})
            store.jobs.end(job.number, JobStatus.FAILED)

    async def arrival() -> float:
        if comes_late:
            end()
        follower = Feeds(store, linger_s=1.0).follow(job, since_seq=None)
        first = await anext(follower)
        assert first is not None
        came = time.monotonic()
        if not comes_late:
            end()
        last = await anext(follower)
        assert last is not None
        assert last["type"] == event_type
        return time.monotonic() - came

    monkeypatch.setattr(feeds, "SUCCESS_S", 0.1)
    with job_of(tmp_path) as (store, job):
        store.events.add(job.number, "some.job.started", {})
        took_s = asyncio.run(arrival())
    assert at_least_s - 0.05 <= took_s < below_s


def test_a_cancelled_jobs_stream_stays_open_for_a_while(open_api: Open, serve: Serve) -> None:
    async def hang(body: dict[str, Any]) -> dict[str, Any]:
        await asyncio.sleep(60)
        return reward_answer(body)

    api, app = open_api(stream_linger_s=0.5), RolloutApp(hang)
    job_id = api.submit(serve(app), [0])
    wait_until(lambda: app.in_flight == 1)
    api.http.post(f"/api/eval/jobs/{job_id}/cancel", json={})
    came = time.monotonic()
    _, events = read(api.http, PATHS[1].format(job_id))
    assert time.monotonic() - came >= 0.5
    assert events[-1]["type"] == "eval.policy.job.cancelled"


def test_the_stop_of_a_backend_ends_its_streams(open_api: Open, serve: Serve) -> None:
    async def hang(body: dict[str, Any]) -> dict[str, Any]:
        await asyncio.sleep(60)
        return reward_answer(body)

    api, app = open_api(), RolloutApp(hang)
    job_id = api.submit(serve(app), [0])
    wait_until(lambda: app.in_flight == 1)
    with api.http.stream("GET", PATHS[0].format(job_id)) as answer:
        chunks = answer.iter_bytes()
        next(chunks)
        came = time.monotonic()
        api.backend.stop()
        with contextlib.suppress(httpx.RemoteProtocolError):
            for _ in chunks:
                pass
        assert time.monotonic() - came < 1.0


@contextlib.contextmanager
def job_of(path: Path) -> Iterator[tuple[Store, JobRecord]]:
    with Store(path / "b.sqlite", RootSecret.random()) as store:
        yield store, store.jobs.add(job_id="eval-1", tenant="me", kind="eval", body={})


def test_silence_is_broken_now_and_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scene() -> list[dict[str, Any] | None]:
        found: list[dict[str, Any] | None] = []
        async for event in Feeds(store).follow(job, since_seq=0):
            found.append(event)
            if len(found) == 2:
                with store.database.transaction():
                    store.jobs.end(job.number, JobStatus.COMPLETED)
                    store.events.add(job.number, "eval.policy.job.completed", {})
        return found

    monkeypatch.setattr(feeds, "KEEP_ALIVE_S", 0.01)
    with job_of(tmp_path) as (store, job):
        found = asyncio.run(scene())
    assert found[:2] == [None, None]
    assert found[2] is not None
    assert found[2]["type"] == "eval.policy.job.completed"


def test_a_reader_that_goes_away_is_forgotten(tmp_path: Path) -> None:
    async def scene() -> None:
        follower = feed.follow(job, since_seq=0)
        store.events.add(job.number, "eval.policy.job.started", {})
        await anext(follower)
        assert feed._waiting
        await follower.aclose()  # type: ignore[attr-defined]
        assert not feed._waiting

    with job_of(tmp_path) as (store, job):
        feed = Feeds(store)
        asyncio.run(scene())


def test_others_have_their_turn_during_a_replay(tmp_path: Path) -> None:
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async def scene() -> int:
        task = asyncio.create_task(other())
        count = len([event async for event in Feeds(store).follow(job, since_seq=0)])
        task.cancel()
        return count

    with job_of(tmp_path) as (store, job):
        for _ in range(200):
            store.events.add(job.number, "eval.policy.job.progress", {})
        store.jobs.end(job.number, JobStatus.COMPLETED)
        assert asyncio.run(scene()) == 200
    assert turns >= 200


def test_an_unknown_jobs_stream_is_404(api: Api) -> None:
    for path in PATHS:
        assert api.http.get(path.format("eval-nope")).status_code == 404
