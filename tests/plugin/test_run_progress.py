"""The line that tells how far the evals are: what it says, where it is shown, and that it is gone again."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from contextlib import nullcontext
from io import StringIO
from types import SimpleNamespace
from typing import Any

import pytest

from pytest_synth.evals.progress import Progress, Turns, sum_up
from pytest_synth.plugin.progress import ERASE, LiveLine, RunProgress, progress_parts

SLOW_APP = """
import asyncio
from pytest_synth import task_app

async def run(row, llm):
    await asyncio.sleep(0.1)
    return row

app = task_app(rows={"test": list(range(40))}, run=run, score=lambda row, answer: row % 2)
"""

TESTS = """
import pytest

def test_before(): ...

@pytest.mark.synth_eval(seeds=range(0, 20), min_reward=0.5)
def test_first():
    print("printed by the test")

@pytest.mark.synth_eval(seeds=range(20, 40), min_reward=0.6)
def test_second(): ...

def test_after(): ...
"""


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class FakeDisplay:
    """Notes what is shown."""

    def __init__(self, every_s: float) -> None:
        self.every_s = every_s
        self.shown: list[str] = []
        self.cleared = 0

    def show(self, parts: list[str]) -> None:
        self.shown.append(", ".join(parts))

    def clear(self) -> None:
        self.cleared += 1


@pytest.mark.parametrize(
    ("progress", "elapsed_s", "text"),
    [
        pytest.param(Progress(0, 50), 0.0, "0/50 rollouts", id="start"),
        pytest.param(
            Progress(420, 1500, 0.814, 0.012), 2.0,
            "420/1,500 rollouts, 210/s, mean 0.81, $0.0120, 5 s left", id="all",
        ),
        pytest.param(Progress(3, 600, 0.0, None), 60.0, "3/600 rollouts, 0.1/s, mean 0.00, 199 min left",
                     id="cost unknown"),
        pytest.param(Progress(1, 9000, None, 0.0), 3.0, "1/9,000 rollouts, 0.3/s, 450 min left", id="free"),
        pytest.param(Progress(50, 50, 1.0, 0.0), 5.0, "50/50 rollouts, 10/s, mean 1.00", id="end"),
    ],
)  # fmt: skip
def test_what_the_line_says(progress: Progress, elapsed_s: float, text: str) -> None:
    expected = text.replace("199 min", "3 h 19 min").replace("450 min", "7 h 30 min")
    assert ", ".join(progress_parts(progress, elapsed_s)) == expected


def test_it_is_shown_every_so_often_and_the_backend_is_asked_only_then() -> None:
    clock, display, asked = Clock(), FakeDisplay(30.0), 0

    def look() -> Progress:
        nonlocal asked
        asked += 1
        return Progress(asked, 10)

    progress = RunProgress(display, clock)
    for start in (0, 70):
        with progress.waiting() as poll:
            for second in range(start, start + 65):
                clock.now = 100.0 + second
                poll(look)
    assert display.shown == [
        "1/10 rollouts, 0.0/s, 4 min left",
        "2/10 rollouts, 0.0/s, 4 min left",
        "3/10 rollouts, 0.0/s, 4 min left",
        "4/10 rollouts, 0.0/s, 3 min left",
    ]
    assert asked == 4
    assert display.cleared == 2


def test_without_a_display_nothing_is_asked() -> None:
    clock = Clock()
    with RunProgress(None, clock).waiting() as poll:
        clock.now += 1000
        poll(lambda: pytest.fail("asked"))


def test_the_live_line_fits_behind_what_is_there_and_leaves_the_cursor_where_it_was() -> None:
    file = StringIO()
    writer = SimpleNamespace(fullwidth=40, width_of_current_line=10, _file=file)
    reporter: Any = SimpleNamespace(_tw=writer)
    line = LiveLine(reporter, nullcontext)
    line.show(["12/50 rollouts", "3.0/s", "mean 0.81", "9 s left"])
    line.show(["13/50 rollouts", "3.0/s"])
    line.clear()
    line.clear()
    first, second = "12/50 rollouts, 3.0/s", "13/50 rollouts, 3.0/s"
    assert file.getvalue() == "".join(
        [f" {first}{ERASE}", "\b" * (len(first) + 1), f" {second}{ERASE}", "\b" * (len(second) + 1), ERASE]
    )


def test_without_room_the_live_line_writes_nothing() -> None:
    file = StringIO()
    reporter: Any = SimpleNamespace(_tw=SimpleNamespace(fullwidth=80, width_of_current_line=70, _file=file))
    line = LiveLine(reporter, nullcontext)
    line.show(["12/50 rollouts"])
    line.clear()
    assert file.getvalue() == ""


def test_the_parts_of_a_run_are_added_up_and_unknown_costs_stay_unknown() -> None:
    parts = [Progress(1, 10, 0.5, 0.25), Progress(2, 20, None, 0.5)]
    assert sum_up(parts, mean_reward=0.5) == Progress(3, 30, 0.5, 0.75)
    assert sum_up([*parts, Progress(0, 5, None, None)], mean_reward=None) == Progress(3, 35, None, None)


def test_turns_leave_none_out() -> None:
    turns, items = Turns(), list("abcdefg")
    taken = [turns.take(items, 3) for _ in range(7)]
    assert all(len(set(some)) == 3 for some in taken)
    assert {item: sum(some.count(item) for some in taken) for item in items} == dict.fromkeys(items, 3)
    assert turns.take(["x"], 3) == ["x"]
    assert turns.take([], 3) == []


def screen(output: str) -> list[str]:
    """What a terminal shows at the end: backspaces, carriage returns and erasing are carried out."""
    lines, column = [""], 0
    for piece in re.findall(r"\x1b\[[0-9;?]*[a-zA-Z]|.", output, re.DOTALL):
        line = lines[-1]
        if piece == "\n":
            lines.append("")
            column = 0
        elif piece == "\r":
            column = 0
        elif piece == "\b":
            assert 0 < column < 80, f"the cursor cannot go back in {line!r}"
            column -= 1
        elif piece == ERASE:
            lines[-1] = line[:column]
        elif not piece.startswith("\x1b"):
            lines[-1] = line[:column].ljust(column) + piece + line[column + 1 :]
            column += 1
    return [line.rstrip() for line in lines]


def in_terminal(project: pytest.Pytester, *arguments: str) -> str:
    """Run pytest in a terminal of 80 columns; what it has written."""
    pty = pytest.importorskip("pty")
    ours, theirs = pty.openpty()
    environ = {**os.environ, "TERM": "xterm", "COLUMNS": "80", "LINES": "24"}
    for name in ("CI", "PY_COLORS"):  # the second is set by pytester
        environ.pop(name, None)
    options = ("-p", "no:randomly", "-p", "no:cacheprovider", "--synth-concurrency", "4")
    run = subprocess.Popen(
        [sys.executable, "-m", "pytest", *options, *arguments],
        cwd=project.path, env=environ, stdin=theirs, stdout=theirs, stderr=theirs, close_fds=True,
    )  # fmt: skip
    os.close(theirs)
    pieces: list[bytes] = []

    def read() -> None:
        try:
            while piece := os.read(ours, 65536):
                pieces.append(piece)
        except OSError:
            return  # the other end is closed

    reader = threading.Thread(target=read)
    reader.start()
    assert run.wait(60) == 1
    reader.join(10)
    os.close(ours)
    return b"".join(pieces).decode().replace("\r\n", "\n")


@pytest.mark.parametrize("arguments", [(), ("-v",), ("-s",)], ids=["dots", "verbose", "no capture"])
def test_a_terminal_ends_up_as_if_there_had_been_no_line(
    project: pytest.Pytester, arguments: tuple[str, ...]
) -> None:
    project.makepyfile(my_app=SLOW_APP, test_file=TESTS)
    output = in_terminal(project, *arguments)
    assert re.search(r" \d+/40 rollouts, [\d.]+/s, mean 0\.\d\d, \d+ s left", output)
    shown = screen(output)
    assert not [line for line in shown if re.search(r"\d+/40 rollouts", line)]
    dots = [line for line in shown if line.startswith("test_file.py ")]
    if not arguments:
        assert dots == ["test_file.py ..F." + " " * 56 + "[100%]"]
    if arguments == ("-v",):
        assert "test_file.py::test_second FAILED" + " " * 41 + "[ 75%]" in shown


def test_under_q_there_is_no_line(project: pytest.Pytester) -> None:
    project.makepyfile(my_app=SLOW_APP, test_file=TESTS)
    assert "/40 rollouts" not in in_terminal(project, "-q")


PLAIN_CONFTEST = """
import pytest_synth.plugin.progress as progress

