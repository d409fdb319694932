"""The examples: they run where they are copied to, and their data is what they say."""

from __future__ import annotations

import csv
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"
SUPPORT = EXAMPLES / "support_intents"


def prompt_labels(file: Path) -> list[str]:
    return re.findall(r"^- ([\w?]+)", file.read_text(encoding="utf-8"), re.MULTILINE)


def copy(tmp_path: Path) -> Path:
    ignored = shutil.ignore_patterns("__pycache__", ".*")
    return shutil.copytree(EXAMPLES, tmp_path / "copied", ignore=ignored)


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    environ.pop("BANKING77_DIR", None)
    return subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            str(folder),
            "-p",
            "no:cacheprovider",
            "-p",
            "no:randomly",
            *arguments,
        ],
        cwd=folder.parent,
        env=environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_examples_run_where_they_are_copied_to(tmp_path: Path) -> None:
    result = run(copy(tmp_path))
    assert result.returncode == 0, result.stdout + result.stderr
    assert "3 passed, 1 skipped, 1 xfailed" in result.stdout.splitlines()[-1]
    assert re.search(r"test_prompt_holds +0\.8\d +0\.70 +64/64 .* passed", result.stdout)
    assert re.search(r"test_regression_is_caught +0\.4\d +0\.70 +64/64 .* failed", result.stdout)
    assert re.search(r"test_descriptions_can_be_learnt +0\.6\d +0\.60 +64/64 .* passed", result.stdout)
    assert (
        "SKIPPED [1] copied/banking77/test_banking77.py:11: BANKING77_DIR names no folder; it must hold "
        "train.csv, test.csv and categories.json (PolyAI's task-specific-datasets, folder banking_data)"
    ) in result.stdout


def test_the_stored_prompt_of_the_examples_is_found_again(tmp_path: Path) -> None:
    """From nothing but the names; a search that has become another one needs a look at the new prompt."""
    folder = copy(tmp_path) / "support_intents"
    stored = next((SUPPORT / "__snapshots__").rglob("*.prompt"))
    shutil.rmtree(folder / "__snapshots__")
    result = run(folder, "--synth-optimize", "--snapshot-update")
    assert result.returncode == 0, result.stdout + result.stderr
    assert "3 passed, 1 xfailed" in result.stdout.splitlines()[-1]
    assert "held-out reward 0.44 -> 0.64 on 64 seeds, difference +0.20 (interval +0.06 to" in result.stdout
    found = next((folder / "__snapshots__").rglob("*.prompt"))
    assert found.read_bytes() == stored.read_bytes()


def test_support_intents_are_balanced_and_each_message_is_in_one_split() -> None:
    with (SUPPORT / "support_intents.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    labels = prompt_labels(SUPPORT / "prompts" / "support.md")
    assert len(labels) == 8
    assert Counter((row["split"], row["intent"]) for row in rows) == {
        (split, label): 8 for split in ("train", "test") for label in labels
    }
    assert max(Counter(row["text"] for row in rows).values()) == 1
    # any eight rows in a row hold every intent, so that a range of seeds is balanced too
    assert all({r["intent"] for r in rows[at : at + 8]} == set(labels) for at in range(0, len(rows), 8))


def test_the_prompt_without_descriptions_has_the_same_intents() -> None:
    prompts = SUPPORT / "prompts"
    assert prompt_labels(prompts / "names_only.md") == prompt_labels(prompts / "support.md")


@pytest.mark.skipif(not os.environ.get("BANKING77_DIR"), reason="BANKING77_DIR names no folder")
def test_the_banking77_prompt_describes_every_intent_of_the_data_once() -> None:
    with (Path(os.environ["BANKING77_DIR"]) / "train.csv").open(encoding="utf-8", newline="") as file:
        intents = {row["category"] for row in csv.DictReader(file)}
    assert sorted(prompt_labels(EXAMPLES / "banking77" / "prompts" / "banking77.md")) == sorted(intents)
