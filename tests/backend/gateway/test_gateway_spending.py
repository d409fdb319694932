"""Cost, ceilings and failures that stop a job, through a served gateway."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest
from fakes.gateway_server import GatewayUnderTest, chat
from fakes.model_provider import completion, events
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from pytest_synth.backend.gateway import Budget, CallRefused, Patience, PolicyRefused, upstream
from pytest_synth.backend.gateway.plans import DIALECTS
from pytest_synth.backend.gateway.spending import most_prompt_tokens

MakeGateway = Callable[..., GatewayUnderTest]
PRICES = {"openai/m-1": {"input": 0, "output": 2500}}  # 4 tokens of an answer: 1 cent
LIMITED = {"provider": "openai", "model": "m-1", "max_completion_tokens": 8}  # 2 cents at worst


def test_a_run_stops_below_its_ceiling_with_calls_in_flight(make_gateway: MakeGateway) -> None:
    """100 seeds of 1 cent, 16 at once, 25 cents: nothing is spent beyond, and the rest says why."""
    served = make_gateway(prices=PRICES)

    async def slow(request: Request) -> Response:
        await asyncio.sleep(0.002)
        return JSONResponse(completion())

    served.provider.reply = lambda body: slow
    budget = Budget(0.25)

    async def run() -> list[Any]:
        places = asyncio.Semaphore(16)

        async def seed(number: int) -> Any:
            async with places:
                rollout = served.open(LIMITED, seed=number, budget=budget)
                with contextlib.suppress(CallRefused):
                    await served.gateway.ask(rollout, chat(f"query {number}"))
                return served.gateway.close_rollout(rollout)

        return await asyncio.gather(*(seed(number) for number in range(100)))

    uses = served.stage.run(run())
    paid = [use for use in uses if use.failure is None]
    assert len(served.provider.seen) == len(paid)
    assert 0.23 <= sum(use.cost_usd for use in paid) <= 0.25
    assert budget.spent_usd <= 0.25
    failure = next(use for use in uses if use.failure is not None).failure
    assert failure is not None
    assert failure.kind == "budget"
    assert failure.message.startswith("budget: max_cost is $0.2500, $0.24")
    assert all(use.is_void for use in uses if use.failure is not None)


def test_a_call_over_the_ceiling_is_not_tried_again_by_clients(make_gateway: MakeGateway) -> None:
    served = make_gateway(prices=PRICES)
    answer = served.post(served.open(LIMITED, budget=Budget(0.01)))
    assert answer.status_code == 402  # not 429 or 5xx, which SDKs repeat
    assert answer.json()["error"]["type"] == "budget"
    assert served.provider.seen == []


def test_a_call_without_a_limit_is_refused_where_a_ceiling_is_set(make_gateway: MakeGateway) -> None:
    served = make_gateway(prices=PRICES)
    answer = served.post(served.open(budget=Budget(1.0)))
    assert answer.status_code == 402
    assert answer.json()["error"]["message"] == (
        "budget: max_cost is set, and nothing says how many tokens this call may answer with; set "
        "max_completion_tokens in the policy, or max_completion_tokens in the call"
    )


def test_a_model_without_a_price_is_refused_where_a_ceiling_is_set(served: GatewayUnderTest) -> None:
    message = (
        "budget: max_cost is set, and the price of 'openai/m-1' is not known; give it in synth_prices, "
        "or take the ceiling away"
    )
    with pytest.raises(PolicyRefused) as refused:
        served.gateway.check_policy(LIMITED, has_budget=True)
    assert str(refused.value) == message
    answer = served.post(served.open(LIMITED, budget=Budget(1.0)))
    assert (answer.status_code, answer.json()["error"]["message"]) == (402, message)


def test_free_calls_need_no_limit_and_no_price(make_gateway: MakeGateway) -> None:
    served = make_gateway()
    served.environ["OLLAMA_BASE_URL"] = served.environ["OPENAI_BASE_URL"]
    rollout = served.open({"provider": "ollama", "model": "m"}, budget=Budget(0.0))
    assert served.post(rollout).status_code == 200
    assert served.gateway.close_rollout(rollout).cost_usd == 0.0


@pytest.mark.parametrize(
    ("operation", "usage", "known"),
    [
        ("chat/completions", {}, False),
        ("chat/completions", {"prompt_tokens": None, "completion_tokens": None}, False),
        ("chat/completions", {"prompt_tokens": -7, "completion_tokens": -4}, False),
        ("chat/completions", {"prompt_tokens": 0, "completion_tokens": 0}, True),
        ("responses", {}, False),
        ("responses", {"input_tokens": 7}, True),
        ("messages", {"cache_read_input_tokens": None}, False),
        ("messages", {"output_tokens": 4}, True),
    ],
)
def test_a_usage_that_tells_nothing_is_none(operation: str, usage: dict[str, Any], known: bool) -> None:
    assert (DIALECTS[operation].usage_of({"usage": usage}) is not None) is known


def test_an_answer_without_usage_counts_as_the_worst_case(make_gateway: MakeGateway) -> None:
    served = make_gateway(prices=PRICES)
    answer = completion()
    del answer["usage"]
    served.provider.script = [answer]
    budget = Budget(1.0)
    rollout = served.open(LIMITED, budget=budget)
    served.post(rollout)
    assert budget.spent_usd == pytest.approx(0.02)
    assert served.gateway.close_rollout(rollout).cost_usd is None


def test_a_refused_attempt_costs_nothing_and_a_lost_one_may(make_gateway: MakeGateway) -> None:
    served = make_gateway(prices=PRICES, patience=Patience(first_byte_s=0.05))

    async def hang(request: Request) -> Response:
        await asyncio.sleep(0.2)
        return JSONResponse(completion())

    served.provider.script = [(503, {}, "later"), hang]
    budget = Budget(1.0)
    assert served.post(served.open(LIMITED, budget=budget)).status_code == 200
    assert budget.spent_usd == pytest.approx(0.02 + 0.01)
    assert budget._reserved == pytest.approx(0.0)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "answer", [{"error": {"message": "upstream is down"}}, (200, {"content-type": "text/html"}, "hi")]
)
def test_what_an_answer_that_is_none_has_reserved_is_booked(
    make_gateway: MakeGateway, answer: Any, stream: bool
) -> None:
    """It may have been paid for, and no later call waits for what it had set aside."""
    served = make_gateway(prices=PRICES)
    served.provider.script = [answer]
    budget = Budget(0.05)
    rollout = served.open(LIMITED, budget=budget)
    assert served.post(rollout, chat(stream=stream)).status_code == 502
    assert budget.spent_usd == pytest.approx(0.02)
    assert budget._reserved == pytest.approx(0.0)
    assert served.gateway.close_rollout(rollout).cost_usd is None


def test_the_costs_of_openrouter_are_its_own(make_gateway: MakeGateway) -> None:
    served = make_gateway()
    served.environ |= {"OPENROUTER_BASE_URL": served.environ["OPENAI_BASE_URL"], "OPENROUTER_API_KEY": "k"}
    served.provider.reply = lambda body: completion(usage={**completion()["usage"], "cost": 0.0123})
    rollout = served.open({"provider": "openrouter", "model": "some/model"})
    served.post(rollout)
    assert served.gateway.close_rollout(rollout).cost_usd == pytest.approx(0.0123)


@pytest.mark.parametrize(
    ("payload", "at_least"),
    [
        (b'{"messages": [{"role": "user", "content": "' + b"x" * 1000 + b'"}]}', 1000),
        ("äöü".encode() * 100, 600),
    ],
)
def test_a_prompt_has_no_more_tokens_than_bytes(payload: bytes, at_least: int) -> None:
    assert at_least <= most_prompt_tokens(payload) <= at_least + 400


def test_an_image_counts_by_itself_and_not_by_its_bytes() -> None:
    image = b'{"type":"image_url","image_url":{"url":"data:image/png;base64,' + b"A" * 2_000_000 + b'"}}'
    assert 50_000 <= most_prompt_tokens(image) <= 51_000


def error(code: str) -> str:
    return json.dumps({"error": {"message": "You exceeded your quota", "code": code}})


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        pytest.param((401, {}, "bad key"), "openai answered 401: bad key", id="401"),
        pytest.param((402, {}, "pay"), "openai answered 402: pay", id="402"),
        pytest.param((403, {}, "no"), "openai answered 403: no", id="403"),
        pytest.param((404, {}, "no model"), "openai answered 404: no model", id="404"),
        pytest.param(
            (429, {}, error("insufficient_quota")), "openai answered 429: You exceeded your quota", id="quota"
        ),
    ],
)
def test_what_no_other_call_can_mend_is_fatal_at_once(
    served: GatewayUnderTest, answer: Any, message: str
) -> None:
    served.provider.reply = lambda body: answer
    rollout = served.open()
    assert served.post(rollout).status_code == answer[0]
    use = served.gateway.close_rollout(rollout)
    assert (use.fatal, use.is_void) == (message, True)
    assert len(served.provider.seen) == 1


def test_a_key_that_is_gone_is_fatal(served: GatewayUnderTest) -> None:
    served.environ.clear()
    rollout = served.open()
    assert served.post(rollout).status_code == 422
    assert (served.gateway.close_rollout(rollout).fatal or "").startswith("provider 'openai' has no key")


@pytest.mark.parametrize(
    "answer", [(400, {}, "bad"), (429, {"Retry-After": "9999"}, "slow down"), (500, {}, "oops")]
)
def test_other_failures_are_not_fatal(served: GatewayUnderTest, answer: Any) -> None:
    served.provider.reply = lambda body: answer
    rollout = served.open()
    served.post(rollout)
    use = served.gateway.close_rollout(rollout)
    assert (use.fatal, use.is_void) == (None, False)
    assert use.failure is not None


def test_a_provider_that_says_nothing_is_asked_again_and_then_given_up(make_gateway: MakeGateway) -> None:
    served = make_gateway(patience=Patience(first_byte_s=0.03))

    async def hang(request: Request) -> Response:
        await asyncio.sleep(0.2)
        return Response()

    served.provider.reply = lambda body: hang
    rollout = served.open()
    answer = served.post(rollout)
    assert answer.status_code == 504
    assert answer.json()["error"]["message"].endswith(" did not answer within 0.03 s")
    assert len(served.provider.seen) == 5
    use = served.gateway.close_rollout(rollout)
    assert use.cost_usd is None  # it may have been paid for
    assert use.failure is not None


def test_a_call_that_hangs_leaves_half_of_its_rollouts_time_for_another(
    make_gateway: MakeGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upstream, "LEAST_S", 0.01)
    served = make_gateway(patience=Patience(first_byte_s=30))

    async def hang(request: Request) -> Response:
        await asyncio.sleep(30)
        return Response()

    served.provider.script = [hang]
    assert served.post(served.open(timeout_s=1.0)).status_code == 200
    served.provider.reply = lambda body: hang
    answer = served.post(served.open(timeout_s=0.2))
    message = answer.json()["error"]["message"]
    assert answer.status_code == 504
    assert " did not answer within 0.0" in message
    assert message.endswith(
        " s (half of what its rollout had left; raise the rollout's timeout for slow models)"
    )


def test_an_error_inside_a_200_is_an_error(served: GatewayUnderTest) -> None:
    served.provider.script = [{"error": {"message": "upstream is down", "code": 502}}]
    answer = served.post(served.open())
    assert (answer.status_code, answer.json()["error"]["message"]) == (
        502,
        "openai answered: upstream is down",
    )


def test_the_waits_of_one_call_for_the_rate_are_bounded(make_gateway: MakeGateway) -> None:
    served = make_gateway(patience=Patience(rate_wait_s=100.0))
    served.provider.reply = lambda body: (429, {"Retry-After": "30"}, "slow down")
    assert served.post(served.open()).status_code == 429
    assert served.sleeps == [30.0, 30.0, 30.0]


def test_a_wait_that_is_too_long_is_told_to_every_call_and_stops_none(served: GatewayUnderTest) -> None:
    served.provider.reply = lambda body: (429, {"Retry-After": "9999"}, "daily limit")
    answers = [served.post(served.open(), timeout=5) for _ in range(10)]
    assert {answer.status_code for answer in answers} == {429}
    assert {answer.json()["error"]["message"] for answer in answers} == {"openai answered 429: daily limit"}
    assert served.sleeps == []


def test_more_refusals_than_attempts_are_waited_for(served: GatewayUnderTest) -> None:
    served.provider.script = [(429, {"retry-after-ms": "1"}, "slow down")] * 12
    assert served.post(served.open()).status_code == 200
    assert served.sleeps == [0.001] * 12


def test_a_client_that_goes_away_leaves_nothing_behind(make_gateway: MakeGateway) -> None:
    """Its stream is closed, its place in the limiter is free, and its cost is booked."""
    served = make_gateway(prices=PRICES, patience=Patience(most_concurrent=1))

    async def endless(request: Request) -> Response:
        async def body() -> AsyncIterator[bytes]:
            yield events({"choices": [{"index": 0, "delta": {"content": "x"}}]})[0]
            await asyncio.sleep(30)

        return StreamingResponse(body(), media_type="text/event-stream")

    served.provider.script = [endless]
    budget = Budget(1.0)
    rollout = served.open(LIMITED, budget=budget)
    with (
        httpx.Client(trust_env=False) as client,
        client.stream("POST", f"{rollout.inference_url}/chat/completions", json=chat(stream=True)) as answer,
    ):
        next(answer.iter_lines())
    assert served.post(rollout).status_code == 200
    use = served.gateway.close_rollout(rollout)
    assert [call.error for call in use.calls] == ["the task app closed the stream before its end", None]
    assert budget.spent_usd == pytest.approx(0.02 + 0.01)


def test_the_cost_of_a_rollout_that_was_cut_is_not_known(make_gateway: MakeGateway) -> None:
    served = make_gateway(prices=PRICES)
    uses = []

    async def hang(request: Request) -> Response:
        served.stage.call(lambda: uses.append(served.gateway.close_rollout(rollout)))
        await asyncio.sleep(0.2)
        return Response()

    served.provider.script = [completion(), hang]
    budget = Budget(1.0)
    rollout = served.open(LIMITED, budget=budget)
    served.post(rollout)
    assert served.post(rollout).status_code == 404
    assert [use.cost_usd for use in uses] == [None]
    assert budget.spent_usd == pytest.approx(0.01 + 0.02)  # the call in flight counts as the worst case


def test_a_stream_that_outlives_its_rollout_is_cut_and_its_cost_not_known(make_gateway: MakeGateway) -> None:
    served = make_gateway(prices=PRICES)

    async def endless(request: Request) -> Response:
        async def body() -> AsyncIterator[bytes]:
            yield events({"choices": [{"index": 0, "delta": {"content": "x"}}]})[0]
            await asyncio.sleep(30)

        return StreamingResponse(body(), media_type="text/event-stream")

    served.provider.script = [endless]
    budget = Budget(1.0)
    rollout = served.open(LIMITED, budget=budget)
    uses = []
    with (
        httpx.Client(trust_env=False) as client,
        client.stream("POST", f"{rollout.inference_url}/chat/completions", json=chat(stream=True)) as answer,
    ):
        lines = answer.iter_lines()
        next(lines)
        served.stage.call(lambda: uses.append(served.gateway.close_rollout(rollout)))
        rest = [line for line in lines if line]
    assert "error" in json.loads(rest[-1].removeprefix("data: "))
    assert [(len(use.calls), use.cost_usd) for use in uses] == [(1, None)]
    assert budget.spent_usd == pytest.approx(0.02)


def test_the_failure_that_voids_a_rollout_is_told_before_an_earlier_one(make_gateway: MakeGateway) -> None:
    served = make_gateway(prices=PRICES)
    served.provider.script = [(400, {}, "bad"), completion()]
    rollout = served.open(LIMITED, budget=Budget(0.025))
    assert [served.post(rollout).status_code for _ in range(3)] == [400, 200, 402]
    use = served.gateway.close_rollout(rollout)
    assert use.failure is not None
    assert (use.failure.kind, use.is_void) == ("budget", True)
