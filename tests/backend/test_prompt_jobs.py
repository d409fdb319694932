"""Prompt-learning jobs over HTTP: submit, documents, events, cancel, resume; not the search itself."""

from __future__ import annotations

import asyncio
import itertools
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from fakes.backend_api import Api, search_body, wait_until
from fakes.label_app import BASELINE, LabelApp
from fakes.model_provider import FakeProvider, completion
from fakes.rollout_app import RolloutApp, reward_answer

from pytest_synth._serving import ServerThread, bind_loopback
from pytest_synth.backend import BackendSettings, start
from pytest_synth.backend import app as backend_app
from pytest_synth.backend.jobs import prompt_jobs
from pytest_synth.backend.jobs.optimizers import SearchEnd, SearchPlan, SearchRun
from pytest_synth.contracts.jobs import JobStatus
from pytest_synth.prompts import Prompt

Serve = Callable[[RolloutApp], str]
Open = Callable[..., Api]
PREFIXES = ["/api/prompt-learning/online/jobs", "/api/policy-optimization/online/jobs"]
READ_PREFIXES = ["/api/v1/offline/jobs", "/api/v2/offline/jobs", "/v1/offline/jobs", "/v2/offline/jobs"]
PREFIX = "learning.policy.gepa."


@pytest.fixture(scope="module")
def done(api: Api, stage: Any) -> tuple[str, dict[str, Any], LabelApp]:
    """A job that has succeeded: its id, its status, its task app."""
    app = LabelApp()
    job_id = api.submit_search(stage[1] + stage[0].add(app))
    return job_id, api.wait_search(job_id), app


Done = tuple[str, dict[str, Any], LabelApp]


def test_a_search_ends_with_a_better_prompt_and_its_score(done: Done) -> None:
    job_id, status, _ = done
    assert job_id.startswith("pl_")
    assert (status["status"], status["error"], status["algorithm"]) == ("succeeded", None, "gepa")
    assert status["best_score"] == status["best_reward"] == 1.0
    assert status["baseline_score"] == status["baseline_reward"] == 0.4
    assert status["best_prompt"] == status["best_candidate"]
    [message] = status["best_prompt"]["messages"]
    assert (message["role"], message["order"]) == ("system", 0)
    assert "money" in message["pattern"]
    assert status["created_at"] <= status["started_at"] <= status["completed_at"]
    assert status["plan"]["budget"] == 60
    assert status["finish_reason"] in ("generations", "perfect")


def test_rollouts_reported_are_the_rollouts_that_ran(done: Done) -> None:
    _, status, app = done
    assert status["total_rollouts"] == len(app.bodies) <= 60


def test_rollouts_carry_split_seed_policy_and_environment(done: Done) -> None:
    body = done[2].bodies[0]
    assert body["env"]["env_name"] == "toy"
    assert body["env"]["config"] == {"split": "train"}
    assert body["policy"]["config"]["model"] == "lexical"
    assert body["policy"]["config"]["inference_url"].endswith(body["trace_correlation_id"])


def test_events_are_numbered_objects_that_end_with_the_result(api: Api, done: Done) -> None:
    job_id, status, _ = done
    events = api.search_events(job_id)
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    assert all(isinstance(event["data"], dict) for event in events)
    assert events[0]["type"] == PREFIX + "job.started"
    assert events[-1]["type"] == PREFIX + "job.completed"
    assert events[-1]["data"]["best_prompt"] == status["best_prompt"]
    ends = [event for event in events if event["type"].startswith(PREFIX + "job.") and "data" in event]
    assert [event["type"] for event in ends].count(PREFIX + "job.completed") == 1


@pytest.mark.parametrize("prefix", PREFIXES + READ_PREFIXES)
def test_every_prefix_reads_the_same_job(api: Api, done: Done, prefix: str) -> None:
    job_id, status, _ = done
    url = f"{prefix}/{job_id}"
    assert api.http.get(url).json() == status
    assert api.http.get(url + "/events", params={"since_seq": 1, "limit": 2}).json()["next_seq"] == 3
    assert api.http.get(url + "/metrics").json() == {"points": []}
    assert api.http.get(url + "/results").json()["best_prompt"] == status["best_prompt"]
    assert api.http.post(url + "/cancel", json={}).json()["message"] == "the job is succeeded"
    with api.http.stream("GET", url + "/events/stream", params={"since_seq": 0}) as answer:
        seen = [json.loads(line[6:])["seq"] for line in answer.iter_lines() if line.startswith("data: ")]
    assert seen == [event["seq"] for event in api.search_events(job_id)]


