"""The documented way to use the API, end to end, with only the import lines changed.

The service is a stand-in on loopback; the task app, its tunnel (localhost) and the client are real.
"""
# ruff: noqa: N806  # the documentation's own names

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fakes.hosted_service import HostedService

from pytest_synth import (
    EvalJob,
    EvalJobConfig,
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
from pytest_synth.tunnels import TunnelBackend, TunneledLocalAPI


@pytest.fixture
def service() -> HostedService:
    return HostedService()


@pytest.fixture(autouse=True)
def backend(service: HostedService, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("SYNTH_API_KEY", "ENVIRONMENT_API_KEY"):
        monkeypatch.setenv(name, "to be undone")
        monkeypatch.delenv(name)
    with ServerThread(service.app) as server:
        monkeypatch.setenv("SYNTH_BACKEND_URL", server.url)
        yield
    assert list(tmp_path.iterdir()) == []


def create_banking77_local_api(system_prompt: str) -> Any:
    async def run_rollout(request: RolloutRequest, fastapi_request: Any) -> RolloutResponse:
        reward = 1.0 if request.env.seed != 149 else 0.0
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


def test_the_documented_code_runs_from_keys_to_the_optimised_prompt(
    service: HostedService, capsys: pytest.CaptureFixture[str]
) -> None:
    asyncio.run(documented_code(service))
    assert "running | score: 0.40" in capsys.readouterr().out


async def documented_code(service: HostedService) -> None:
    # Keys
    SYNTH_API_BASE = os.environ.get("SYNTH_BACKEND_URL", "https://api.usesynth.ai")
    SYNTH_API_KEY = os.environ.get("SYNTH_API_KEY") or mint_demo_api_key(SYNTH_API_BASE)
    os.environ["SYNTH_API_KEY"] = SYNTH_API_KEY
    ENVIRONMENT_API_KEY = mint_environment_api_key()
    os.environ["ENVIRONMENT_API_KEY"] = ENVIRONMENT_API_KEY
    setup_environment_api_key(SYNTH_API_BASE, SYNTH_API_KEY, token=ENVIRONMENT_API_KEY)
    assert service.environment_key == ENVIRONMENT_API_KEY

    # Quick health check
    async with JobsClient(
        base_url=os.environ.get("SYNTH_BACKEND_URL", "https://api.usesynth.ai"),
        api_key=os.environ["SYNTH_API_KEY"],
    ) as client:
        files = await client.files.list(limit=5)
    assert files["data"] == []

    # 1) and 2): the task app and its tunnel
    app = create_banking77_local_api("baseline prompt")
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
                        {"role": "user", "order": 1, "pattern": "Customer Query: {query}"},
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
                },
            },
        }
        job = PromptLearningJob.from_dict(config_dict=config_body, skip_health_check=True)
        job_id = job.submit()
        result = job.poll_until_complete(timeout=3600.0, interval=0.01, progress=True)
        assert result.status.value == "succeeded"
        assert result.get_system_prompt() == "A better system prompt"

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
        assert [row.seed for row in eval_result.rows] == list(range(100, 150))
        assert eval_result.mean_reward == pytest.approx(49 / 50)

    # 5) Retrieve optimised prompts
    reader = PromptLearningClient()
    prompt_results = await reader.get_prompts(job_id)
    assert prompt_results.best_score == 0.8125
    assert await reader.get_prompt_text(job_id) == "A better system prompt"

    # The raw example
    base = os.environ.get("SYNTH_BACKEND_URL", "https://api.usesynth.ai")
    resp = await asyncio.to_thread(
        httpx.get,
        f"{base}/api/health",
        headers={"Authorization": f"Bearer {os.environ['SYNTH_API_KEY']}"},
        timeout=30,
    )
    resp.raise_for_status()
    assert resp.json() == {"status": "ok"}
