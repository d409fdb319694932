from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fakes.backend_api import Api
from fakes.rollout_app import RolloutApp, reward_answer

Serve = Callable[[RolloutApp], str]


def test_every_seed_gets_its_reward_over_real_http(api: Api, serve: Serve) -> None:
    async def behave(body: dict[str, Any]) -> dict[str, Any]:
        seed = body["env"]["seed"]
        return reward_answer(body, seed / 4, details={"feedback": f"seed {seed}"})

    app = RolloutApp(behave)
    results = api.run(serve(app), [3, 1, 2], env_config={"split": "test"}, env_name="toy")

    assert results["status"] == "completed"
    assert [(row["seed"], row["score"], row["outcome_reward"]) for row in results["results"]] == [
        (3, 0.75, 0.75),
        (1, 0.25, 0.25),
        (2, 0.5, 0.5),
    ]
    assert results["mean_reward"] == results["summary"]["mean_reward"] == 0.5
    assert results["summary"]["num_successful"] == results["summary"]["num_seeds"] == 3
    assert results["results"][0]["details"] == {"feedback": "seed 3"}
    assert results["results"][0]["split"] == "test"
