"""The optimiser's ports: rows become what the search learns from, questions reach a model, ledgers last."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from fakes.backend_api import search_body

from pytest_synth.backend.gateway import CallRefused, ModelCall, Rollout, RolloutSpec, RolloutUse
from pytest_synth.backend.jobs.gepa_optimizer import (
    GatewayReflector,
    StoreLedger,
    reflection_policy,
    rollout_outcome,
)
from pytest_synth.backend.jobs.rollouts import Outcome
from pytest_synth.backend.optimizer import (
    GepaConfig,
    ReflectionAnswer,
    ReflectionFailed,
    ReflectionKey,
    ReflectionRequest,
    RolloutKey,
    RolloutOutcome,
    parse_gepa_config,
)
from pytest_synth.backend.store import RootSecret, Store
from pytest_synth.contracts.evals import EvalRow
from pytest_synth.prompts import Message, Prompt

PROMPT = Prompt((Message("system", "Pick a label."), Message("user", "Query: {query}")))


def config(**more: Any) -> GepaConfig:
    section = search_body("http://127.0.0.1:1", **more)["prompt_learning"]
    return parse_gepa_config(section)


def call(*contents: tuple[str, str], is_policy: bool = True) -> ModelCall:
    messages = [{"role": role, "content": content} for role, content in contents]
    return ModelCall(
        provider="offline",
        model="lexical",
        request={"messages": messages},
        response={},
        status=200,
        latency_ms=1.0,
        prompt_tokens=3,
        completion_tokens=1,
        cost_usd=0.0,
        error=None,
        is_policy=is_policy,
    )


def outcome_of(*calls: ModelCall, answer: dict[str, Any] | None = None, **row: Any) -> RolloutOutcome:
    use = RolloutUse(calls, 4, 0.0, True, None, None, None, None)
    return rollout_outcome(PROMPT, Outcome(EvalRow(seed=1, **row), answer, use))


def test_a_reward_comes_with_inputs_output_and_notes() -> None:
    outcome = outcome_of(
        call(("system", "Judge this."), ("user", "an answer"), is_policy=False),
        call(("system", "Pick a label."), ("user", "Query: where is it?")),
        call(("system", "Judge this."), ("user", "an answer"), is_policy=False),
        answer={"reward_info": {"event_rewards": [0.5, 1]}},
        score=0.25,
        details={"expected": "card"},
        tokens=4,
        cost_usd=0.5,
    )
    assert (outcome.reward, outcome.error) == (0.25, None)
    assert outcome.inputs == {"query": "where is it?"}
    assert outcome.details == {"expected": "card"}
    assert outcome.event_rewards == (0.5, 1.0)
    assert (outcome.tokens, outcome.cost_usd) == (4, 0.5)


def test_without_chat_messages_the_query_is_the_input() -> None:
    assert outcome_of(score=1.0, query="where is it?").inputs == {"user": "where is it?"}


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("task_app", "rollout"),
        ("no_reward", "rollout"),
        ("unreachable", "infrastructure"),
        ("timeout", "infrastructure"),
        ("model", "infrastructure"),
        ("refused", "infrastructure"),
        ("prompt_not_applied", "infrastructure"),
    ],
)
def test_only_what_the_prompt_may_be_at_fault_for_is_shown_to_the_reflection(
    kind: str, expected: str
) -> None:
    outcome = outcome_of(error="it broke", error_kind=kind)
    assert (outcome.reward, outcome.error, outcome.error_kind) == (None, "it broke", expected)


@pytest.mark.parametrize(
    ("policy", "reflection", "expected"),
    [
        pytest.param(
            {"provider": "offline", "model": "lexical"},
            None,
            {"provider": "offline", "model": "reflect"},
            id="offline has its own",
        ),
        pytest.param(
            {"provider": "openai", "model": "small", "api_key": "sk-1"},
            None,
            {"provider": "openai", "model": "small", "api_key": "sk-1"},
            id="the policy's model",
        ),
        pytest.param(
            {"provider": "openai", "model": "small"},
            {"model": "large"},
            {"provider": "openai", "model": "large"},
            id="another model",
        ),
        pytest.param(
            {"provider": "offline", "model": "lexical"},
            {"provider": "groq", "model": "large"},
            {"provider": "groq", "model": "large"},
            id="another provider",
        ),
    ],
)
def test_the_model_that_reflects(
    policy: dict[str, Any], reflection: dict[str, Any] | None, expected: dict[str, Any]
) -> None:
    gepa = search_body("http://x")["prompt_learning"]["gepa"]
    chosen = config(policy=policy, gepa={**gepa, "reflection": reflection})
    assert reflection_policy(chosen) == expected


class FakeGateway:
    """Answers one question, or refuses it; records what it was asked."""

    def __init__(self, answer: dict[str, Any] | Exception | float) -> None:
        self.answer = answer
        self.spec: RolloutSpec | None = None
        self.body: dict[str, Any] = {}
        self.closed = 0

    def open_rollout(self, spec: RolloutSpec) -> Rollout:
        self.spec = spec
        return Rollout("trial_1", "trace_1", "http://x")

    def close_rollout(self, rollout: Rollout) -> RolloutUse:
        self.closed += 1
        return RolloutUse((), 10, 0.02, None, None, None, None, None)

    async def ask(self, rollout: Rollout, body: dict[str, Any]) -> dict[str, Any]:
        self.body = body
        if isinstance(self.answer, Exception):
            raise self.answer
        if isinstance(self.answer, float):
            await asyncio.sleep(self.answer)
            return {}
        return self.answer


def reflect(gateway: FakeGateway) -> ReflectionAnswer:
    gepa = search_body("http://x")["prompt_learning"]["gepa"]
    settings = config(gepa={**gepa, "reflection": {"temperature": 0.5, "timeout_seconds": 0.05}})
    reflector = GatewayReflector(gateway, settings, "pl_1", "me")  # type: ignore[arg-type]
    request = ReflectionRequest(ReflectionKey(3, "hash"), "Write a better one.", "0:system")
    return asyncio.run(reflector.reflect(request))


def completion(content: object) -> dict[str, Any]:
    return {"choices": [{"message": {"role": "assistant", "content": content}}]}


def test_a_question_reaches_the_model_and_its_cost_comes_back() -> None:
    gateway = FakeGateway(completion("Better."))
    assert reflect(gateway) == ReflectionAnswer("Better.", 0.02)
    assert gateway.body == {
        "model": "reflect",
        "messages": [{"role": "user", "content": "Write a better one."}],
        "temperature": 0.5,
    }
    assert gateway.spec is not None
    assert gateway.spec.policy == {"provider": "offline", "model": "reflect"}
    assert gateway.closed == 1


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        pytest.param(CallRefused(429, "slow down"), "gave no answer: slow down", id="refused"),
        pytest.param(10.0, "gave no answer within 0.05 s", id="too slow"),
        pytest.param(completion(None), "answer holds no text", id="no text"),
        pytest.param(completion("  "), "answer holds no text", id="blank"),
        pytest.param({}, "answer holds no text", id="no choices"),
    ],
)
def test_a_question_without_an_answer_says_why(answer: Any, said: str) -> None:
    gateway = FakeGateway(answer)
    with pytest.raises(ReflectionFailed, match=said):
        reflect(gateway)
    assert gateway.closed == 1


def test_a_ledger_is_found_again_by_the_next_process(tmp_path: Path) -> None:
    root = RootSecret.random()
    key, question = RolloutKey("abc", None, 3, 0), ReflectionKey(1, "hash")
    outcome = RolloutOutcome(0.5, inputs={"q": "x"}, event_rewards=(1.0,), cost_usd=None, tokens=3)
    answer = ReflectionAnswer("Better.", None)
    with Store(tmp_path / "b.sqlite", root) as store:
        job = store.jobs.add(job_id="pl_1", tenant="me", kind="prompt_learning", body={})
        ledger = StoreLedger(store, job.number)
        assert ledger.find_rollout(key) is None
        ledger.add_rollout(key, outcome)
        ledger.add_reflection(question, answer)
        ledger.add_lost_rollout()
        ledger.add_lost_rollout()
        other = store.jobs.add(job_id="pl_2", tenant="me", kind="prompt_learning", body={})
        assert StoreLedger(store, other.number).find_rollout(key) is None
    with Store(tmp_path / "b.sqlite", root) as store:
        ledger = StoreLedger(store, job.number)
        assert ledger.find_rollout(key) == outcome
        assert ledger.find_rollout(RolloutKey("abc", "test", 3, 0)) is None
        assert ledger.find_reflection(question) == answer
        assert ledger.lost_rollouts == 2
        ledger.add_lost_rollout()
        assert StoreLedger(store, job.number).lost_rollouts == 3
