"""The task app of the published SDK's guide, unchanged but for its import line."""

from __future__ import annotations

from typing import Any

from fakes.task_caller import TaskCaller

# fmt: off
from pytest_synth import LocalAPIConfig, RolloutMetrics, RolloutRequest, RolloutResponse, TaskInfo, create_local_api  # noqa: E501 isort: skip


def create_banking77_local_api(system_prompt: str) -> Any:
    async def run_rollout(request: RolloutRequest, fastapi_request: Any) -> RolloutResponse:
        # Use your own task logic here; return a reward in [0, 1].
        reward = 1.0
        return RolloutResponse(
            trace_correlation_id=request.trace_correlation_id,
            reward_info=RolloutMetrics(outcome_reward=reward),
            trace=None,
        )

    def provide_taskset_description() -> Any:
        return {"splits": ["train", "test"], "sizes": {"train": 1000, "test": 1000}}

    def provide_task_instances(seeds: Any) -> Any:
        for seed in seeds:
            yield TaskInfo(
                task={"id": "banking77", "name": "Banking77 Intent Classification"},  # type: ignore[arg-type]
                dataset={"id": "banking77", "split": "train", "index": seed},  # type: ignore[arg-type]
                inference={"tool": "banking77_classify"},  # type: ignore[arg-type]
                limits={"max_turns": 1},  # type: ignore[arg-type]
                task_metadata={"seed": seed},
            )

    return create_local_api(
        LocalAPIConfig(
            app_id="banking77",
            name="Banking77 Intent Classification",
            description="Classify customer queries into intents.",
            provide_taskset_description=provide_taskset_description,
            provide_task_instances=provide_task_instances,
            rollout=run_rollout,
            cors_origins=["*"],
        )
    )
# fmt: on


def test_it_answers_a_rollout() -> None:
    reply = TaskCaller(create_banking77_local_api("baseline prompt")).rollout(100, config={"split": "test"})
    assert reply.status_code == 200
    document = reply.json()
    assert document["trace_correlation_id"] == "trace_1"
    assert document["reward_info"]["outcome_reward"] == 1.0
    assert document["trace"] is None


def test_it_describes_its_rows() -> None:
    caller = TaskCaller(create_banking77_local_api("baseline prompt"))
    assert caller.get("/task_info").json() == {
        "taskset": {"splits": ["train", "test"], "sizes": {"train": 1000, "test": 1000}}
    }
    first, second = caller.get("/task_info?seed=3&seed=4").json()
    assert (first["dataset"]["index"], second["dataset"]["index"]) == (3, 4)
    assert first["inference"]["tool"] == "banking77_classify"
    assert first["limits"]["max_turns"] == 1
    assert first["task"]["name"] == "Banking77 Intent Classification"
