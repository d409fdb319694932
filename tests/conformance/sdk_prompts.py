"""Drives the SDK's prompt-learning jobs and the client that reads them.

python sdk_prompts.py REPORT        (SYNTH_BACKEND_URL in the environment)
"""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from threading import Timer
from typing import Any

from sdk_kit import IntentApp, Recorder, free_port, refusal, report, serve
from synth_ai.core.utils.env import mint_demo_api_key
from synth_ai.sdk.localapi.auth import mint_environment_api_key
from synth_ai.sdk.optimization.internal.learning import prompt_learning_client
from synth_ai.sdk.optimization.internal.learning.prompt_learning_client import PromptLearningClient
from synth_ai.sdk.optimization.internal.prompt_learning import PromptLearningJob

BASE = os.environ["SYNTH_BACKEND_URL"]
KEY = os.environ["SYNTH_API_KEY"] = mint_demo_api_key(BASE)
os.environ["ENVIRONMENT_API_KEY"] = mint_environment_api_key()
APP = IntentApp("baseline prompt")
URL = serve(APP.app)
SOON = {"timeout": 90, "interval": 0.1}


def body(env_name: str = "banking77", budget: int = 80, **section: Any) -> dict[str, Any]:
    """The documented config, for an app at another address."""
    return {
        "prompt_learning": {
            "algorithm": "gepa",
            "task_app_url": URL,
            "env_name": env_name,
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
                "env_name": env_name,
                "evaluation": {"seeds": list(range(50)), "validation_seeds": list(range(50, 60))},
                "rollout": {"budget": budget, "max_concurrent": 8, "minibatch_size": 8},
                "mutation": {"rate": 0.3},
                "population": {"initial_size": 4, "num_generations": 3, "children_per_generation": 3},
                "archive": {"size": 5, "pareto_set_size": 10},
            },
            **section,
        }
    }


def submitted(*args: Any, **more: Any) -> PromptLearningJob:
    job = PromptLearningJob.from_dict(config_dict=body(*args, **more), skip_health_check=True)
    job.submit()
    return job


def documented() -> Any:
    """The documented job to its end, and all that can be read of it."""
    statuses: list[Any] = []
    job = submitted()
    job_id = job.job_id
    result = job.poll_until_complete(**SOON, progress=True, on_status=statuses.append)
    recorder = Recorder()
    client = PromptLearningClient()

    async def read() -> Any:
        return {
            "job": await client.get_job(job_id),
            "events": await client.get_events(job_id),
            "later_events": await client.get_events(job_id, since_seq=3, limit=2),
            "prompts": await client.get_prompts(job_id),
            "texts": [await client.get_prompt_text(job_id, rank) for rank in (1, 2, 99)],
            "summary": await client.get_scoring_summary(job_id),
        }

    resumed = PromptLearningJob.from_job_id(job_id)
    return {
        "job_id": job_id,
        "result": result,
        "system_prompt": result.get_system_prompt(),
        "statuses": statuses,
        "get_status": job.get_status(),
        "get_results": job.get_results(),
        "best_texts": [job.get_best_prompt_text(), job.get_best_prompt_text(rank=2)],
        "state": job.query_workflow_state(),
        "read": asyncio.run(read()),
        "by_functions": [
            prompt_learning_client.get_prompts(job_id, BASE, KEY),
            prompt_learning_client.get_prompt_text(job_id, BASE, KEY),
            prompt_learning_client.get_scoring_summary(job_id, BASE, KEY),
        ],
        "replayed": resumed.stream_until_complete(handlers=[recorder]),
        "replayed_events": recorder.events,
        "again": resumed.poll_until_complete(**SOON),
        "cancel_after_end": resumed.cancel(),
        "seen": APP.seen_for("banking77"),
    }


def streamed() -> Any:
    recorder = Recorder()
    job = submitted("streamed", 50)
    result = job.stream_until_complete(handlers=[recorder])
    return {
        "result": result,
        "system_prompt": result.get_system_prompt(),
        "events": recorder.events,
        "statuses": recorder.statuses,
        "listed": asyncio.run(PromptLearningClient(BASE, KEY).get_events(job.job_id)),
        "rollouts": len(APP.seen_for("streamed")),
    }


def streamed_by_default_handler() -> Any:
    return submitted("by_default", 50).stream_until_complete()


