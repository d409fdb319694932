"""The command `pytest-synth`: serve and eval, as a user types them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from pytest_synth.cli import build_parser, main
from pytest_synth.cli.serve import restart_note

APP = """
from pytest_synth import task_app

ROWS = {"test": [{"label": "no" if i % 5 == 0 else "yes"} for i in range(20)]}
app = task_app(rows=ROWS, run=lambda row, llm: "yes", score=lambda row, answer: answer == row["label"])
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("SYNTH_API_KEY", "SYNTH_BACKEND_URL", "ENVIRONMENT_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "command_app.py").write_text(APP)
    return tmp_path


def write(folder: Path, text: str) -> str:
    file = folder / "eval.toml"
    file.write_text(f"[eval]\n{text}")
    return str(file)


def test_eval_passes_its_gate(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write(folder, 'app = "command_app:app"\nseeds = {start = 0, end = 20}\nmin_reward = 0.8')
    assert main(["eval", file]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split()[1:4] == ["0.80", "0.80", "20/20"]
    assert lines[2].startswith("1 eval: 1 passed; 20 rollouts;")


def test_eval_below_its_threshold_is_exit_code_1(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write(folder, 'app = "command_app:app"\nseeds = [0, 1]\nmin_reward = 0.9\nsplit = "test"')
    assert main(["eval", file]) == 1
    assert "gate failed: mean reward 0.50 over 2 seeds is below min_reward 0.90" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param('app = "a:b"', "seeds is missing", id="no seeds"),
        pytest.param("seeds = [1]", "needs either app = 'module:attribute' or task_app_url", id="no app"),
        pytest.param(
            'app = "my_app"\nseeds = [1]', "[eval] app is 'my_app'; use 'module:attribute'", id="app"
        ),
        pytest.param("app = 5\nseeds = [1]", "[eval] app is 5; use 'module:attribute'", id="app is a number"),
        pytest.param('app = "a:b"\nseeds = [1]\nmin_rewrd = 1', "unknown argument 'min_rewrd'", id="typo"),
        pytest.param('app = "a:b"\nseeds = {start = 1}', "a range is {start, end, step}", id="range"),
        pytest.param("seeds = [", "is not a TOML file", id="no TOML"),
    ],
)
def test_mistake_in_the_file_is_one_line(
    folder: Path, capsys: pytest.CaptureFixture[str], text: str, message: str
) -> None:
    assert main(["eval", write(folder, text)]) == 1
    error = capsys.readouterr().err
    assert error.startswith("pytest-synth: ")
    assert message in error
    assert error.count("\n") == 1


def test_missing_file_is_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", str(folder / "absent.toml")]) == 1
    assert "absent.toml': No such file or directory" in capsys.readouterr().err


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        build_parser().parse_args(["--help"])
    assert caught.value.code == 0
    shown = capsys.readouterr().out
    assert "serve" in shown
    assert "eval" in shown


@pytest.mark.parametrize("port", ["99999", "-1", "http"])
def test_serve_refuses_a_port_that_is_none(port: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["serve", f"--port={port}"])
    assert f"argument --port: {port!r} is no port; use 0 to 65535" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("database", "has_pynacl", "is_said"),
    [("jobs.sqlite", False, True), ("jobs.sqlite", True, False), (None, False, False)],
)
def test_serve_says_which_jobs_cannot_go_on_after_a_restart(
    monkeypatch: pytest.MonkeyPatch, database: str | None, has_pynacl: bool, is_said: bool
) -> None:
    monkeypatch.setattr("pytest_synth.cli.serve.find_spec", lambda _: object() if has_pynacl else None)
    said = restart_note(None if database is None else Path(database))
    assert (said is not None) == is_said
    if said is not None:
        assert "pip install 'pytest-synth[hosted]'" in said


@pytest.mark.skipif(os.name != "posix", reason="sends SIGTERM")
def test_serve_prints_url_and_key_and_stops_on_sigterm(folder: Path) -> None:
    def start() -> tuple[subprocess.Popen[str], str, str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "pytest_synth.cli", "serve", "--db", str(folder / "jobs.sqlite")],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        url = process.stdout.readline().removeprefix("backend: ").strip()
        key = process.stdout.readline().removeprefix("key: ").strip()
        return process, url, key

    keys = []
    for _ in range(2):
        process, url, key = start()
        try:
            with urllib.request.urlopen(f"{url}/api/health", timeout=5) as answer:
                assert answer.status == 200
            request = urllib.request.Request(f"{url}/api/eval/jobs/none", headers={"X-API-Key": key})
            with pytest.raises(urllib.error.HTTPError, match="404"):
                urllib.request.urlopen(request, timeout=5)
            process.send_signal(signal.SIGTERM)
            assert process.wait(10) == 0
        finally:
            process.kill()
            process.wait()
            assert process.stdout is not None
            process.stdout.close()
        keys.append(key)
    assert keys[0] == keys[1]
    assert len(keys[0]) > 20
