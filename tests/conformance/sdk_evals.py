"""Drives the SDK's eval jobs.

python sdk_evals.py REPORT        (SYNTH_BACKEND_URL in the environment)
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from pathlib import Path
from threading import Timer
from typing import Any

from sdk_kit import POLICY, IntentApp, Recorder, free_port, refusal, report, serve
from synth_ai.core.utils.env import mint_demo_api_key
from synth_ai.sdk.eval.job import EvalJob, EvalJobConfig
from synth_ai.sdk.localapi.auth import mint_environment_api_key

BASE = os.environ["SYNTH_BACKEND_URL"]
KEY = os.environ["SYNTH_API_KEY"] = mint_demo_api_key(BASE)
os.environ["ENVIRONMENT_API_KEY"] = mint_environment_api_key()
APP = IntentApp("Classify. Intents: refund, exchange_rate")
URL = serve(APP.app)
SOON = {"timeout": 60, "interval": 0.1}


def config(name: str, seeds: list[int], does: dict[str, str] | None = None, **more: Any) -> EvalJobConfig:
    settings = {
        "local_api_url": URL,
        "backend_url": BASE,
        "api_key": KEY,
        "env_name": name,
        "seeds": seeds,
        "policy_config": POLICY,
        "env_config": {"split": "test", **({"does": does} if does else {})},
    }
    return EvalJobConfig(**{**settings, **more})


def submitted(*args: Any, **more: Any) -> EvalJob:
    job = EvalJob(config(*args, **more))
    job.submit()
    return job


def polled() -> Any:
    statuses: list[Any] = []
    job = submitted("polled", list(range(100, 110)), concurrency=3, timeout=45.0)
    result = job.poll_until_complete(**SOON, progress=True, on_status=statuses.append)
    return {
        "job_id": job.job_id,
        "result": result,
        "mean_text": f"{result.mean_reward:.2%} ${result.total_cost_usd:.4f}",
        "statuses": statuses,
        "results": job.get_results(),
        "state": job.query_workflow_state(),
        "seen": APP.seen_for("polled"),
    }


def own_policy() -> Any:
    """Fields of the policy that the backend does not know, and a key of the user's own."""
    policy = {**POLICY, "inference_mode": "synth_hosted", "temperature": 0.3, "api_key": "sk-of-the-user"}
    job = submitted("own_policy", [0], policy_config=policy, app_id="banking77")
    job.poll_until_complete(**SOON)
    return {"seen": APP.seen_for("own_policy"), "shown": json.dumps([job.get_status(), job.get_results()])}


def mean_of_zero() -> Any:
    job = submitted("mean_of_zero", [0, 1], {"all": "zero"})
    streamed = job.stream_until_complete(handlers=[Recorder()])
    return {"polled": job.poll_until_complete(**SOON), "streamed": streamed}


def partial() -> Any:
    return submitted("partial", [0, 1, 2, 3], {"1": "raise", "3": "mapping"}).poll_until_complete(**SOON)


def all_failed() -> Any:
    job = submitted("all_failed", [0, 1], {"all": "raise"})
    recorder = Recorder()
    streamed = job.stream_until_complete(handlers=[recorder])
    return {
        "polled": job.poll_until_complete(**SOON),
        "streamed": streamed,
        "events": recorder.events,
        "results": job.get_results(),
        "state": job.query_workflow_state(),
    }


def unreachable() -> Any:
    url = f"http://127.0.0.1:{free_port()}"
    started = time.monotonic()
    result = submitted("unreachable", [0, 1], local_api_url=url).poll_until_complete(**SOON)
    return {"url": url, "result": result, "took_s": time.monotonic() - started}


def wrong_environment_key() -> Any:
    result = submitted("wrong", [0], task_app_api_key="wrong-" + "0" * 40).poll_until_complete(**SOON)
    return {"result": result, "key": os.environ["ENVIRONMENT_API_KEY"]}


def slow_rollout() -> Any:
    return submitted("slow", [1], {"1": "wait"}, timeout=1.0).poll_until_complete(**SOON)


def out_of_range() -> Any:
    return submitted("out_of_range", [0, 5000]).poll_until_complete(**SOON)


def refused() -> Any:
    def submission(seeds: list[Any] = [0], **more: Any) -> Any:  # noqa: B006
        return refusal(lambda: submitted("refused", seeds, **more))

    unknown = EvalJob.from_job_id("eval-unknown", BASE, KEY)
    return {
        "wrong key": submission(api_key="sk_demo_wrong", task_app_api_key="x"),
        "url": submission(local_api_url="ftp://example.org"),
        "seeds": submission(seeds=["one"]),
        "concurrency": submission(concurrency=0),
        "provider": submission(policy_config={"model": "m", "provider": "no such provider"}),
        "verifier": submission(verifier_config={"name": "v"}),
        "unknown status": refusal(unknown.get_status),
        "unknown results": refusal(unknown.get_results),
        "unknown traces": refusal(lambda: unknown.download_traces(Path.home() / "none")),
        "unknown cancel": refusal(unknown.cancel),
        "unknown state": unknown.query_workflow_state(),
    }


def streamed() -> Any:
    live, replayed = Recorder(), Recorder()
    job = submitted("streamed", list(range(5)))
    results = [job.stream_until_complete(handlers=[recorder]) for recorder in (live, replayed)]
    return {
        "results": results,
        "live": live.events,
        "replayed": replayed.events,
        "statuses": live.statuses + replayed.statuses,
    }


def streamed_by_default_handler() -> Any:
    return submitted("by_default", [0]).stream_until_complete()


def traces() -> Any:
    job = submitted("traces", [0, 1, 4], {"1": "raise"}, save_trace=True)
    job.poll_until_complete(**SOON)
    folder = job.download_traces(Path(tempfile.mkdtemp(dir=Path.home())) / "traces")
    files = {path.name: json.loads(path.read_text()) for path in sorted(folder.rglob("*.*"))}
    return {"files": files, "seen": APP.seen_for("traces")}


def cancelled() -> Any:
    job = submitted("cancelled", list(range(20)), {"all": "wait"}, concurrency=2)
    APP.until_seen("cancelled")
    impatient = job.poll_until_complete(timeout=0.3, interval=0.1)
    answers = [job.cancel(reason="no longer needed"), job.cancel()]
    return {
        "impatient": impatient,
        "answers": answers,
        "result": job.poll_until_complete(**SOON),
        "state": job.query_workflow_state(),
        "rollouts": len(APP.seen_for("cancelled")),
    }


def cancelled_while_streamed() -> Any:
    job = submitted("cancelled_stream", [0, 1], {"all": "wait"})
    APP.until_seen("cancelled_stream")
    Timer(0.5, job.cancel).start()
    return job.stream_until_complete(handlers=[Recorder()])


def from_toml() -> Any:
    path = Path.home() / "eval.toml"
    path.write_text(
        f"""
[eval]
url = "{URL}"
env_name = "toml"
seeds = [0, 3]
concurrency = 2

[eval.policy_config]
model = "gpt-4.1-nano"
provider = "openai"

[eval.env_config]
split = "test"
"""
    )
    job = EvalJob.from_config(path)
    job.submit()
    again = EvalJob.from_job_id(job.job_id)
    return again.poll_until_complete(**SOON)


if __name__ == "__main__":
    report(
        [
            polled,
            own_policy,
            mean_of_zero,
            partial,
            all_failed,
            unreachable,
            wrong_environment_key,
            slow_rollout,
            out_of_range,
            refused,
            streamed,
            streamed_by_default_handler,
            traces,
            cancelled,
            cancelled_while_streamed,
            from_toml,
        ]
    )
