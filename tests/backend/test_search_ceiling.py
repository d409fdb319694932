"""The ceiling of a backend holds for searches: their rollouts and their reflections."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fakes.backend_api import Api, search_body
from fakes.label_app import LabelApp
from fakes.model_provider import FakeProvider, completion
from fakes.rollout_app import RolloutApp

from pytest_synth._serving import ServerThread

PRICES = {"openai/m-1": {"input": 1000.0, "output": 1000.0}}  # an answer costs 0.011 US dollars
POLICY = {"provider": "openai", "model": "m-1", "inference_mode": "synth_hosted", "max_completion_tokens": 4}


def test_a_search_stops_below_the_ceiling_and_says_so(
    open_api: Callable[..., Api], serve: Callable[[RolloutApp], str]
) -> None:
    provider = FakeProvider(reply=lambda body: completion("card"))
    with ServerThread(provider.app, name="fake-provider") as upstream:
        api = open_api(environ={"OPENAI_BASE_URL": f"{upstream.url}/v1"}, prices=PRICES, max_cost_usd=0.6)
        status = api.wait_search(api.submit_search(serve(LabelApp()), policy=POLICY))
    assert 5 < len(provider.seen) < 54  # an answer of 11 tokens; up to 0.40 is set aside for each call
    assert 0.011 * len(provider.seen) <= 0.6
    assert status["status"] == "failed"
    assert "the run's max_cost is $0.6000" in status["error"]


def test_a_reflection_is_paid_out_of_the_ceiling_too(
    open_api: Callable[..., Api], serve: Callable[[RolloutApp], str]
) -> None:
    provider = FakeProvider(reply=lambda body: completion("```\nPick one.\n```"))
    reflection = {"reflection": {"provider": "openai", "model": "m-1"}}
    with ServerThread(provider.app, name="fake-provider") as upstream:
        api = open_api(environ={"OPENAI_BASE_URL": f"{upstream.url}/v1"}, prices=PRICES, max_cost_usd=0.0)
        body: dict[str, Any] = {"gepa": {**gepa(), **reflection}}
        status = api.wait_search(api.submit_search(serve(LabelApp()), **body))
    assert provider.seen == []
    assert status["finish_reason"] == "failing"
    assert "max_cost is $0.0000" in status["error"]


def gepa() -> dict[str, Any]:
    return {
        "evaluation": {"seeds": list(range(20)), "validation_seeds": list(range(20, 26))},
        "rollout": {"budget": 60, "max_concurrent": 8, "minibatch_size": 3},
        "archive": {"pareto_set_size": 10},
    }


def test_a_model_without_a_price_is_refused_under_a_ceiling(
    open_api: Callable[..., Api], serve: Callable[[RolloutApp], str]
) -> None:
    api = open_api(environ={"OPENAI_API_KEY": "k" * 20}, max_cost_usd=1.0)
    body = search_body(serve(LabelApp()), policy=POLICY)
    answer = api.http.post("/api/prompt-learning/online/jobs", json=body)
    assert answer.status_code == 422
    assert "max_cost is set, and the price of 'openai/m-1' is not known" in answer.text
