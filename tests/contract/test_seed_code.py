"""The documented way to use the API, end to end, with only the import lines changed.

The task app, its tunnel (localhost) and the client are real; the service is once a stand-in for the hosted
one, and once the embedded backend with a model provider on loopback.
"""
# ruff: noqa: N806  # the documentation's own names

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from fakes.hosted_service import HostedService
from fakes.model_provider import FakeProvider, completion

from pytest_synth import (
    EvalJob,
    EvalJobConfig,
    EvalResult,
    JobsClient,
    LocalAPIConfig,
    PromptLearningClient,
    PromptLearningJob,
    RolloutMetrics,
    RolloutRequest,
    RolloutResponse,
    TaskInfo,
    create_local_api,
    mint_demo_api_key,
    mint_environment_api_key,
    setup_environment_api_key,
)
from pytest_synth._serving import ServerThread
from pytest_synth.backend import BackendSettings, start
from pytest_synth.client import PromptLearningResult, PromptResults
from pytest_synth.errors import InvalidRequestError
from pytest_synth.localapi import chat_completions_url
from pytest_synth.tunnels import TunnelBackend, TunneledLocalAPI

QUERY_PATTERN = "Customer Query: {query}\n\nAvailable Intents:\n{available_intents}"
RewardOf = Callable[[RolloutRequest, str], Awaitable[float]]


@dataclass(frozen=True)
class Brought:
    """What the documented code has brought."""

    files: dict[str, Any]
    optimised: PromptLearningResult
    evaluated: EvalResult
    prompts: PromptResults
    best_text: str | None
    health: dict[str, Any]


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("SYNTH_API_KEY", "ENVIRONMENT_API_KEY"):
        monkeypatch.setenv(name, "to be undone")
        monkeypatch.delenv(name)
    yield
    assert list(tmp_path.iterdir()) == []


async def placeholder_reward(request: RolloutRequest, system_prompt: str) -> float:
    return 1.0 if request.env.seed != 149 else 0.0


async def reward_of_a_model_call(request: RolloutRequest, system_prompt: str) -> float:
    messages = [
        {"role": "system", "content": system_prompt},
        {"role": "user", "content": f"Customer Query: number {request.env.seed}"},
    ]
    policy = request.policy.config
    async with httpx.AsyncClient() as http:
        answer = await http.post(
            chat_completions_url(policy["inference_url"]),
            json={"model": policy["model"], "messages": messages},
            timeout=30,
        )
    answer.raise_for_status()
    return float(answer.json()["choices"][0]["message"]["content"] == "right")