def test_the_paths_of_all_jobs_know_it_too(api: Api, done: Done) -> None:
    job_id, status, _ = done
    assert api.http.get(f"/api/jobs/{job_id}").json() == status
    assert api.http.post(f"/api/jobs/{job_id}/cancel").json()["message"] == "the job is succeeded"
    state = api.http.get(f"/api/jobs/{job_id}/workflow-state").json()["workflow_state"]
    assert (state["status"], state["algorithm"]) == ("succeeded", "gepa")
    assert state["progress"]["rollouts_total"] == 60


def test_results_hold_front_and_held_out_scores(api: Api, done: Done) -> None:
    results = api.http.get(f"{PREFIXES[0]}/{done[0]}/results").json()
    assert results["status"] == "succeeded"
    assert [entry["is_baseline"] for entry in results["validation"]] == [True, False]
    assert results["history"][0]["pattern"]["messages"]


def test_an_eval_job_is_no_prompt_job(api: Api, serve: Serve, done: Done) -> None:
    eval_id = api.submit(serve(RolloutApp()))
    assert api.http.get(f"{PREFIXES[0]}/{eval_id}").json() == {
        "detail": f"no prompt-learning job {eval_id!r}"
    }
    assert api.http.get(f"/api/eval/jobs/{done[0]}").status_code == 404
    api.wait(eval_id)
    assert api.http.get(f"/api/jobs/{eval_id}").json() == api.status(eval_id)
    assert api.http.post(f"/api/jobs/{eval_id}/cancel").json()["message"] == "the job is completed"


# Submitting


def bare(body: dict[str, Any]) -> dict[str, Any]:
    return body


def whole(body: dict[str, Any]) -> dict[str, Any]:
    """As the published client sends it."""
    return {
        "algorithm": "gepa",
        "config_body": body,
        "overrides": {},
        "metadata": {"backend_base_url": "http://x/api"},
        "auto_start": True,
    }


def other_section(body: dict[str, Any]) -> dict[str, Any]:
    return {"policy_optimization": body["prompt_learning"]}


def other_url(body: dict[str, Any]) -> dict[str, Any]:
    section = dict(body["prompt_learning"])
    return {"prompt_learning": {**section, "localapi_url": section.pop("task_app_url")}}


def without_algorithm(body: dict[str, Any]) -> dict[str, Any]:
    section = {name: value for name, value in body["prompt_learning"].items() if name != "algorithm"}
    return {"algorithm": "gepa", "config_body": {"prompt_learning": section}}


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("shape", [bare, whole, other_section, other_url, without_algorithm])
def test_every_published_shape_of_the_body_is_taken(
    api: Api, serve: Serve, prefix: str, shape: Callable[[dict[str, Any]], dict[str, Any]]
) -> None:
    answer = api.http.post(prefix, json=shape(search_body(serve(LabelApp()))))
    assert answer.status_code == 201, answer.text
    document = answer.json()
    assert document["job_id"] == document["id"]
    status = api.search(document["job_id"])
    assert status["config"]["prompt_learning"]["algorithm"] == "gepa"
    api.http.post(f"{prefix}/{document['job_id']}/cancel")


def test_overrides_are_applied_where_they_point(api: Api, serve: Serve) -> None:
    body = whole(search_body(serve(LabelApp())))
    body["overrides"] = {
        "prompt_learning.gepa.rollout.budget": 50,
        "gepa.evaluation.validation_seeds": [30, 31],
        "gepa.mutation.rate": 0.5,
    }
    job_id = api.http.post(PREFIXES[0], json=body).json()["job_id"]
    status = api.search(job_id)
    assert status["plan"]["budget"] == 50
    assert status["config"]["prompt_learning"]["gepa"]["evaluation"]["validation_seeds"] == [30, 31]
    assert status["config"]["prompt_learning"]["gepa"]["mutation"] == {"rate": 0.5}
    api.http.post(f"{PREFIXES[0]}/{job_id}/cancel")