def health_checked() -> Any:
    """Without `skip_health_check` the SDK first asks the app itself."""
    job = PromptLearningJob.from_dict(config_dict=body("checked", 50))
    job.submit()
    absent = PromptLearningJob.from_dict(
        config_dict=body(task_app_url=f"http://127.0.0.1:{free_port()}"), task_app_api_key="k"
    )
    return {"result": job.poll_until_complete(**SOON), "absent": refusal(absent.submit)}


def waits(env_name: str) -> PromptLearningJob:
    return submitted(env_name, env_config={"does": {"all": "wait"}})


def cancelled() -> Any:
    job = waits("cancelled")
    APP.until_seen("cancelled")
    impatient = job.poll_until_complete(timeout=0.3, interval=0.1)
    answers = [job.cancel(reason="enough"), job.cancel()]
    return {
        "impatient": impatient,
        "answers": answers,
        "result": job.poll_until_complete(**SOON),
        "state": job.query_workflow_state(),
        "rollouts": len(APP.seen_for("cancelled")),
    }


def cancelled_while_streamed() -> Any:
    job = waits("cancelled_stream")
    APP.until_seen("cancelled_stream")
    Timer(0.5, job.cancel).start()
    return job.stream_until_complete(handlers=[Recorder()])


def unreachable() -> Any:
    url = f"http://127.0.0.1:{free_port()}"
    started = time.monotonic()
    job = submitted("unreachable", task_app_url=url)
    result = job.poll_until_complete(**SOON)
    took_s = time.monotonic() - started
    streamed = job.stream_until_complete(handlers=[Recorder()])
    return {"url": url, "result": result, "took_s": took_s, "streamed": streamed}


def all_rollouts_fail() -> Any:
    return submitted("fails", env_config={"does": {"all": "raise"}}).poll_until_complete(**SOON)


def refused() -> Any:
    def submission(config: dict[str, Any], **more: Any) -> Any:
        job = PromptLearningJob.from_dict(config_dict=config, skip_health_check=True, **more)
        return refusal(job.submit)

    unknown = PromptLearningJob.from_job_id("pl_unknown")
    client, bad_client = PromptLearningClient(), PromptLearningClient(BASE, "sk_demo_wrong")
    return {
        "wrong key": submission(body(), api_key="sk_demo_wrong", task_app_api_key="k"),
        "wrong key, reading": refusal(lambda: asyncio.run(bad_client.get_job("pl_unknown"))),
        "budget": submission(body(budget=25)),
        "verifier": submission(
            body(verifier={"enabled": True, "reward_source": "verifier", "backend_base": BASE})
        ),
        "unknown status": refusal(unknown.get_status),
        "unknown events": refusal(lambda: asyncio.run(client.get_events("pl_unknown"))),
        "unknown poll": refusal(lambda: unknown.poll_until_complete(timeout=60, interval=0.01)),
        "unknown cancel": refusal(unknown.cancel),
        "unknown state": unknown.query_workflow_state(),
        "unknown stream": refusal(lambda: unknown.stream_until_complete(handlers=[Recorder()])),
    }


def overridden() -> Any:
    job = PromptLearningJob.from_dict(
        config_dict=body("overridden"),
        overrides={"prompt_learning.gepa.rollout.budget": 50},
        skip_health_check=True,
    )
    job.submit()
    return {"result": job.poll_until_complete(**SOON), "rollouts": len(APP.seen_for("overridden"))}


def from_toml() -> Any:
    path = Path.home() / "gepa.toml"
    path.write_text(
        f"""
[prompt_learning]
algorithm = "gepa"
task_app_url = "{URL}"
env_name = "toml"

[[prompt_learning.initial_prompt.messages]]
role = "system"
pattern = "Baseline system prompt"
order = 0

[prompt_learning.policy]
model = "gpt-4.1-nano"
provider = "openai"
inference_mode = "synth_hosted"

[prompt_learning.gepa.evaluation]
seeds = {list(range(20))}
validation_seeds = [50, 51]

[prompt_learning.gepa.rollout]
budget = 50
minibatch_size = 4

[prompt_learning.gepa.archive]
size = 5
pareto_set_size = 10
"""
    )
    job = PromptLearningJob.from_config(path)
    job.submit()
    return {"result": job.poll_until_complete(**SOON), "rollouts": len(APP.seen_for("toml"))}


if __name__ == "__main__":
    # The first one alone: so its proposals come in their order.
    report(
        [documented],
        [
            streamed,
            streamed_by_default_handler,
            health_checked,
            cancelled,
            cancelled_while_streamed,
            unreachable,
            all_rollouts_fail,
            refused,
            overridden,
            from_toml,
        ],
    )
