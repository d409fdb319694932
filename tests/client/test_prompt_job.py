from __future__ import annotations

import asyncio
import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import respx
from fakes.scripted_backend import KEY, FakeTime, ScriptedBackend, client_of, ok

from pytest_synth.client import PromptLearningClient, PromptLearningJob, PromptLearningJobConfig, SynthClient
from pytest_synth.errors import (
    AuthenticationError,
    ConfigError,
    JobTimeout,
    NotFoundError,
    SynthError,
    TaskAppError,
    UnexpectedAnswer,
)

SUBMIT = "/api/policy-optimization/online/jobs"
JOB = f"{SUBMIT}/pl_1"
EVENTS = "/api/prompt-learning/online/jobs/pl_1/events"
BODY = {
    "prompt_learning": {
        "algorithm": "gepa",
        "task_app_url": "http://127.0.0.1:1",
        "policy": {"model": "m", "provider": "p"},
        "gepa": {"evaluation": {"seeds": [0, 1]}, "rollout": {"budget": 80}},
    }
}
NEW_BEST = {
    "seq": 1,
    "type": "learning.policy.gepa.candidate.new_best",
    "data": {"best_prompt": {"messages": []}, "best_score": 0.5},
}
RANKED = {
    "seq": 2,
    "type": "learning.policy.gepa.candidate.evaluated",
    "data": {"rank": 1, "full_text": "the text"},
}


@pytest.fixture
def backend() -> ScriptedBackend:
    scripted = ScriptedBackend()
    scripted.on("POST", SUBMIT, httpx.Response(201, json={"job_id": "pl_1"}))
    scripted.on("GET", EVENTS, ok(events=[NEW_BEST, RANKED]), ok(events=[]))
    return scripted


@pytest.fixture
def time() -> FakeTime:
    return FakeTime()


@pytest.fixture
def job(backend: ScriptedBackend, time: FakeTime) -> PromptLearningJob:
    return PromptLearningJob(None, "pl_1", client=client_of(backend, time))


def new(backend: ScriptedBackend, **changes: Any) -> PromptLearningJob:
    given = {"backend_url": "http://backend.test/api", "api_key": KEY, "config_dict": BODY, **changes}
    return PromptLearningJob(
        PromptLearningJobConfig(**given), skip_health_check=True, client=client_of(backend)
    )


def test_the_body_has_the_fields_of_the_wire_and_the_callers_dict_is_not_touched(
    backend: ScriptedBackend,
) -> None:
    before = copy.deepcopy(BODY)
    overrides = {"prompt_learning.gepa.rollout": {"max_concurrent": 4}, "prompt_learning.policy.model": "n"}
    for _ in range(2):  # a second use of the same dict must not fail
        assert new(backend, overrides=overrides, task_app_api_key="env").submit() == "pl_1"
        assert backend.body() == {
            "algorithm": "gepa",
            "config_body": {
                "prompt_learning": {
                    "algorithm": "gepa",
                    "task_app_url": "http://127.0.0.1:1",
                    "policy": {"model": "n", "provider": "p"},
                    "gepa": {
                        "evaluation": {"seeds": [0, 1]},
                        "rollout": {"budget": 80, "max_concurrent": 4},
                    },
                    "task_app_api_key": "env",
                }
            },
            "overrides": {
                "prompt_learning.gepa.rollout.max_concurrent": 4,
                "prompt_learning.policy.model": "n",
            },
            "metadata": {"backend_base_url": "http://backend.test/api"},
            "auto_start": True,
        }
    assert before == BODY