REFUSED = [
    pytest.param({}, "prompt_learning", "is missing", id="no section"),
    pytest.param({"prompt_learning": 3}, "prompt_learning", "valid dictionary", id="section is no object"),
    pytest.param({"config_body": []}, "config_body", "valid dictionary", id="config is no object"),
    pytest.param(
        {"config_body": {"prompt_learning": [1]}},
        "config_body.prompt_learning",
        "is not an object",
        id="section in config is no object",
    ),
    pytest.param({**search_body("http://x"), "metadata": 1}, "metadata", "valid dictionary", id="metadata"),
    pytest.param(
        {**search_body("http://x"), "auto_start": False}, "auto_start", "a job starts at once", id="later"
    ),
    pytest.param(
        {"algorithm": "mipro", "config_body": search_body("http://x")},
        "algorithm",
        "is 'mipro', but prompt_learning.algorithm is another",
        id="two algorithms",
    ),
    pytest.param(
        {**search_body("http://x"), "overrides": {"env_name.x": 1}},
        "overrides",
        "has 'env_name.x', but 'env_name' is no section",
        id="override of a value",
    ),
    pytest.param(
        search_body("http://x", task_app_api_key="a\nb"),
        "prompt_learning.task_app_api_key",
        "no text that a header can carry",
        id="key",
    ),
    pytest.param(search_body("ftp://x"), "prompt_learning.task_app_url", "must start with http://", id="url"),
    pytest.param(
        search_body("http://x", algorithm="mipro"), "prompt_learning.algorithm", "'mipro'", id="algorithm"
    ),
    pytest.param(
        search_body("http://x", policy={"provider": "nobody", "model": "m"}),
        "prompt_learning.policy",
        "nobody",
        id="provider",
    ),
    pytest.param(
        search_body("http://x", initial_prompt={"messages": []}),
        "prompt_learning.initial_prompt.messages",
        "at least one message",
        id="no messages",
    ),
    pytest.param(
        {**search_body("http://x"), "overrides": {"a." * 5000 + "b": 1}},
        "overrides",
        "has a path of 5001 steps; at most 100 are read",
        id="deep override",
    ),
    pytest.param(
        search_body("http://x", env_config=json.loads('{"x":' * 120 + "1" + "}" * 120)),
        "prompt_learning",
        "is nested deeper than 100 levels",
        id="deep config",
    ),
]


@pytest.mark.parametrize(("body", "field", "said"), REFUSED)
def test_a_bad_config_is_refused_by_the_field(api: Api, body: dict[str, Any], field: str, said: str) -> None:
    answer = api.http.post(PREFIXES[1], json=body)
    assert answer.status_code == 422
    found = {".".join(entry["loc"]): entry["msg"] for entry in answer.json()["detail"]}
    assert said in found[f"body.{field}"]
    assert found[f"body.{field}"].startswith(field)


def test_all_problems_of_a_config_are_told_at_once(api: Api) -> None:
    body = search_body("ftp://x", algorithm=None)
    body["prompt_learning"]["gepa"]["rollout"]["budget"] = 0
    found = {".".join(entry["loc"]) for entry in api.http.post(PREFIXES[0], json=body).json()["detail"]}
    assert found >= {
        "body.prompt_learning.task_app_url",
        "body.prompt_learning.algorithm",
        "body.prompt_learning.gepa.rollout.budget",
    }


# Failures and the end


def test_a_dead_task_app_fails_the_job_with_the_reason(api: Api) -> None:
    with bind_loopback() as sock:
        url = f"http://127.0.0.1:{sock.getsockname()[1]}"
    job_id = api.submit_search(url)
    status = api.wait_search(job_id)
    assert status["status"] == "failed"
    assert status["error"].startswith(f"task app at {url} is unreachable")
    [event] = api.search_events(job_id)
    assert (event["type"], event["data"]) == (PREFIX + "job.failed", {"error": status["error"]})
    assert event["level"] == "error"


def test_a_search_whose_rollouts_all_fail_says_why_once(api: Api, serve: Serve) -> None:
    job_id = api.submit_search(serve(RolloutApp()))  # it never calls a model, so no prompt can be applied
    status = api.wait_search(job_id)
    assert status["status"] == "failed"
    assert "prompt not applied: the task app made no model call" in status["error"]
    types = [event["type"] for event in api.search_events(job_id)]
    assert types.count(PREFIX + "job.failed") == 1
    assert types[-1] == PREFIX + "job.failed"


def test_a_seed_out_of_range_fails_the_job(api: Api, serve: Serve) -> None:
    app = LabelApp()
    app.sizes = {"train": 22}
    status = api.wait_search(api.submit_search(serve(app)))
    assert status["error"] == "seed 22 is out of range: split 'train' has 22 rows (0 to 21)"
    assert not app.bodies


