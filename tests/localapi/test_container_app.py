from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from fakes.container_service import FakeContainer
from fakes.task_caller import TaskCaller
from fastapi import HTTPException
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from pytest_synth._serving import ServerThread, bind_loopback
from pytest_synth.localapi import containers
from pytest_synth.localapi.containers import container_app

POLICY = {"inference_url": "http://gateway/api/interceptor/v1/trial_1/trace_1?cid=trace_1"}
TEST = {"split": "test"}


@pytest.fixture
def container() -> FakeContainer:
    return FakeContainer()


def test_a_rollout_asks_the_container_for_the_row_of_the_seed(container: FakeContainer) -> None:
    policy = {**POLICY, "temperature": 0.5, "max_completion_tokens": 9, "api_key": "sk-callers-own-key"}
    reply = TaskCaller(container_app(container)).rollout(1, config=TEST, policy=policy)
    assert reply.status_code == 200, reply.text
    (asked,) = container.rollouts
    base = "http://gateway/api/interceptor/v1/trial_1/trace_1"
    assert asked.pop("rollout_id").startswith("trace_1-")
    assert asked == {
        "trace_correlation_id": "trace_1",
        "submission_mode": "sync",
        "seed": 1,
        "split": "test",
        "env": {"seed": 1, "config": {"split": "test"}},
        "candidate": {"system": "upper-case it"},
        "policy": {
            "provider": "fake",
            "model": "m-1",
            "api_family": "chat_completions",
            "inference_url": base,
            "base_url": base,
            "credential_mode": "proxy",
            "max_tokens": 9,
            "config": {"temperature": 0.5},
        },
        "task_id": "test:1",
        "task": {"task_id": "test:1", "split": "test", "seed": 1, "text": "b"},
    }


def test_each_attempt_has_an_id_of_its_own(container: FakeContainer) -> None:
    caller = TaskCaller(container_app(container))
    for _ in range(2):
        caller.rollout(1, config=TEST, policy=POLICY)
    assert len({body["rollout_id"] for body in container.rollouts}) == 2


def test_what_does_not_change_is_asked_once() -> None:
    container = FakeContainer()
    caller = TaskCaller(container_app(container))
    for seed in (0, 1, 2):
        caller.rollout(seed, config=TEST, policy=POLICY)
    caller.get("/task_info")
    assert sorted(container.asked) == ["metadata", "program", "taskset"]


def test_the_description_has_splits_and_sizes(container: FakeContainer) -> None:
    assert TaskCaller(container_app(container)).get("/task_info").json() == {
        "taskset": {"taskset_id": "letters", "splits": ["train", "test"], "sizes": {"train": 1, "test": 3}}
    }


def test_an_instance_is_of_the_first_split(container: FakeContainer) -> None:
    caller = TaskCaller(container_app(container))
    instance = caller.get("/task_info?seed=0").json()
    assert instance["task"]["id"] == "letters"
    assert instance["task_metadata"] == {"seed": 0, "split": "train", "task_id": "train:0"}
    assert caller.get("/task_info?seed=1").status_code == 422


@pytest.mark.parametrize(
    ("changes", "block"),
    [
        pytest.param({}, {"outcome_reward": 0.5, "event_rewards": [0.5], "details": {}}, id="reward_info"),
        pytest.param(
            {"reward_info": None, "summary": {"reward": 1}},
            {"outcome_reward": 1, "details": {}},
            id="summary",
        ),
        pytest.param(
            {"reward_info": {"outcome_reward": 0.0}, "summary": {"outcome_reward": 1}},
            {"outcome_reward": 0.0, "details": {}},
            id="zero is a reward",
        ),
        pytest.param(
            {"reward_info": {}, "objective_scores": [{"objective": "f1", "value": 0.25}]},
            {"outcome_reward": 0.25, "outcome_objectives": {"f1": 0.25}, "details": {}},
            id="objective",
        ),
        pytest.param(
            {
                "reward_info": {"outcome_reward": 0, "details": {"prediction": "A", "expected": "B"}},
                "actionable_side_info": {"feedback": "not A"},
            },
            {
                "outcome_reward": 0,
                "details": {"prediction": "A", "predicted": "A", "expected": "B", "feedback": "not A"},
            },
            id="notes",
        ),
        pytest.param(
            {
                "reward_info": {"outcome_reward": 0},
                "summary": {"prediction": "A"},
                "actionable_side_info": {"missed": ["B"]},
            },
            {"outcome_reward": 0, "details": {"predicted": "A", "feedback": '{"missed": ["B"]}'}},
            id="notes elsewhere",
        ),
    ],
)
def test_the_reward_and_the_notes_are_read(
    container: FakeContainer, changes: dict[str, Any], block: dict[str, Any]
) -> None:
    container.answer.update(changes)
    reply = TaskCaller(container_app(container)).rollout(0, config=TEST, policy=POLICY).json()
    found = {name: value for name, value in reply["reward_info"].items() if value is not None}
    assert found == block
    assert reply["trace_correlation_id"] == "trace_1"