progress.PlainLines.every_s = 0.3
"""


def test_a_log_gets_a_plain_line_now_and_then_and_not_in_what_the_test_prints(
    project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.makepyfile(my_app=SLOW_APP, test_file=TESTS)
    project.makeconftest(PLAIN_CONFTEST)
    arguments = ("-p", "no:randomly", "--synth-concurrency", "4")
    monkeypatch.setenv("PY_COLORS", "1")  # colours alone are no terminal
    result = project.runpytest_subprocess(*arguments, "-rP")
    lines = [line for line in result.outlines if re.match(r"synth: \d+/40 rollouts", line)]
    assert len(lines) >= 2
    assert result.stdout.str().count("printed by the test") == 1
    section = result.stdout.str().split("printed by the test")[0].rsplit("\n", 2)[-2]
    assert "Captured stdout call" in section
    assert "\b" not in result.stdout.str()
    assert "rollouts, " not in project.runpytest_subprocess(*arguments, "-q").stdout.str()


def test_without_terminal_reporter_there_is_no_line_and_the_verdicts_stand(project: pytest.Pytester) -> None:
    project.makepyfile(my_app=SLOW_APP, test_file=TESTS)
    project.makeconftest(PLAIN_CONFTEST)
    result = project.runpytest_subprocess(
        "-p", "no:randomly", "-p", "no:terminal", "--synth-concurrency", "4"
    )
    assert result.ret == 1
    assert result.outlines + result.errlines == []