def test_a_cancelled_search_stops_its_rollouts(api: Api, serve: Serve) -> None:
    async def hang(body: dict[str, Any]) -> dict[str, Any]:
        await asyncio.sleep(60)
        return reward_answer(body)

    app = RolloutApp(hang)
    job_id = api.submit_search(serve(app))
    wait_until(lambda: app.in_flight == 8)
    answer = api.http.post(f"{PREFIXES[1]}/{job_id}/cancel", json={"reason": "enough"})
    assert answer.json()["message"] == "the job is cancelled"
    status = api.search(job_id)
    assert (status["status"], status["error"]) == ("cancelled", None)
    assert api.search_events(job_id)[-1]["type"] == PREFIX + "job.cancelled"
    assert len(app.bodies) == 8


class StubbornOptimizer:
    """Asks for rollouts for ever, and does not hear of a cancellation."""

    def __init__(self, store: object, gateway: object, *, ceiling: object = None) -> None:
        pass

    def plan(self, section: Mapping[str, Any]) -> SearchPlan:
        policy = section["policy"]
        return SearchPlan(
            app_url=section["task_app_url"],
            env_name=None,
            env_config={},
            policy=policy,
            models={"prompt_learning.policy": policy},
            seeds={},
            max_concurrent=2,
            baseline=None,
            document={},
        )

    async def run(self, run: SearchRun) -> SearchEnd:
        for seed in itertools.count():
            outcome = await run.run_rollout(Prompt.parse(BASELINE), None, seed, 0)
            run.emit(PREFIX + "candidate.new_best", {"best_score": outcome.row.score})
        raise AssertionError


def test_a_search_that_does_not_listen_is_cut_and_keeps_what_it_has_told(
    open_api: Open, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backend_app, "GepaOptimizer", StubbornOptimizer)
    monkeypatch.setattr(prompt_jobs, "CANCEL_S", 1.0)
    api, app = open_api(), LabelApp()
    job_id = api.submit_search(serve(app))
    wait_until(lambda: api.search(job_id)["best_score"] == 1.0)
    app.delay_s = 0.05
    before = len(app.bodies)
    api.http.post(f"{PREFIXES[0]}/{job_id}/cancel", json={})

    status = api.search(job_id)
    assert status["status"] == "cancelled"
    assert status["best_score"] in (0.0, 1.0)  # of the last rollout; what was told before is kept
    assert len(app.bodies) <= before + 3  # one second would have been enough for some fifteen


class LateOptimizer(StubbornOptimizer):
    """Tells of its end long before it ends."""

    async def run(self, run: SearchRun) -> SearchEnd:
        run.emit(PREFIX + "job.started", {})
        run.emit(PREFIX + "job.completed", {"best_score": 0.5})
        await asyncio.sleep(0.1)
        return SearchEnd(JobStatus.SUCCEEDED)