@pytest.mark.parametrize(
    ("changes", "code", "message"),
    [
        (
            {"status": "failed", "status_detail": "model said 429"},
            "rollout_failed",
            "TaskAppError: the container's rollout ended as 'failed': model said 429",
        ),
        (
            {"status": "terminated"},
            "rollout_failed",
            "TaskAppError: the container's rollout ended as 'terminated': no reason",
        ),
        (
            {"status": None},
            "rollout_failed",
            "TaskAppError: the container's answer to a rollout has no status: {",
        ),
        (
            {"reward_info": {}},
            "invalid_rollout_response",
            "reward_info.outcome_reward is missing",
        ),
        (
            {"reward_info": {"outcome_reward": 7}},
            "invalid_rollout_response",
            "reward_info.outcome_reward is 7, outside [0, 1]",
        ),
    ],
)
def test_a_rollout_without_a_reward_says_why(
    container: FakeContainer, changes: dict[str, Any], code: str, message: str
) -> None:
    container.answer.update(changes)
    refused = TaskCaller(container_app(container)).refused(0, config=TEST, policy=POLICY)
    assert refused[:2] == (500, code)
    assert refused[2].startswith(message)


@pytest.mark.parametrize(
    ("status", "passed_on"), [(503, 503), (429, 429), (400, 500)], ids=["busy", "limit", "refused"]
)
def test_an_error_of_the_container_is_told(container: FakeContainer, status: int, passed_on: int) -> None:
    container.error = HTTPException(status, "OPENAI_API_KEY is not set")
    refused = TaskCaller(container_app(container)).refused(0, config=TEST, policy=POLICY)
    message = f"the container answered POST /rollout with {status}: OPENAI_API_KEY is not set"
    assert refused == (passed_on, "container_failed", message)


@pytest.mark.parametrize(
    ("seed", "config", "message"),
    [
        (3, TEST, "seed 3 is outside split 'test', which has rows 0 to 2"),
        (-1, TEST, "seed -1 is outside split 'test', which has rows 0 to 2"),
        (None, TEST, "env.seed is missing; it is the number of a row"),
        (0, {}, "env.config names no split, and there are several: 'train', 'test'; name one"),
        (0, {"split": "dev"}, "env.config['split'] is 'dev'; the splits are 'train', 'test'"),
    ],
)
def test_a_row_that_does_not_exist_is_refused_before_the_container_wraps_around(
    container: FakeContainer, seed: int | None, config: dict[str, str], message: str
) -> None:
    refused = TaskCaller(container_app(container)).refused(seed, config=config, policy=POLICY)
    assert (refused[0], refused[2]) == (422, message)
    assert container.rollouts == []


def test_a_strict_container_is_spared_the_fields_that_it_refuses() -> None:
    container = FakeContainer(refused=("split", "env"))
    caller = TaskCaller(container_app(container))
    for seed in (0, 1):
        assert caller.rollout(seed, config=TEST, policy=POLICY).status_code == 200
    assert [sorted({"split", "env", "seed"} & body.keys()) for body in container.rollouts] == [["seed"]] * 2


