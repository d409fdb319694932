"""`pytest-synth optimize`, as a user types it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_synth import load_prompt
from pytest_synth._serving import ServerThread
from pytest_synth.cli import main
from pytest_synth.evals.resources import AppReference, load_app
from pytest_synth.prompts import load_stored_prompt

START = "Choose one label:\n- card\n- refund\n- top_up\n"
APP = """
from pytest_synth import task_app

WORDS = {"card": ["stolen", "missing"], "refund": ["reimburse", "money"], "top_up": ["deposit", "cash"]}
ROWS = {"train": [
    {"text": f"about my {word} {number}", "label": label}
    for number in range(3) for label, words in WORDS.items() for word in words
]}

async def run(row, llm):
    reply = await llm.chat([{"role": "system", "content": "own"}, {"role": "user", "content": row["text"]}])
    return reply.text.strip()

def score(row, answer):
    return float(answer == row["label"]), f"it is {row['label']}"

app = task_app(rows=ROWS, run=run, score=score, expected="label")
"""
CONFIG = """
[prompt_learning]
algorithm = "gepa"
{app}
env_config = {{ split = "train" }}
policy = {{ provider = "offline", model = "lexical" }}
initial_prompt.messages = [{{ role = "system", pattern = {pattern} }}]
[prompt_learning.gepa]
evaluation = {{ seeds = {{ start = 0, end = 12 }}, validation_seeds = {{ start = 12, end = 18 }} }}
rollout = {{ budget = {budget}, minibatch_size = 6 }}
archive = {{ pareto_set_size = 6, pareto_eps = 1e-6 }}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("SYNTH_API_KEY", "SYNTH_BACKEND_URL", "ENVIRONMENT_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "search_app.py").write_text(APP)
    return tmp_path


def write(folder: Path, *, app: str = 'app = "search_app:app"', budget: object = 60) -> str:
    file = folder / "gepa.toml"
    file.write_text(CONFIG.format(app=app, pattern=json.dumps(START), budget=budget))
    return str(file)


def test_search_prints_plan_result_and_diff_and_writes_the_best_prompt(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = folder / "prompts" / "best.prompt"
    assert main(["optimize", write(folder), "--output", str(output)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("plan: 60 rollouts: baseline 6, ")
    assert lines[1].startswith("held-out reward 0.33 -> 1.00 on 6 seeds, difference +0.67 (interval ")
    assert lines[2] == lines[0]
    assert " of 60 rollouts: baseline 6, " in lines[3]
    assert "not applied: " in lines[4]
    assert "pareto_eps" in lines[4]
    assert any(
        line.startswith("lineage, with rewards on the search's own seeds: baseline ") for line in lines
    )
    assert any("{+ refund: " in line and "reimburse" in line for line in lines)
    assert lines[-1] == f"wrote {output}"
    stored = load_stored_prompt(output)
    assert (stored.record.reward, stored.record.n, stored.record.seeds) == (1.0, 6, "train 12-17")
    assert "reimburse" in (load_prompt(output).system or "")


@pytest.fixture
def running_app(folder: Path) -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ENVIRONMENT_API_KEY", "key-of-the-running-app")
        app = load_app(AppReference("search_app:app", folder))
        with ServerThread(app, name="running-app") as server:
            yield server.url


def test_running_task_app_is_used_with_the_key_of_the_file(folder: Path, running_app: str) -> None:
    named = f'task_app_url = "{running_app}"\ntask_app_api_key = "key-of-the-running-app"'
    assert main(["optimize", write(folder, app=named)]) == 0


MISTAKES = {
    "no app": (
        {"app": ""},
        "'{file}': [prompt_learning] needs either app = 'module:attribute' or task_app_url",
    ),
    "field": (
        {"budget": '"many"'},
        "the search was not started: '{file}': prompt_learning.gepa.rollout.budget is 'many', not an integer",
    ),
    "small budget": (
        {"budget": 9},
        "the search was not started: '{file}': prompt_learning.gepa.rollout.budget is 9; at least ",
    ),
    "no TOML": ({"budget": "]"}, "'{file}' is not a TOML file: "),
    "app without attribute": (
        {"app": 'app = "my_app"'},
        "'{file}': [prompt_learning] app is 'my_app'; use 'module:attribute'",
    ),
    "no such app": (
        {"app": 'app = "nowhere_app:app"'},
        "the search was not started: '{file}': cannot load the task app 'nowhere_app:app': ModuleNotFound",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistake_is_one_line_with_file_and_field(
    name: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changes, words = MISTAKES[name]
    assert main(["optimize", write(folder, **changes)]) == 1  # type: ignore[arg-type]
    error = capsys.readouterr().err
    assert error.startswith(f"pytest-synth: {words.format(file=folder / 'gepa.toml')}")
    assert error.count("\n") == 1


def test_missing_file_and_odd_output_are_told(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["optimize", str(folder / "none.toml")]) == 1
    assert f"cannot read '{folder / 'none.toml'}': No such file" in capsys.readouterr().err
    assert main(["optimize", write(folder), "--output", str(folder)]) == 1
    assert f"--output '{folder}' is a folder; give the name of a file" in capsys.readouterr().err