def test_who_hears_of_the_end_finds_it_in_the_status(
    open_api: Open, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    def told() -> bool:
        return any(event["type"] == PREFIX + "job.completed" for event in api.search_events(job_id))

    monkeypatch.setattr(backend_app, "GepaOptimizer", LateOptimizer)
    api = open_api()
    job_id = api.submit_search(serve(LabelApp()))
    wait_until(told)
    status = api.search(job_id)
    assert (status["status"], status["best_score"]) == ("succeeded", 0.5)
    assert [event["type"] for event in api.search_events(job_id)] == [
        PREFIX + "job.started",
        PREFIX + "job.completed",
    ]


def test_a_search_is_cancelled_at_once_while_its_task_app_is_probed(api: Api) -> None:
    with bind_loopback() as sock:  # takes connections and never answers
        job_id = api.submit_search(f"http://127.0.0.1:{sock.getsockname()[1]}")
        wait_until(lambda: api.search(job_id)["status"] == "running")
        came = time.monotonic()
        api.http.post(f"{PREFIXES[0]}/{job_id}/cancel", json={})
        assert time.monotonic() - came < 2
    assert api.search(job_id)["status"] == "cancelled"


def test_keys_stay_out_of_documents_events_and_database(tmp_path: Path, open_api: Open, serve: Serve) -> None:
    api = open_api(db=tmp_path / "b.sqlite")
    policy = {"provider": "offline", "model": "lexical", "api_key": "sk-planted-1"}
    job_id = api.submit_search(serve(LabelApp()), policy={**policy, "config": {"api_key": "sk-planted-2"}})
    files = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    api.wait_search(job_id)
    texts = [api.http.get(f"{PREFIXES[0]}/{job_id}{end}").text for end in ("", "/events", "/results")]
    files += b"".join(path.read_bytes() for path in tmp_path.iterdir())
    for planted in ("env-key-1", "sk-planted-1", "sk-planted-2"):
        assert planted.encode() not in files
        assert planted not in "".join(texts)


@contextmanager
def on_db(db: Path) -> Iterator[Api]:
    settings = BackendSettings(db=db, environ={}, resume=True)
    with (
        start(settings) as backend,
        httpx.Client(base_url=backend.url, headers={"X-API-Key": backend.key}, timeout=30) as http,
    ):
        yield Api(backend, http)


def test_a_stop_in_the_middle_of_a_search_is_quick_and_leaves_no_thread(open_api: Open, serve: Serve) -> None:
    threads = set(threading.enumerate())
    api, app = open_api(), LabelApp(delay_s=0.05)
    api.submit_search(serve(app))
    wait_until(lambda: len(app.bodies) >= 12)
    came = time.monotonic()
    api.backend.stop()
    assert time.monotonic() - came < 1.0
    assert set(threading.enumerate()) <= threads


def test_a_search_goes_on_after_a_stop_to_the_same_result(tmp_path: Path, serve: Serve, done: Done) -> None:
    app = LabelApp(delay_s=0.02)
    with on_db(tmp_path / "b.sqlite") as api:
        job_id = api.submit_search(serve(app))
        wait_until(lambda: len(app.bodies) >= 18)
    before = len(app.bodies)
    with on_db(tmp_path / "b.sqlite") as api:
        status = api.wait_search(job_id)
        events = api.search_events(job_id)

    assert status["status"] == "succeeded"
    expected = done[1]
    for name in ("best_score", "best_prompt", "baseline_score", "finish_reason", "total_rollouts"):
        assert status[name] == expected[name], name
    assert len(app.bodies) <= expected["total_rollouts"] + 8  # what was in flight at the stop
    assert before < len(app.bodies)
    milestones = [event["type"] for event in events if not event["type"].endswith("job.progress")]
    assert milestones.count(PREFIX + "job.started") == milestones.count(PREFIX + "job.completed") == 1
    assert app.bodies[0]["policy"]["config"]["model"] == "lexical"


def test_the_prompt_of_a_search_is_the_one_that_runs(done: Done) -> None:
    """The task app sends its own prompt each time; the gateway puts the candidate in its place."""
    assert done[1]["best_prompt"]["messages"][0]["pattern"] != BASELINE
    assert done[1]["best_score"] > done[1]["baseline_score"]


def test_wildcards_are_filled_with_what_the_task_app_sends(open_api: Open, serve: Serve) -> None:
    """The call that fits the pattern gets the candidate, though the task app makes another one before."""
    number = itertools.count()

    def reply(body: Mapping[str, Any]) -> dict[str, Any]:
        first, last = body["messages"][0], body["messages"][-1]["content"]
        if first["role"] == "user":
            text = f"Label for shop {{shop}}, take {next(number)}.\n- card\n- refund: money"
            return completion(f"```\n{text}\n```")
        return completion("refund" if "refund: money" in first["content"] and "money" in last else "card")

    provider = FakeProvider(reply=reply)
    app = LabelApp(
        system=lambda seed: f"Pick one label for shop {seed}.\n- card\n- refund", asks_first="Translate."
    )
    with ServerThread(provider.app) as served:
        api = open_api(environ={"OPENAI_BASE_URL": f"{served.url}/v1", "OPENAI_API_KEY": "sk-of-a-test"})
        pattern = "Pick one label for shop {shop}.\n- card\n- refund"
        job_id = api.submit_search(
            serve(app),
            initial_prompt={
                "messages": [{"role": "system", "pattern": pattern}],
                "wildcards": {"shop": "REQUIRED"},
            },
            policy={"provider": "openai", "model": "some", "inference_mode": "synth_hosted"},
        )
        status = api.wait_search(job_id)

    assert (status["status"], status["error"]) == ("succeeded", None)
    assert status["best_score"] == 1.0 > status["baseline_score"]
    assert "for shop {shop}, take " in status["best_prompt"]["messages"][0]["pattern"]
    systems = [m["content"] for seen in provider.seen for m in seen.body["messages"] if m["role"] == "system"]
    assert systems.count("Translate.") == len(app.bodies)
    shops = {text.partition("for shop ")[2].split(",")[0].split(".")[0] for text in systems} - {""}
    assert shops == set(map(str, app.runs))