def test_a_rollout_that_runs_on_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(containers, "_POLL_S", 0)
    container = FakeContainer(running=3)
    reply = TaskCaller(container_app(container)).rollout(0, config=TEST, policy=POLICY)
    assert reply.json()["reward_info"]["outcome_reward"] == 0.5
    assert container.asked.count(container.rollouts[0]["rollout_id"]) == 3


def test_a_rollout_that_runs_too_long_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(containers, "_POLL_S", 0)
    caller = TaskCaller(container_app(FakeContainer(running=10**9)))
    refused = caller.refused(0, config=TEST, policy=POLICY, safety={"max_time_s": 0.05})
    assert refused[2] == "TaskAppError: the container's rollout is still 'running' after 0.05 s"


def test_renamed_routes_are_read_from_the_metadata() -> None:
    container = FakeContainer(
        routes={"program": "/p", "taskset": "/t", "taskset_tasks": "/tt", "rollout": "/r"}
    )
    assert TaskCaller(container_app(container)).rollout(0, config=TEST, policy=POLICY).status_code == 200
    assert container.rollouts[0]["candidate"] == {"system": "upper-case it"}


def test_a_container_without_rows_and_program_gets_the_seed_alone() -> None:
    container = FakeContainer(routes={"program": None, "taskset": None, "taskset_tasks": None})
    caller = TaskCaller(container_app(container))
    assert caller.rollout(7, config=TEST, policy=POLICY).status_code == 200
    (asked,) = container.rollouts
    assert (asked["seed"], asked["candidate"], "task" in asked) == (7, {}, False)
    assert caller.get("/task_info").json() == {"taskset": {"splits": [], "sizes": {}}}


def test_an_asgi_app_in_this_process_starts_and_stops_with_the_task_app(container: FakeContainer) -> None:
    with ServerThread(container_app(container.fastapi())):
        assert container.events == ["started"]
    assert container.events == ["started", "stopped"]


def test_a_container_that_runs_elsewhere_is_reached_by_its_url(container: FakeContainer) -> None:
    with ServerThread(container.fastapi()) as server:
        caller = TaskCaller(container_app(server.url + "/"))
        reply = caller.rollout(1, config=TEST, policy=POLICY)
        container.error = HTTPException(503, "busy")
        refused = caller.refused(1, config=TEST, policy=POLICY)
    assert reply.json()["reward_info"]["outcome_reward"] == 0.5
    assert refused[2] == "the container answered POST /rollout with 503: busy"


def test_a_container_that_is_not_there_is_named() -> None:
    sock = bind_loopback()
    port = sock.getsockname()[1]
    sock.close()
    refused = TaskCaller(container_app(f"http://127.0.0.1:{port}")).refused(0, config=TEST, policy=POLICY)
    where = f"the container at http://127.0.0.1:{port} did not answer GET /metadata: ClientConnectorError"
    assert refused[2].startswith(f"TaskAppError: {where}")


async def no_container(scope: Scope, receive: Receive, send: Send) -> None:
    async def parts() -> AsyncIterator[str]:
        for part in ("hello ", "world"):
            yield part
            await asyncio.sleep(0.001)

    await StreamingResponse(parts())(scope, receive, send)


def test_an_app_that_is_no_container_is_told_apart() -> None:
    refused = TaskCaller(container_app(no_container)).refused(0, config=TEST, policy=POLICY)
    assert refused[2] == (
        "TaskAppError: the container answered GET /metadata with no JSON object: hello world"
    )


@pytest.mark.parametrize(
    ("given", "base"),
    [
        ("http://h/v1/t/trace_1", "http://h/v1/t/trace_1"),
        ("http://h/v1/t?cid=trace_1", "http://h/v1/t/trace_1"),
        ("http://h/v1/t/trace_1?cid=trace_1", "http://h/v1/t/trace_1"),
        ("http://h/v1/chat/completions", "http://h/v1"),
        ("http://h/v1/", "http://h/v1"),
    ],
)
def test_the_models_address_is_one_that_openai_clients_can_append_to(
    container: FakeContainer, given: str, base: str
) -> None:
    TaskCaller(container_app(container)).rollout(0, config=TEST, policy={"inference_url": given})
    assert container.rollouts[0]["policy"]["base_url"] == base
