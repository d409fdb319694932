"""The workflow that users copy: what it may do, and that its commands work as they stand."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from fakes.plain_yaml import read_yaml

ROOT = Path(__file__).parent.parent
FILE = ROOT / ".github" / "workflows" / "prompts.yml"


@pytest.fixture(scope="module")
def workflow() -> dict[str, Any]:
    document = read_yaml(FILE.read_text(encoding="utf-8"))
    assert isinstance(document, dict)
    return document


def steps(workflow: dict[str, Any], job: str) -> list[dict[str, Any]]:
    return list(workflow["jobs"][job]["steps"])


def command(workflow: dict[str, Any], job: str, name: str) -> str:
    return next(str(step["run"]) for step in steps(workflow, job) if step.get("name") == name)


def test_pull_requests_of_forks_run_without_secrets(workflow: dict[str, Any]) -> None:
    assert set(workflow["on"]) == {"pull_request", "push", "schedule", "workflow_dispatch"}
    assert workflow["permissions"] == {"contents": "read"}
    assert "secrets" not in str(workflow["jobs"]["replay"]) + str(workflow["env"])
    assert (
        workflow["jobs"]["replay"]["if"]
        == "github.event_name == 'pull_request' || github.event_name == 'push'"
    )
    assert "secrets.OPENAI_API_KEY" in str(workflow["jobs"]["live"]["env"])
    assert "pull_request" not in workflow["jobs"]["live"]["if"]


def test_every_job_ends_and_no_step_keeps_credentials(workflow: dict[str, Any]) -> None:
    for name, job in workflow["jobs"].items():
        assert int(job["timeout-minutes"]) <= 60, name
        for step in job["steps"]:
            assert ("uses" in step) != ("run" in step), step
            assert re.fullmatch(r"actions/[a-z-]+@v\d+", step.get("uses", "actions/x@v1"))
            assert "${{" not in step.get("run", ""), "expressions in shell code can be injected"
            if step.get("uses", "").startswith("actions/checkout"):
                assert step["with"]["persist-credentials"] == "false"


def test_as_many_jobs_run_as_there_are_shards(workflow: dict[str, Any]) -> None:
    shards = workflow["jobs"]["live"]["strategy"]["matrix"]["shard"]
    assert f"--synth-shard $SHARD/{len(shards)} " in command(workflow, "live", "Test")
    assert shards == [str(n) for n in range(1, len(shards) + 1)]
    assert workflow["jobs"]["live"]["strategy"]["fail-fast"] == "false"
    assert workflow["jobs"]["verdict"]["needs"] == "live"


def test_the_commands_work_as_they_stand(workflow: dict[str, Any], tmp_path: Path) -> None:
    shutil.copytree(
        ROOT / "examples", tmp_path / "examples", ignore=shutil.ignore_patterns("__pycache__", ".*")
    )
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST", "SYNTH", "BANKING77"))}
    kept["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{kept['PATH']}"

    def run(text: str, **variables: str) -> str:
        environ = kept | workflow["env"] | {"CI": "true", "GITHUB_STEP_SUMMARY": "summary.md"} | variables
        done = subprocess.run(
            ["bash", "-eo", "pipefail", "-c", text],
            cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=100, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    assert "3 passed" in run(command(workflow, "replay", "Test"))
    assert {"junit.xml", "report.html", "report.json"} == {p.name for p in (tmp_path / "out").iterdir()}
    for shard in workflow["jobs"]["live"]["strategy"]["matrix"]["shard"]:
        run(command(workflow, "live", "Test"), SHARD=shard, EVAL_SAMPLES="1")
    assert "4 evals: 2 passed, 1 measured, 1 failed (expected);" in run(command(workflow, "verdict", "Judge"))
    summary = (tmp_path / "summary.md").read_text(encoding="utf-8")
    assert summary.count("### pytest-synth: 2 passed, 1 measured, 1 failed (expected)") == 2
