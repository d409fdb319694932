"""Which of 77 intents has a query to a bank? The task app over the real data set, by `task_app`.

The folder that `BANKING77_DIR` names holds `train.csv`, `test.csv` (columns `text`, `category`) and
`categories.json`: the folder `banking_data` of PolyAI's task-specific-datasets. Nothing of it is kept here.
"""

import csv
import json
import os
from functools import cache
from pathlib import Path

from pytest_synth import load_prompt, task_app

PROMPT = load_prompt(Path(__file__).parent / "prompts" / "banking77.md").system
TOOL = "banking77_classify"


def data_file(name):
    return Path(os.environ["BANKING77_DIR"]) / name


def rows(split):
    with data_file(f"{split}.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@cache
def intents():
    return json.loads(data_file("categories.json").read_text(encoding="utf-8"))


@cache
def available_intents():
    return "\n".join(f"{number}. {name}" for number, name in enumerate(intents(), start=1))


@cache
def tool():
    intent = {"type": "string", "enum": intents(), "description": "The intent of the query"}
    return {
        "type": "function",
        "function": {
            "name": TOOL,
            "description": "Classify a customer's query into one banking intent",
            "parameters": {"type": "object", "properties": {"intent": intent}, "required": ["intent"]},
        },
    }


async def run(row, llm):
    query = f"Customer Query: {row['text']}\n\nAvailable Intents:\n{available_intents()}"
    reply = await llm.chat(
        [{"role": "system", "content": PROMPT}, {"role": "user", "content": query}],
        tools=[tool()],
        tool_choice={"type": "function", "function": {"name": TOOL}},
    )
    call = reply.tool_call
    return call.arguments.get("intent") if call else reply.text.strip()


def score(row, answer):
    if answer == row["category"]:
        return 1.0
    return 0.0, f"it is {row['category']}, not {answer or 'nothing'}"


app = task_app(
    rows=rows, run=run, score=score, expected="category", name="banking77", splits=["train", "test"]
)