def test_the_other_names_of_section_and_url_are_understood(backend: ScriptedBackend) -> None:
    section = {"algorithm": "gepa", "local_api_url": "http://app"}
    new(backend, config_dict={"policy_optimization": section}).submit()
    assert backend.body()["config_body"] == {
        "prompt_learning": {"algorithm": "gepa", "task_app_url": "http://app"}
    }


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({}, "config_dict has no section 'prompt_learning'"),
        ({"prompt_learning": {"task_app_url": "http://a"}}, r"prompt_learning\.algorithm .* is None"),
        ({"prompt_learning": {"algorithm": "gepa"}}, r"prompt_learning\.task_app_url .* is None"),
        ({"prompt_learning": {"algorithm": "gepa", "task_app_url": "app:1"}}, "is 'app:1'; it starts with"),
    ],
)
def test_a_configuration_without_the_essentials_is_refused(
    backend: ScriptedBackend, config: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        new(backend, config_dict=config).submit()
    assert backend.requests == []


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("gepa.rollout.budget", "'gepa.rollout.budget' does not start with 'prompt_learning'"),
        ("prompt_learning.algorithm.x", "goes through 'algorithm', which is 'gepa' and no table"),
    ],
)
def test_an_override_that_would_do_nothing_is_refused(
    backend: ScriptedBackend, path: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        new(backend, overrides={path: 1}).submit()


@pytest.mark.parametrize("given", [{}, {"config_path": "a.toml", "config_dict": {}}])
def test_one_configuration_is_needed(given: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="config_path or config_dict: one of the two"):
        PromptLearningJobConfig(api_key="k", **given)


def test_a_configuration_shows_no_key() -> None:
    made = PromptLearningJobConfig(
        api_key="sk-1", task_app_api_key="env-2", config_dict={"prompt_learning": {"api_key": "sk-3"}}
    )
    assert not any(key in repr(made) for key in ("sk-1", "env-2", "sk-3"))


def test_a_toml_file_is_a_configuration_too(backend: ScriptedBackend, tmp_path: Path) -> None:
    path = tmp_path / "gepa.toml"
    path.write_text('[prompt_learning]\nalgorithm = "gepa"\ntask_app_url = "http://app"\n', encoding="utf-8")
    job = PromptLearningJob.from_config(path, "http://backend.test", KEY, skip_health_check=True)
    job.client = client_of(backend)
    job.submit()
    assert backend.body()["config_body"]["prompt_learning"]["algorithm"] == "gepa"


def test_a_missing_toml_file_is_refused_by_name(backend: ScriptedBackend) -> None:
    with pytest.raises(ConfigError, match=r"cannot read 'none\.toml': No such file"):
        new(backend, config_dict=None, config_path="none.toml").submit()


def test_a_job_is_submitted_once(backend: ScriptedBackend) -> None:
    job = new(backend)
    job.submit()
    with pytest.raises(SynthError, match="was submitted already, as pl_1"):
        job.submit()
    assert backend.count("POST", SUBMIT) == 1


def test_an_id_of_another_kind_is_refused(backend: ScriptedBackend) -> None:
    backend.on("POST", SUBMIT, ok(id="eval-1"))
    with pytest.raises(
        ConfigError, match="'eval-1' is no id of a prompt-learning job; those start with 'pl_'"
    ):
        new(backend).submit()
    with pytest.raises(ConfigError, match="'eval-1' is no id"):
        PromptLearningJob.from_job_id("eval-1", "http://b", "k")


def test_an_answer_without_an_id_is_refused(backend: ScriptedBackend) -> None:
    backend.on("POST", SUBMIT, ok(status="queued"))
    with pytest.raises(UnexpectedAnswer, match="answered without a job_id"):
        new(backend).submit()


@pytest.mark.parametrize(
    "method", ["get_status", "get_results", "cancel", "poll_until_complete", "stream_until_complete"]
)
def test_a_job_must_be_submitted_first(backend: ScriptedBackend, method: str) -> None:
    with pytest.raises(SynthError, match=r"not been submitted yet; call submit\(\) first"):
        getattr(new(backend), method)()


def test_taking_up_a_job_by_its_id_mints_uploads_and_asks_for_nothing(tmp_path: Path) -> None:
    with respx.mock:  # any call would be an error
        job = PromptLearningJob.from_job_id("pl_1", "http://backend.test", KEY)
    assert (job.job_id, repr(job)) == ("pl_1", "PromptLearningJob(pl_1)")
    assert list((tmp_path / "home").iterdir()) == []


def both_ways(job: PromptLearningJob, method: str, **arguments: Any) -> list[Any]:
    """Call a method synchronously, asynchronously, and synchronously inside a running loop."""

    async def inside() -> Any:
        return getattr(job, method)(**arguments)

    return [
        getattr(job, method)(**arguments),
        asyncio.run(getattr(job, f"a{method}")(**arguments)),
        asyncio.run(inside()),
    ]


def test_polling_ends_with_succeeded(backend: ScriptedBackend, job: PromptLearningJob) -> None:
    done = {"status": "completed", "best_score": 0.0, "best_prompt": "p"}
    backend.on("GET", JOB, ok(status="queued"), ok(status="in_progress"), ok(**done))
    for result in both_ways(job, "poll_until_complete", interval=1.0):
        assert (result.status.value, result.best_score, result.best_prompt) == ("succeeded", 0.0, "p")
    assert backend.count("GET", EVENTS) == 0


def test_what_the_status_does_not_say_is_read_from_the_events(
    backend: ScriptedBackend, job: PromptLearningJob
) -> None:
    backend.on("GET", JOB, ok(status="succeeded", best_score=0.0))
    result = job.poll_until_complete()
    assert (result.best_score, result.best_prompt) == (0.0, {"messages": []})


def test_progress_shows_the_score(
    backend: ScriptedBackend, job: PromptLearningJob, capsys: pytest.CaptureFixture[str]
) -> None:
    running = [ok(status="running"), ok(status="running", best_score=0.0)]
    backend.on("GET", JOB, *running, ok(status="succeeded", best_score=0.85, best_prompt="p"))
    job.poll_until_complete(interval=15.0, progress=True)
    assert capsys.readouterr().out.splitlines() == [
        "[00:00] running",
        "[00:15] running | score: 0.00",
        "[00:30] succeeded | score: 0.85",
    ]


def test_progress_tells_the_plan_the_rollouts_and_the_outcome(
    backend: ScriptedBackend, job: PromptLearningJob, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = {"plan": {"text": "80 rollouts: baseline 10, 1 of 9 children"}}
    progress = {"progress": {"rollouts_completed": 41, "rollouts_total": 80}}
    backend.on(
        "GET",
        JOB,
        ok(status="queued", **plan),
        ok(status="running", **plan),
        ok(status="running", best_score=0.4, **plan, **progress),
        ok(
            status="succeeded",
            best_score=0.4,
            best_prompt="p",
            summary="80 of 80 rollouts",
            **plan,
            **progress,
        ),
    )
    job.poll_until_complete(interval=15.0, progress=True)
    assert capsys.readouterr().out.splitlines() == [
        "[00:00] plan: 80 rollouts: baseline 10, 1 of 9 children",
        "[00:00] queued",
        "[00:15] running",
        "[00:30] running | 41/80 rollouts | score: 0.40",
        "[00:45] succeeded | score: 0.40",
        "[00:45] 80 of 80 rollouts",
    ]


def test_a_poll_out_of_time_says_how_many_rollouts_are_done(
    backend: ScriptedBackend, job: PromptLearningJob
) -> None:
    progress = {"rollouts_completed": 41, "rollouts_total": 80}
    backend.on("GET", JOB, ok(status="running", progress=progress))
    with pytest.raises(JobTimeout, match=r"still 'running' after 30 s \(41 of 80 rollouts done\)"):
        job.poll_until_complete(timeout=30.0)


def test_a_poll_out_of_time_raises_with_the_last_document(
    backend: ScriptedBackend, job: PromptLearningJob
) -> None:
    backend.on("GET", JOB, ok(status="running", best_score=0.5))
    with pytest.raises(JobTimeout, match="job pl_1 still 'running' after 30 s; raise timeout") as caught:
        job.poll_until_complete(timeout=30.0)
    assert caught.value.document == {"status": "running", "best_score": 0.5}


@pytest.mark.parametrize(("code", "kind"), [(401, AuthenticationError), (404, NotFoundError)])
def test_a_poll_ends_at_once_where_waiting_does_not_help(
    backend: ScriptedBackend, job: PromptLearningJob, time: FakeTime, code: int, kind: type[Exception]
) -> None:
    backend.on("GET", JOB, httpx.Response(code))
    with pytest.raises(kind):
        job.poll_until_complete()
    assert time.slept == []


def test_a_stream_brings_events_and_the_result(backend: ScriptedBackend, job: PromptLearningJob) -> None:
    end = '{"seq": 3, "type": "learning.policy.gepa.job.completed", "data": {}}'
    middle = '{"seq": 2, "type": "learning.policy.gepa.validation.completed", "data": {}}'
    backend.on("GET", f"{JOB}/events/stream", httpx.Response(200, text=f"data: {middle}\n\ndata: {end}\n\n"))
    backend.on("GET", JOB, ok(status="running"), ok(status="succeeded"))
    backend.on("GET", EVENTS, ok(events=[]), ok(events=[NEW_BEST, RANKED]), ok(events=[]))
    events: list[Any] = []
    result = job.stream_until_complete(on_event=events.append)
    assert ([e["seq"] for e in events], result.best_score) == ([2, 3], 0.5)


@pytest.mark.parametrize(
    ("method", "arguments", "expected"),
    [
        ("get_results", {}, {"best_score": 0.5, "best_prompt": {"messages": []}}),
        ("get_best_prompt_text", {}, "the text"),
        ("get_best_prompt_text", {"rank": 2}, None),
        ("cancel", {"reason": "enough"}, {"status": "succeeded"}),
        ("query_workflow_state", {}, {"job_id": "pl_1", "workflow_state": None}),
        ("get_status", {}, {"status": "running"}),
    ],
)
def test_every_question_can_be_asked_both_ways(
    backend: ScriptedBackend, job: PromptLearningJob, method: str, arguments: Any, expected: Any
) -> None:
    backend.on("GET", EVENTS, *[ok(events=[NEW_BEST, RANKED]), ok(events=[])] * 3)
    backend.on("POST", f"{JOB}/cancel", ok(status="succeeded"))
    backend.on("GET", "/api/jobs/pl_1/workflow-state", ok(job_id="pl_1", workflow_state=None))
    backend.on("GET", "/api/prompt-learning/online/jobs/pl_1", ok(status="running"))
    for answer in both_ways(job, method, **arguments):
        if isinstance(expected, dict):
            assert {name: answer[name] for name in expected} == expected
        else:
            assert answer == expected


def test_the_published_asynchronous_names_work(backend: ScriptedBackend, job: PromptLearningJob) -> None:
    assert asyncio.run(job.get_best_prompt_text_async()) == "the text"


def test_a_workflow_that_cannot_be_asked_is_told(backend: ScriptedBackend, job: PromptLearningJob) -> None:
    backend.on("GET", "/api/jobs/pl_1/workflow-state", httpx.Response(404, json={"detail": "no workflow"}))
    assert job.query_workflow_state() == {
        "job_id": "pl_1",
        "workflow_state": None,
        "error": "HTTP 404: no workflow",
    }
    backend.on("GET", "/api/jobs/pl_1/workflow-state", httpx.Response(401))
    with pytest.raises(AuthenticationError):
        job.query_workflow_state()


@pytest.mark.parametrize("rank", [0, -1])
def test_a_rank_below_one_is_refused(job: PromptLearningJob, rank: int) -> None:
    with pytest.raises(ConfigError, match="the best prompt has rank 1"):
        job.get_best_prompt_text(rank)


# The task app is asked before the submission.


def check(monkeypatch: pytest.MonkeyPatch, url: str, **options: Any) -> tuple[str, list[httpx.Request]]:
    """Submit a job whose task app has this URL; return the id and what the task app was asked."""
    monkeypatch.setenv("ENVIRONMENT_API_KEY", "env-key")
    config = copy.deepcopy(BODY)
    config["prompt_learning"]["task_app_url"] = url
    with respx.mock(assert_all_called=False) as router:
        router.post(f"http://backend.test{SUBMIT}").respond(201, json={"job_id": "pl_1"})
        router.get("http://app.test/base/health").respond(json={"healthy": True})
        router.get("http://app.test/base/task_info").respond(json={"taskset": {}})
        router.get("http://wrong.test/health").respond(400, json={"detail": {"error": {"message": "no"}}})
        router.get("http://broken.test/health").respond(200, json={})
        router.get("http://broken.test/task_info").respond(404, json={"detail": "Not Found"})
        router.get("http://dead.test/health").mock(side_effect=httpx.ConnectError("refused"))
        job = PromptLearningJob.from_dict(config, "http://backend.test", KEY, **options)
        job.client = SynthClient("http://backend.test", KEY, timing=FakeTime().timing)
        job_id = job.submit()
        return job_id, [call.request for call in router.calls if call.request.url.host != "backend.test"]


def test_the_task_app_is_asked_with_its_own_key_and_not_with_the_backends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    job_id, asked = check(monkeypatch, "http://app.test/base/")
    assert (job_id, [r.url.path for r in asked]) == ("pl_1", ["/base/health", "/base/task_info"])
    assert {r.headers["x-api-key"] for r in asked} == {"env-key"}
    assert all(KEY not in str(r.headers) for r in asked)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("http://wrong.test", "answered /health with 400: no; its ENVIRONMENT_API_KEY differs from yours"),
        ("http://broken.test", "the task app at http://broken.test answered /task_info with 404: Not Found"),
        ("http://dead.test", r"does not answer /health \(refused\); is it running\?"),
    ],
)
def test_a_task_app_that_is_not_right_is_named_before_anything_is_submitted(
    monkeypatch: pytest.MonkeyPatch, url: str, message: str
) -> None:
    with pytest.raises(TaskAppError, match=message):
        check(monkeypatch, url)


