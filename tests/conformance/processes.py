"""The processes of these tests: `pytest-synth serve`, and drivers under a Python that has the SDK."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest
from fakes.model_provider import FakeProvider, completion
from intents_world import PROPOSALS, answer

HERE = Path(__file__).parent
PROVIDER_KEY = "sk-of-the-provider"
DRIVER_S = 100.0  # below the suite's own timeout, so that a driver that hangs is stopped and its output shown


def sdk_python() -> str:
    """Return the Python that has the SDK; without one the module that asks is skipped."""
    python = os.environ.get("SYNTH_SDK_PYTHON")
    if python is None:
        reason = "SYNTH_SDK_PYTHON names no Python with synth-ai 0.7.0; tests/conformance/run makes one"
        pytest.skip(reason, allow_module_level=True)
    return python


def clean_environment(home: Path, **more: str) -> dict[str, str]:
    """The environment of somebody else's machine: no home, no keys, no proxies."""
    return {"PATH": os.environ["PATH"], "HOME": str(home), **more}


def intents_model() -> FakeProvider:
    """A provider whose model lives in the intents world, and proposes prompts when it is not asked one."""
    proposals = cycle(enumerate(PROPOSALS * 100))

    def reply(body: Mapping[str, Any]) -> dict[str, Any]:
        first, last = body["messages"][0], body["messages"][-1]
        if first["role"] != "system":
            number, text = next(proposals)
            return completion(f"```\n{text} (proposal {number})\n```")
        if not body.get("tools"):
            return completion(f"heard {last['content']}")
        arguments = json.dumps({"intent": answer(first["content"], last["content"])})
        call = {
            "id": "call_1",
            "type": "function",
            "function": {"name": body["tool_choice"]["function"]["name"], "arguments": arguments},
        }
        message = {"role": "assistant", "content": None, "tool_calls": [call]}
        return completion(choices=[{"index": 0, "message": message, "finish_reason": "tool_calls"}])

    return FakeProvider(reply=reply)


@dataclass(frozen=True)
class Served:
    """A backend in a process of its own."""

    url: str
    key: str


@contextmanager
def served_backend(folder: Path, provider_url: str) -> Iterator[Served]:
    """Run `pytest-synth serve` until the end of the context."""
    command = [sys.executable, "-m", "pytest_synth.cli", "serve", "--db", str(folder / "backend.db")]
    environ = clean_environment(folder, OPENAI_BASE_URL=provider_url, OPENAI_API_KEY=PROVIDER_KEY)
    log_path = folder / "backend.log"
    with log_path.open("wb") as log:
        process = subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, stderr=log, text=True)
    assert process.stdout is not None
    with process:
        try:
            lines = [process.stdout.readline().strip() for _ in range(2)]
            assert [line.partition(": ")[0] for line in lines] == ["backend", "key"], log_path.read_text()
            yield Served(*(line.partition(": ")[2] for line in lines))
        finally:
            process.terminate()
            process.wait(20)
    assert process.returncode == 0, log_path.read_text()


class Story:
    """What a driver's scenarios have brought."""

    def __init__(self, report: Mapping[str, Any]) -> None:
        self._report = report

    def __getitem__(self, scenario: str) -> Any:
        found = self._report[scenario]
        if "failed" in found:
            pytest.fail(f"scenario {scenario!r} failed in the SDK's process:\n{found['failed']}")
        return found["brought"]


def run_driver(python: str, script: str, folder: Path, **environ: str) -> Story:
    """Run a script of this folder with the SDK's Python, and read its report."""
    path = folder / "report.json"
    try:
        done = subprocess.run(
            [python, str(HERE / script), str(path)],
            env=clean_environment(folder, **environ),
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=DRIVER_S,
        )
    except subprocess.TimeoutExpired as error:
        pytest.fail(
            f"{script} did not end within {DRIVER_S:g} s; its last words: {str(error.stderr)[-3000:]}"
        )
    if done.returncode or not path.exists():
        pytest.fail(f"{script} ended with {done.returncode}: {done.stderr[-3000:]}")
    return Story(json.loads(path.read_text(encoding="utf-8")))
