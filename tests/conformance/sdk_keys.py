"""Drives the SDK's key functions, its inference client and the raw example.

python sdk_keys.py REPORT        (SYNTH_BACKEND_URL in the environment, and no key)
"""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import Any

import requests
from sdk_kit import POLICY, IntentApp, plain, refusal, report, serve
from synth_ai.core.utils.env import mint_demo_api_key
from synth_ai.core.utils.urls import backend_health_url
from synth_ai.sdk.eval.job import EvalJob, EvalJobConfig
from synth_ai.sdk.inference import InferenceClient
from synth_ai.sdk.localapi.auth import (
    ensure_localapi_auth,
    mint_environment_api_key,
    setup_environment_api_key,
)

BASE = os.environ["SYNTH_BACKEND_URL"]
KEY = mint_demo_api_key(BASE)
WRONG_KEY = "sk_demo_wrong"


def minted() -> Any:
    return [mint_demo_api_key(base) for base in (BASE, BASE + "/", BASE + "/api")]


def uploaded() -> Any:
    token = mint_environment_api_key()
    return [setup_environment_api_key(base, KEY, token=token) for base in (BASE, BASE + "/api", BASE)]


def refused_uploads() -> Any:
    url = f"{BASE}/api/v1/env-keys"
    headers = {"Authorization": f"Bearer {KEY}"}
    unsealed = {"name": "ENVIRONMENT_API_KEY", "ciphertext_b64": "bm90IHNlYWxlZA=="}
    answer = requests.post(url, json=unsealed, headers=headers, timeout=30)
    return {
        "wrong key": refusal(lambda: setup_environment_api_key(BASE, WRONG_KEY, token="t" * 64)),
        "not sealed": [answer.status_code, answer.json()],
    }


def ensured() -> Any:
    """The first call mints a key, stores it at home and uploads it; the second finds it."""
    assert "ENVIRONMENT_API_KEY" not in os.environ
    first = ensure_localapi_auth(BASE, KEY)
    second = ensure_localapi_auth(BASE + "/api", KEY)
    stored = json.loads((Path.home() / ".synth-ai" / "user_config.json").read_text())
    return {
        "same": first == second == stored["ENVIRONMENT_API_KEY"] == os.environ["ENVIRONMENT_API_KEY"],
        "length": len(first),
    }


def stored_key_used() -> Any:
    """Jobs without a key in band; then with two other keys uploaded, as other processes of a tenant do."""
    app = IntentApp("Classify")
    url = serve(app.app)
    body = {
        "task_app_url": url,
        "env_name": "stored",
        "seeds": [0],
        "policy": POLICY,
        "env_config": {"split": "test"},
    }
    headers = {"Authorization": f"Bearer {KEY}"}
    results = []
    for _ in range(2):
        answer = requests.post(f"{BASE}/api/eval/jobs", json=body, headers=headers, timeout=30)
        job = EvalJob.from_job_id(answer.json()["job_id"], BASE, KEY)
        results.append(plain(job.poll_until_complete(timeout=60, interval=0.05)))
        for _ in range(2):
            setup_environment_api_key(BASE, KEY, token=mint_environment_api_key())
    return {"results": results, "keys": [entry["keys"] for entry in app.seen]}


def tenancy() -> Any:
    """A job under one key, asked for with another."""
    job = EvalJob(
        EvalJobConfig(
            local_api_url="http://127.0.0.1:9",
            backend_url=BASE,
            api_key=KEY,
            task_app_api_key="another-key",
            seeds=[0],
            policy_config=POLICY,
        )
    )
    job.submit()
    other = EvalJob.from_job_id(job.job_id, BASE, mint_demo_api_key(BASE))
    return {
        "job_id": job.job_id,
        "status": refusal(other.get_status),
        "results": refusal(other.get_results),
        "cancel": refusal(other.cancel),
        "state": other.query_workflow_state(),
    }


def health() -> Any:
    answers = [
        requests.get(f"{BASE}/api/health", headers={"Authorization": f"Bearer {KEY}"}, timeout=30),
        requests.get(backend_health_url(BASE), timeout=30),
    ]
    return [[answer.status_code, answer.json()] for answer in answers]


def inference() -> Any:
    messages = [
        {"role": "system", "content": "Classify. Intents: refund"},
        {"role": "user", "content": "This is about refund"},
    ]

    def ask(key: str, base: str = BASE, **more: Any) -> Any:
        client = InferenceClient(base, key)
        return asyncio.run(client.create_chat_completion(model="GPT-4.1-nano", messages=messages, **more))

    return {
        "plain": ask(KEY, temperature=0.5),
        "below api": ask(KEY, BASE + "/api", thinking_budget=512),
        "wrong key": refusal(lambda: ask(WRONG_KEY)),
    }


if __name__ == "__main__":
    # One after the other: they share the process's environment.
    report(
        [minted],
        [uploaded],
        [refused_uploads],
        [ensured],
        [stored_key_used],
        [tenancy],
        [health],
        [inference],
    )