def test_the_check_can_be_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    assert check(monkeypatch, "http://dead.test", skip_health_check=True) == ("pl_1", [])


def test_a_tunnel_is_not_checked_but_a_name_like_one_is(monkeypatch: pytest.MonkeyPatch) -> None:
    assert check(monkeypatch, "https://some-words.trycloudflare.com") == ("pl_1", [])
    with pytest.raises(respx.models.AllMockedAssertionError):
        check(monkeypatch, "https://evil.trycloudflare.com.example.org")


# PromptLearningClient

Answers = Callable[[PromptLearningClient], Any]


@pytest.fixture
def reader(backend: ScriptedBackend, time: FakeTime) -> PromptLearningClient:
    return PromptLearningClient(client=client_of(backend, time))


def test_prompts_are_read_both_ways(backend: ScriptedBackend, reader: PromptLearningClient) -> None:
    backend.on("GET", EVENTS, *[ok(events=[NEW_BEST, RANKED]), ok(events=[])] * 6)

    async def ask() -> tuple[Any, ...]:
        return (
            await reader.get_prompts("pl_1"),
            await reader.get_prompt_text("pl_1"),
            await reader.get_scoring_summary("pl_1"),
        )

    found, text, summary = asyncio.run(ask())
    assert (found.best_score, text, summary["num_candidates_tried"]) == (0.5, "the text", 0)
    assert reader.get_prompts_sync("pl_1") == found
    assert reader.get_prompt_text_sync("pl_1") == text
    assert reader.get_scoring_summary_sync("pl_1") == summary


