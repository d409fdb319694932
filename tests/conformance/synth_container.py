"""A container made with `synth-containers`' own `Container`; run where that package is installed.

    python synth_container.py PORT

It names the intent of a query, by a model; its model calls go where the policy says.
"""

from __future__ import annotations

import asyncio
import json
import sys
import urllib.request

import uvicorn
from synth_containers import Container
from synth_containers.sdk import RolloutResult

ROWS = {
    "train": [("My card has not come", "card_arrival")],
    "test": [
        ("When will my new card arrive?", "card_arrival"),
        ("I want a refund for this purchase", "refund"),
        ("raise", "a rollout that raises"),
    ],
}
SYSTEM = "Name the intent of the query.\n- card_arrival: when a card arrives\n- refund: money back, a refund"

container = Container("intents", default_submission_mode="async")


@container.taskset
def taskset():
    return {"taskset_id": "intents:v1", "splits": {split: len(rows) for split, rows in ROWS.items()}}


@container.taskset_tasks
def taskset_tasks(payload):
    tasks = []
    for task_id in payload["task_ids"]:
        split, _, seed = task_id.partition(":")
        text, label = ROWS[split][int(seed)]
        tasks.append({"task_id": task_id, "split": split, "seed": int(seed), "text": text, "label": label})
    return {"tasks": tasks}


@container.program
def program():
    return {"program_id": "intents", "seed_candidate": {"system": SYSTEM}}


@container.rollout
async def rollout(payload):
    task, policy = payload["task"], payload["policy"]
    if task["text"] == "raise":
        raise ValueError("this row is broken")
    messages = [
        {"role": "system", "content": payload["candidate"]["system"]},
        {"role": "user", "content": task["text"]},
    ]
    body = json.dumps({"model": policy["model"], "messages": messages}).encode()

    def call():
        request = urllib.request.Request(
            policy["inference_url"] + "/chat/completions", body, {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)["choices"][0]["message"]["content"]

    prediction = await asyncio.to_thread(call)
    return RolloutResult(
        rollout_id=payload["rollout_id"],
        reward=float(task["label"] in prediction),
        reward_details={"prediction": prediction, "expected": task["label"]},
    ).to_dict()


if __name__ == "__main__":
    uvicorn.run(container.fastapi(), host="127.0.0.1", port=int(sys.argv[1]), log_level="critical")
