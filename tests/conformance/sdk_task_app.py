"""A task app made with synth-ai's own `create_local_api`; run in an environment that has synth-ai 0.7.0.

    python sdk_task_app.py PORT        (ENVIRONMENT_API_KEY in the environment)

Its model calls go where the policy says, as the SDK's own helpers read it.
"""

from __future__ import annotations

import sys

import httpx
import uvicorn
from synth_ai.sdk.localapi import LocalAPIConfig, create_local_api
from synth_ai.sdk.localapi._impl.contracts import RolloutMetrics, RolloutRequest, RolloutResponse, TaskInfo
from synth_ai.sdk.localapi._impl.trace_correlation_helpers import extract_trace_correlation_id
from synth_ai.sdk.localapi._impl.validators import normalize_inference_url

LABELS = ("card_arrival", "refund", "exchange_rate")
ROWS = [
    ("When will my new card arrive?", "card_arrival"),
    ("I want a refund for this purchase", "refund"),
    ("What is the exchange rate for euros?", "exchange_rate"),
    ("raise", "an executor that raises is a plain-text 500"),
    ("mapping", "a mapping that is no RolloutResponse is answered as it is"),
]
SYSTEM = "Classify the query. Call classify with the intent."
TOOL = {
    "type": "function",
    "function": {
        "name": "classify",
        "description": "Say the intent",
        "parameters": {
            "type": "object",
            "properties": {"intent": {"type": "string", "enum": list(LABELS)}},
            "required": ["intent"],
        },
    },
}


async def run_rollout(request: RolloutRequest, fastapi_request) -> RolloutResponse:
    query, label = ROWS[request.env.seed or 0]
    if query == "raise":
        raise ValueError("this row is broken")
    if query == "mapping":
        return {"reward": 1.0}
    policy = request.policy.config
    url = normalize_inference_url(policy.get("inference_url"))
    body = {
        "model": policy["model"],
        "messages": [{"role": "system", "content": SYSTEM}, {"role": "user", "content": query}],
        "tools": [TOOL],
        "tool_choice": {"type": "function", "function": {"name": "classify"}},
    }
    async with httpx.AsyncClient(timeout=30) as client:
        reply = await client.post(url, json=body)
    reply.raise_for_status()
    calls = reply.json()["choices"][0]["message"].get("tool_calls") or []
    correct = bool(calls) and label in calls[0]["function"]["arguments"]
    return RolloutResponse(
        trace_correlation_id=extract_trace_correlation_id(policy, inference_url=policy["inference_url"]),
        reward_info=RolloutMetrics(outcome_reward=float(correct), details={"expected": label}),
        trace=None,
    )


def provide_taskset_description():
    return {"splits": ["test"], "sizes": {"test": len(ROWS)}}


def provide_task_instances(seeds):
    for seed in seeds:
        yield TaskInfo(
            task={"id": "intents", "name": "Intents"},
            dataset={"id": "intents", "split": "test", "index": seed},
            inference={"tool": "classify"},
            limits={"max_turns": 1},
            task_metadata={"seed": seed},
        )


app = create_local_api(
    LocalAPIConfig(
        app_id="intents",
        name="Intents",
        description="Classify queries",
        provide_taskset_description=provide_taskset_description,
        provide_task_instances=provide_task_instances,
        rollout=run_rollout,
        cors_origins=["*"],
    )
)

if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="warning")
