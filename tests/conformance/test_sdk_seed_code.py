"""The documented code with the published SDK, at the base URL and below `/api`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from intents_world import reward
from processes import Served, Story, sdk_python

sdk_python()


@pytest.mark.parametrize("below", ["", "/api"], ids=["base", "base-with-api"])
def test_the_documented_code_runs(drive: Callable[..., Story], served: Served, below: str) -> None:
    keys = {"SYNTH_API_KEY": served.key} if below else {}
    story: dict[str, Any] = drive("sdk_seed.py", SYNTH_BACKEND_URL=served.url + below, **keys)[
        "documented_code"
    ]

    assert story["url"].startswith("http://localhost:")
    optimised = story["optimised"]
    assert optimised["status"] == "succeeded"
    assert story["prompt_results"]["best_score"] == optimised["best_score"] > 0.2
    assert story["prompt_results"]["best_prompt"] == optimised["best_prompt"]
    assert story["prompt_results"]["total_rollouts"] == story["rollouts"] <= 80

    seeds = list(range(100, 150))
    assert story["eval_seeds"] == seeds
    for evaluated in (story["evaluated"], story["streamed"]):
        assert evaluated["status"] == "completed"
        assert evaluated["mean_reward"] == pytest.approx(reward("baseline prompt", seeds))
        assert [row["seed"] for row in evaluated["seed_results"]] == seeds

    assert story["reread"]["status"] == "succeeded"
    assert story["reread"]["best_score"] == optimised["best_score"]
    assert story["health"] == "ok"