def test_a_job_and_its_events_are_read_both_ways(
    backend: ScriptedBackend, reader: PromptLearningClient
) -> None:
    backend.on("GET", "/api/prompt-learning/online/jobs/pl_1", ok(status="running"))
    backend.on("GET", EVENTS, ok(events=[NEW_BEST]), httpx.Response(200, json=[RANKED]))
    assert asyncio.run(reader.get_job("pl_1")) == reader.get_job_sync("pl_1") == {"status": "running"}
    assert asyncio.run(reader.get_events("pl_1", since_seq=3, limit=7)) == [NEW_BEST]
    assert dict(backend.requests[-1].url.params) == {"since_seq": "3", "limit": "7"}
    assert reader.get_events_sync("pl_1") == [RANKED]  # a bare list will do
    assert dict(backend.requests[-1].url.params) == {"since_seq": "0", "limit": "5000"}


def test_all_pages_of_events_are_read(backend: ScriptedBackend, reader: PromptLearningClient) -> None:
    backend.on("GET", EVENTS, ok(events=[NEW_BEST]), ok(events=[RANKED]), ok(events=[]))
    assert reader.get_prompt_text_sync("pl_1") == "the text"
    assert [request.url.params["since_seq"] for request in backend.requests] == ["0", "1", "2"]