def create_banking77_local_api(system_prompt: str, reward_of: RewardOf) -> Any:
    async def run_rollout(request: RolloutRequest, fastapi_request: Any) -> RolloutResponse:
        reward = await reward_of(request, system_prompt)
        return RolloutResponse(
            trace_correlation_id=request.trace_correlation_id,
            reward_info=RolloutMetrics(outcome_reward=reward),
            trace=None,
        )

    def provide_taskset_description() -> dict[str, Any]:
        return {"splits": ["train", "test"], "sizes": {"train": 1000, "test": 1000}}

    def provide_task_instances(seeds: Any) -> Iterator[TaskInfo]:
        for seed in seeds:
            yield TaskInfo(
                task={"id": "banking77", "name": "Banking77 Intent Classification"},
                dataset={"id": "banking77", "split": "train", "index": seed},
                inference={"tool": "banking77_classify"},
                limits={"max_turns": 1},
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


def test_the_documented_code_runs_against_the_hosted_service(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    service = HostedService()
    with ServerThread(service.app) as server:
        monkeypatch.setenv("SYNTH_BACKEND_URL", server.url)
        brought = asyncio.run(documented_code(placeholder_reward))
    assert service.environment_key == os.environ["ENVIRONMENT_API_KEY"]
    assert brought.optimised.get_system_prompt() == brought.best_text == "A better system prompt"
    assert brought.prompts.best_score == 0.8125
    assert brought.evaluated.mean_reward == pytest.approx(49 / 50)
    assert brought.health == {"status": "ok"}
    assert "running | score: 0.40" in capsys.readouterr().out


def test_the_documented_code_runs_against_the_embedded_backend(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def reply(body: dict[str, Any]) -> dict[str, Any]:
        system, last = (str(body["messages"][place]["content"]) for place in (0, -1))
        if not last.startswith("Customer Query: number"):
            return completion("```\nA better system prompt\n```")  # a reflection
        return completion("right" if "better" in system or last.endswith(("0", "5")) else "wrong")

    provider = FakeProvider(reply=reply)
    with ServerThread(provider.app) as upstream:
        environ = {"OPENAI_BASE_URL": f"{upstream.url}/v1", "OPENAI_API_KEY": "sk-fake"}
        with start(BackendSettings(environ=environ)) as backend:
            monkeypatch.setenv("SYNTH_BACKEND_URL", backend.url)
            brought = asyncio.run(documented_code(reward_of_a_model_call))
    assert brought.optimised.get_system_prompt() == brought.best_text == "A better system prompt"
    assert brought.prompts.best_score == brought.optimised.best_score == 1.0
    assert 0 < brought.prompts.total_rollouts <= 80
    assert brought.evaluated.mean_reward == pytest.approx(10 / 50)
    assert brought.health["status"] == "ok"
    told = capsys.readouterr().out
    assert "plan: 80 rollouts: baseline 10, population 39, 1 of 9 children, final check 20\n[00:00] " in told
    assert f"] {brought.prompts.total_rollouts} of 80 rollouts: baseline 10, population " in told


def test_the_documented_body_is_refused_without_key_and_upstream(monkeypatch: pytest.MonkeyPatch) -> None:
    with start(BackendSettings(environ={})) as backend:
        monkeypatch.setenv("SYNTH_BACKEND_URL", backend.url)
        with pytest.raises(InvalidRequestError) as refusal:
            asyncio.run(documented_code(reward_of_a_model_call))
    remedy = (
        "provider 'openai' has no key: set OPENAI_API_KEY, or OPENAI_BASE_URL for a server that needs none"
    )
    assert f"prompt_learning.policy: {remedy}" in str(refusal.value)


async def documented_code(reward_of: RewardOf) -> Brought:
    # Keys
    SYNTH_API_BASE = os.environ.get("SYNTH_BACKEND_URL", "https://api.usesynth.ai")
    SYNTH_API_KEY = os.environ.get("SYNTH_API_KEY") or mint_demo_api_key(SYNTH_API_BASE)
    os.environ["SYNTH_API_KEY"] = SYNTH_API_KEY
    ENVIRONMENT_API_KEY = mint_environment_api_key()
    os.environ["ENVIRONMENT_API_KEY"] = ENVIRONMENT_API_KEY
    setup_environment_api_key(SYNTH_API_BASE, SYNTH_API_KEY, token=ENVIRONMENT_API_KEY)

    # Quick health check
    async with JobsClient(
        base_url=os.environ.get("SYNTH_BACKEND_URL", "https://api.usesynth.ai"),
        api_key=os.environ["SYNTH_API_KEY"],
    ) as client:
        files = await client.files.list(limit=5)

    # 1) and 2): the task app and its tunnel
    app = create_banking77_local_api("baseline prompt", reward_of)
    baseline_tunnel = await TunneledLocalAPI.create_for_app(
        app=app,
        local_port=None,
        backend=TunnelBackend.Localhost,
        progress=True,
    )
    with baseline_tunnel:
        LOCAL_API_URL = baseline_tunnel.url

        # 3) GEPA
        config_body = {
            "prompt_learning": {
                "algorithm": "gepa",
                "task_app_url": LOCAL_API_URL,
                "env_name": "banking77",
                "initial_prompt": {
                    "messages": [
                        {"role": "system", "order": 0, "pattern": "Baseline system prompt"},
                        {"role": "user", "order": 1, "pattern": QUERY_PATTERN},
                    ],
                    "wildcards": {"query": "REQUIRED", "available_intents": "OPTIONAL"},
                },
                "policy": {
                    "model": "gpt-4.1-nano",
                    "provider": "openai",
                    "inference_mode": "synth_hosted",
                    "temperature": 0.0,
                    "max_completion_tokens": 256,
                },
                "gepa": {
                    "env_name": "banking77",
                    "evaluation": {
                        "seeds": list(range(50)),
                        "validation_seeds": list(range(50, 60)),
                    },
                    "rollout": {"budget": 80, "max_concurrent": 8, "minibatch_size": 8},
                    "mutation": {"rate": 0.3},
                    "population": {"initial_size": 4, "num_generations": 3, "children_per_generation": 3},
                    "archive": {"size": 5, "pareto_set_size": 10},
                },
            },
        }
        job = PromptLearningJob.from_dict(config_dict=config_body, skip_health_check=True)
        job_id = job.submit()
        result = job.poll_until_complete(timeout=3600.0, interval=0.01, progress=True)
        assert result.status.value == "succeeded", result.error

        # 4) Eval jobs
        config = EvalJobConfig(
            local_api_url=LOCAL_API_URL,
            backend_url=os.environ.get("SYNTH_BACKEND_URL", "https://api.usesynth.ai"),
            api_key=os.environ["SYNTH_API_KEY"],
            env_name="banking77",
            seeds=list(range(100, 150)),
            policy_config={"model": "gpt-4.1-nano", "provider": "openai"},
            env_config={"split": "test"},
            concurrency=10,
        )
        eval_job = EvalJob(config)
        eval_job.submit()
        eval_result = eval_job.poll_until_complete(timeout=600.0, interval=0.01, progress=True)
        assert eval_result.status == "completed"
        assert sorted(row.seed for row in eval_result.rows) == list(range(100, 150))

    # 5) Retrieve optimised prompts
    reader = PromptLearningClient()
    prompt_results = await reader.get_prompts(job_id)
    best_text = await reader.get_prompt_text(job_id)

    # The raw example
    base = os.environ.get("SYNTH_BACKEND_URL", "https://api.usesynth.ai")
    resp = await asyncio.to_thread(
        httpx.get,
        f"{base}/api/health",
        headers={"Authorization": f"Bearer {os.environ['SYNTH_API_KEY']}"},
        timeout=30,
    )
    resp.raise_for_status()
    return Brought(files, result, eval_result, prompt_results, best_text, resp.json())
