"""The documented code, as it is written there, but for the tunnel: `localhost` instead of Cloudflare's.

python sdk_seed.py REPORT        (SYNTH_BACKEND_URL in the environment, SYNTH_API_KEY if there is one)
"""
# ruff: noqa: N806  # the documentation's own names

from __future__ import annotations

import asyncio
import os
from typing import Any

import requests
from sdk_kit import IntentApp, report
from synth_ai.core.tunnels import TunnelBackend, TunneledLocalAPI
from synth_ai.core.utils.env import mint_demo_api_key
from synth_ai.sdk.eval.job import EvalJob, EvalJobConfig
from synth_ai.sdk.localapi.auth import mint_environment_api_key, setup_environment_api_key
from synth_ai.sdk.optimization.internal.learning.prompt_learning_client import PromptLearningClient
from synth_ai.sdk.optimization.internal.prompt_learning import PromptLearningJob


def documented_code() -> Any:
    return asyncio.run(_documented_code())


async def _documented_code() -> Any:
    SYNTH_API_BASE = os.environ.get("SYNTH_BACKEND_URL", "https://api.usesynth.ai")
    SYNTH_API_KEY = os.environ.get("SYNTH_API_KEY") or mint_demo_api_key(SYNTH_API_BASE)
    os.environ["SYNTH_API_KEY"] = SYNTH_API_KEY

    ENVIRONMENT_API_KEY = mint_environment_api_key()
    os.environ["ENVIRONMENT_API_KEY"] = ENVIRONMENT_API_KEY
    setup_environment_api_key(SYNTH_API_BASE, SYNTH_API_KEY, token=ENVIRONMENT_API_KEY)

    intents = IntentApp("baseline prompt")
    baseline_tunnel = await TunneledLocalAPI.create_for_app(
        app=intents.app,
        local_port=None,  # auto-select
        backend=TunnelBackend.Localhost,
        progress=True,
    )
    LOCAL_API_URL = baseline_tunnel.url

    config_body = {
        "prompt_learning": {
            "algorithm": "gepa",
            "task_app_url": LOCAL_API_URL,
            "env_name": "banking77",
            "initial_prompt": {
                "messages": [
                    {"role": "system", "order": 0, "pattern": "Baseline system prompt"},
                    {
                        "role": "user",
                        "order": 1,
                        "pattern": "Customer Query: {query}\n\nAvailable Intents:\n{available_intents}",
                    },
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
    optimised = job.poll_until_complete(timeout=3600.0, interval=0.1, progress=True)
    rollouts = len(intents.seen)

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
    job = EvalJob(config)
    job.submit()
    evaluated = job.poll_until_complete(timeout=600.0, interval=0.1, progress=True)

    client = PromptLearningClient()
    prompt_results = await client.get_prompts(job_id)

    base = os.environ.get("SYNTH_BACKEND_URL", "https://api.usesynth.ai")
    resp = requests.get(
        f"{base}/api/health",
        headers={"Authorization": f"Bearer {os.environ['SYNTH_API_KEY']}"},
        timeout=30,
    )
    resp.raise_for_status()
    # The documented path doubles `/api` below a base that has it already.
    reread = requests.get(
        f"{base.removesuffix('/api')}/api/prompt-learning/online/jobs/{job_id}",
        headers={"Authorization": f"Bearer {os.environ['SYNTH_API_KEY']}"},
        timeout=30,
    )
    streamed = await asyncio.to_thread(EvalJob.from_job_id(job.job_id).stream_until_complete)
    return {
        "url": LOCAL_API_URL,
        "optimised": optimised,
        "rollouts": rollouts,
        "evaluated": evaluated,
        "streamed": streamed,
        "eval_seeds": sorted(entry["seed"] for entry in intents.seen[rollouts:]),
        "prompt_results": prompt_results,
        "health": resp.json()["status"],
        "reread": reread.json(),
    }


if __name__ == "__main__":
    report(
        [
            documented_code,
        ]
    )