def test_a_service_that_knows_no_cursor_is_not_read_for_ever(
    backend: ScriptedBackend, reader: PromptLearningClient
) -> None:
    backend.on("GET", EVENTS, ok(events=[RANKED, NEW_BEST]))
    assert len(reader.get_prompts_sync("pl_1").top_prompts) == 1
    assert backend.count("GET", EVENTS) == 2


@pytest.mark.parametrize("answer", [{"events": None}, {"items": []}, [1], "text"])
def test_an_answer_without_events_is_refused(
    backend: ScriptedBackend, reader: PromptLearningClient, answer: Any
) -> None:
    backend.on("GET", EVENTS, httpx.Response(200, json=answer))
    with pytest.raises(UnexpectedAnswer, match="answered without a list of events"):
        reader.get_events_sync("pl_1")


def test_ids_of_other_jobs_are_refused(backend: ScriptedBackend, reader: PromptLearningClient) -> None:
    with pytest.raises(ConfigError, match="'eval-1' is no id of a prompt-learning job"):
        asyncio.run(reader.get_prompts("eval-1"))
    assert backend.requests == []


def test_address_and_key_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SYNTH_BACKEND_URL", "http://backend.test/api")
    monkeypatch.setenv("SYNTH_API_KEY", KEY)
    with respx.mock as router:
        router.get(f"http://backend.test{EVENTS}").respond(json={"events": []})
        assert asyncio.run(PromptLearningClient().get_prompts("pl_1")).best_score is None
