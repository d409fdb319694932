"""Jobs at a backend elsewhere: what happens when tunnel or backend fail on the way."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import httpx
import pytest
from fakes.scripted_backend import FakeTime, client_of

from pytest_synth.client import EvalResult, SynthClient
from pytest_synth.errors import TunnelError
from pytest_synth.evals import jobs as module
from pytest_synth.evals.apps import AppAddress
from pytest_synth.evals.backends import Backend
from pytest_synth.evals.jobs import EvalJobs, Request
from pytest_synth.evals.relaying import Note
from pytest_synth.evals.resources import Resources
from pytest_synth.evals.settings import Settings
from pytest_synth.evals.spec import EvalSpec

OLD = AppAddress("https://old.test", "cloudflare_quick", "env-key", "http://127.0.0.1:1")
DOWN = AppAddress("https://old.test", "cloudflare_quick", "env-key", "http://127.0.0.1:1", is_up=False)
NEW = AppAddress("https://new.test", "cloudflare_quick", "env-key", "http://127.0.0.1:1", generation=1)
AGAIN = AppAddress("https://third.test", "cloudflare_quick", "env-key", "http://127.0.0.1:1", generation=2)
MANAGED = AppAddress("https://old.test", "cloudflare_managed", "env-key", "http://127.0.0.1:1", generation=1)

Rewards = Mapping[int, float | None]


@dataclass
class FakeBackend(httpx.BaseTransport):
    """A backend whose jobs end as told, in the order of their submission.

    Attributes:
        plans: For each job its status, and the reward of each seed that has a row.
        trouble: Called before each request; it may raise, answer, or block.
    """

    plans: list[tuple[str, Rewards]]
    trouble: Callable[[httpx.Request], httpx.Response | None] = lambda request: None
    submitted: list[dict[str, Any]] = field(default_factory=list)
    cancelled: list[str] = field(default_factory=list)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        request.read()
        if (answer := self.trouble(request)) is not None:
            return answer
        pieces = request.url.path.removeprefix("/api/eval/jobs").strip("/").split("/")
        if pieces == [""]:
            self.submitted.append(json.loads(request.content))
            return httpx.Response(201, json={"job_id": f"eval-{len(self.submitted) - 1}"})
        job_id, what = pieces[0], pieces[1] if len(pieces) > 1 else "status"
        status, rewards = self.plans[int(job_id.removeprefix("eval-"))]
        if what == "cancel":
            self.cancelled.append(job_id)
            return httpx.Response(200, json={"status": "succeeded"})
        rows = [
            {"seed": seed, "score": reward, "error": None if reward is not None else "task app answered 530"}
            for seed, reward in rewards.items()
        ]
        if what == "results":
            scores = [reward for reward in rewards.values() if reward is not None]
            mean = sum(scores) / len(scores) if scores else None
            return httpx.Response(200, json={"status": status, "mean_reward": mean, "results": rows})
        return httpx.Response(
            200, json={"status": status, "results": {"completed": len(rows), "total": len(rows)}}
        )


@dataclass
class FakeResources:
    """Addresses by script, the last one for ever; an exception in it is raised."""

    client_: SynthClient
    addresses: Sequence[AppAddress | Exception]
    takes_extensions: bool = True
    notes: Sequence[Note] = ()
    is_local: bool = False
    asked: int = 0
    routes: int = 0

    def client(self) -> SynthClient:
        return self.client_

    def backend(self) -> Backend:
        return Backend(self.client_, self.takes_extensions, self.takes_extensions, is_near=False)

    def address_of(self, app: object) -> AppAddress:
        found = self.addresses[min(self.asked, len(self.addresses) - 1)]
        self.asked += 1
        if isinstance(found, Exception):
            raise found
        return found

    def open_route(self, app: object, prompt: object) -> str:
        self.routes += 1
        return f"/route-{self.routes}"

    def close_route(self, app: object, path: str) -> Sequence[Note]:
        return self.notes


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> FakeTime:
    time = FakeTime()
    monkeypatch.setattr(module, "monotonic", lambda: time.now)
    monkeypatch.setattr(module, "sleep", time.sleep)
    return time


def make(
    backend: FakeBackend, addresses: Sequence[AppAddress | Exception], time: FakeTime, **more: Any
) -> EvalJobs:
    resources = FakeResources(client_of(cast(Any, backend), time), addresses, **more)
    settings = Settings(provider="openai", model="m", concurrency=2)
    return EvalJobs(cast(Resources, resources), settings, run_id="run-1")


def run(jobs: EvalJobs, **spec: Any) -> EvalResult:
    request = Request("test_x", EvalSpec(**{"seeds": (0, 1, 2), "timeout": 10.0, **spec}), 0, "app")
    jobs.submit(request, "app")
    return jobs.wait(request, lambda look: None)


def rewards(result: EvalResult) -> dict[int, float | None]:
    return {row.seed: row.score for row in result.rows}


def test_a_new_url_cancels_the_job_and_submits_what_is_left_again(time: FakeTime) -> None:
    backend = FakeBackend([("running", {0: 1.0}), ("completed", {1: 0.5, 2: 0.0})])
    result = run(make(backend, [OLD, OLD, NEW], time))
    assert backend.cancelled == ["eval-0"]
    assert [body["seeds"] for body in backend.submitted] == [[0, 1, 2], [1, 2]]
    assert [body["task_app_url"] for body in backend.submitted] == [OLD.url, NEW.url]
    assert (result.succeeded, rewards(result)) == (True, {0: 1.0, 1: 0.5, 2: 0.0})
    assert result.mean_reward == 0.5


def test_a_second_restart_ends_the_eval_and_keeps_what_was_paid_for(time: FakeTime) -> None:
    backend = FakeBackend([("running", {0: 1.0}), ("running", {1: 0.5}), ("completed", {})])
    result = run(make(backend, [OLD, OLD, NEW, NEW, AGAIN], time))
    assert len(backend.submitted) == 2
    assert backend.cancelled == ["eval-0", "eval-1"]
    assert result.error == "the tunnel to the task app was restarted twice, and cut job eval-1 too"
    assert rewards(result) == {0: 1.0, 1: 0.5}


def test_a_job_that_had_ended_before_the_new_url_is_kept(time: FakeTime) -> None:
    backend = FakeBackend([("completed", {0: 1.0, 1: 1.0, 2: 1.0})])
    result = run(make(backend, [OLD, NEW], time))
    assert (len(backend.submitted), backend.cancelled) == (1, [])
    assert (result.succeeded, result.mean_reward) == (True, 1.0)


def test_rewards_that_only_this_machine_has_seen_are_not_paid_for_twice(time: FakeTime) -> None:
    backend = FakeBackend([("cancelled", {}), ("completed", {2: 0.25})])
    notes = [Note(seed, f"trace_{seed}", is_answered=True, reward=0.5) for seed in (0, 1)]
    result = run(make(backend, [OLD, NEW], time, takes_extensions=False, notes=notes))
    assert [body["seeds"] for body in backend.submitted] == [[0, 1, 2], [2]]
    assert [body["task_app_url"] for body in backend.submitted] == [
        f"{OLD.url}/route-1",
        f"{NEW.url}/route-2",
    ]
    assert rewards(result) == {0: 0.5, 1: 0.5, 2: 0.25}


def test_rollouts_lost_under_a_name_that_stays_run_again_at_the_end(time: FakeTime) -> None:
    backend = FakeBackend([("completed", {0: 1.0, 1: None, 2: None}), ("completed", {1: 1.0, 2: 1.0})])
    result = run(make(backend, [OLD, MANAGED], time))
    assert [body["seeds"] for body in backend.submitted] == [[0, 1, 2], [1, 2]]
    assert backend.cancelled == []
    assert (result.succeeded, result.mean_reward) == (True, 1.0)


def test_without_a_restart_failed_rollouts_stay_failed(time: FakeTime) -> None:
    backend = FakeBackend([("completed", {0: 1.0, 1: None, 2: 1.0})])
    result = run(make(backend, [OLD], time))
    assert len(backend.submitted) == 1
    assert [row.error for row in result.rows] == [None, "task app answered 530", None]


def test_a_job_that_ends_while_the_tunnel_is_down_waits_for_its_restart(time: FakeTime) -> None:
    backend = FakeBackend(
        [("failed", {0: None, 1: None, 2: None}), ("completed", dict.fromkeys(range(3), 1.0))]
    )
    result = run(make(backend, [OLD, DOWN, DOWN, DOWN, NEW], time))
    assert [body["task_app_url"] for body in backend.submitted] == [OLD.url, NEW.url]
    assert (result.succeeded, result.mean_reward) == (True, 1.0)


def test_a_tunnel_that_stays_down_is_not_waited_for_for_ever(time: FakeTime) -> None:
    backend = FakeBackend([("completed", {0: 1.0, 1: None, 2: None})])
    result = run(make(backend, [OLD, DOWN], time), timeout=600.0)
    assert rewards(result) == {0: 1.0, 1: None, 2: None}
    assert module.OUTAGE_S <= sum(time.slept) < module.OUTAGE_S + 10


def test_a_job_is_submitted_once_the_tunnel_is_up(time: FakeTime) -> None:
    backend = FakeBackend([("completed", dict.fromkeys(range(3), 1.0))])
    run(make(backend, [DOWN, DOWN, NEW], time))
    assert [body["task_app_url"] for body in backend.submitted] == [NEW.url]


def test_a_tunnel_that_died_for_good_ends_the_eval_and_keeps_its_rewards(time: FakeTime) -> None:
    backend = FakeBackend([("running", {0: 1.0})])
    result = run(make(backend, [OLD, OLD, TunnelError("the tunnel has died for good")], time))
    assert backend.cancelled == ["eval-0"]
    assert (result.failed, result.error) == (True, "the tunnel has died for good")
    assert rewards(result) == {0: 1.0}


def test_a_backend_that_is_away_for_a_while_does_not_end_the_eval(time: FakeTime) -> None:
    def away(request: httpx.Request) -> httpx.Response | None:
        if request.method == "GET" and time.now < 1000.0 + module.SILENCE_S / 2:
            raise httpx.ConnectError("refused")
        return None

    backend = FakeBackend([("completed", dict.fromkeys(range(3), 1.0))], trouble=away)
    assert run(make(backend, [OLD], time)).mean_reward == 1.0


def test_a_backend_that_stays_away_ends_it_and_its_job_is_cancelled_at_the_end(time: FakeTime) -> None:
    gone = True

    def away(request: httpx.Request) -> httpx.Response | None:
        if gone and not request.url.path.endswith("/jobs"):
            raise httpx.ConnectError("refused")
        return None

    backend = FakeBackend([("running", {})], trouble=away)
    jobs = make(backend, [OLD], time)
    result = run(jobs, timeout=600.0)
    assert result.failed
    assert "no connection to the backend" in str(result.error)
    assert sum(time.slept) >= module.SILENCE_S
    gone = False
    assert jobs.cancel_all() == []
    assert backend.cancelled == ["eval-0"]


@pytest.mark.parametrize(
    ("takes_extensions", "least_s"),
    [
        pytest.param(True, 10.0 + module.STALL_S, id="ours"),
        # Three seeds, two at once, and perhaps no word of it before the end.
        pytest.param(False, 2 * 10.0 + module.STALL_S, id="published API"),
    ],
)
def test_a_job_without_progress_is_given_up_and_cancelled(
    time: FakeTime, takes_extensions: bool, least_s: float
) -> None:
    backend = FakeBackend([("running", {0: 1.0})])
    result = run(make(backend, [OLD], time, takes_extensions=takes_extensions))
    assert str(result.error).startswith("job eval-0 made no progress for ")
    assert str(result.error).endswith(" s (1 of 3 rollouts done)")
    assert least_s < sum(time.slept) < least_s + 10
    assert backend.cancelled == ["eval-0"]


def test_samples_that_cannot_all_be_submitted_are_none(time: FakeTime) -> None:
    def refuse_the_second(request: httpx.Request) -> httpx.Response | None:
        if request.url.path.endswith("/jobs") and len(backend.submitted) == 1:
            return httpx.Response(429, json={"detail": "no more jobs today"})
        return None

    backend = FakeBackend([("running", {})], trouble=refuse_the_second)
    jobs = make(backend, [OLD], time, takes_extensions=False)
    result = run(jobs, samples=2)
    assert "no more jobs today" in str(result.error)
    assert backend.cancelled == ["eval-0"]
    assert jobs.cancel_all() == []


def test_what_is_left_over_is_cancelled_once(time: FakeTime) -> None:
    backend = FakeBackend([("running", {})] * 3)
    jobs = make(backend, [OLD], time)
    for number in range(3):
        jobs.submit(Request(f"test_{number}", EvalSpec(seeds=(0,)), 0, "app"), "app")
    assert jobs.cancel_all() == []
    assert sorted(backend.cancelled) == ["eval-0", "eval-1", "eval-2"]
    assert jobs.cancel_all() == []
    assert len(backend.cancelled) == 3


def test_the_embedded_backend_is_asked_nothing_at_the_end(time: FakeTime) -> None:
    backend = FakeBackend([("running", {})])
    jobs = make(backend, [OLD], time, is_local=True)
    jobs.submit(Request("test_x", EvalSpec(seeds=(0,)), 0, "app"), "app")
    assert list(jobs.cancel_all()) == []
    assert backend.cancelled == []


def test_a_backend_that_hangs_does_not_hold_up_the_end(
    time: FakeTime, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = threading.Event()

    def hang(request: httpx.Request) -> httpx.Response | None:
        if request.url.path == "/api/eval/jobs/eval-0/cancel":
            free.wait(20)
        return None

    monkeypatch.setattr(module, "CANCEL_S", 0.3)
    backend = FakeBackend([("running", {})] * 2, trouble=hang)
    jobs = make(backend, [OLD], time)
    for number in range(2):
        jobs.submit(Request(f"test_{number}", EvalSpec(seeds=(0,)), 0, "app"), "app")
    before = set(threading.enumerate())
    assert jobs.cancel_all() == ["eval-0"]
    assert backend.cancelled == ["eval-1"]
    free.set()
    for thread in set(threading.enumerate()) - before:
        thread.join(5)
