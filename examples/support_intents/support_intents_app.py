"""Which of eight intents has a message to an online shop? The task app, by `task_app`."""

import csv
from pathlib import Path

from pytest_synth import load_prompt, task_app

FOLDER = Path(__file__).parent
PROMPT = load_prompt(FOLDER / "prompts" / "support.md").system


def rows(split):
    with (FOLDER / "support_intents.csv").open(encoding="utf-8", newline="") as file:
        return [row for row in csv.DictReader(file) if row["split"] == split]


async def run(row, llm):
    reply = await llm.chat([{"role": "system", "content": PROMPT}, {"role": "user", "content": row["text"]}])
    return reply.text.strip()


def score(row, answer):
    if answer == row["intent"]:
        return 1.0
    return 0.0, f"it is {row['intent']}, not {answer or 'nothing'}"


app = task_app(
    rows=rows, run=run, score=score, expected="intent", name="support_intents", splits=["train", "test"]
)
