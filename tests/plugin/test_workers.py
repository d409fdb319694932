"""Runs with pytest-xdist: one backend and task app, the same calls and verdicts, and killed workers."""

from __future__ import annotations

import re
from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest

from pytest_synth.plugin.controller import ControllerRun
from pytest_synth.plugin.run import _owner
from pytest_synth.report import RunReport
from pytest_synth.report.json import from_json

# Notes each start with its process, and each rollout.
APP = """
import os, pathlib
from pytest_synth import task_app

LOG = pathlib.Path(__file__).with_name("calls.log")

def note(line):
    with LOG.open("a") as log:
        log.write(line + "\\n")

note("started")

def run(row, llm):
    note(f"rollout {row}")
    return row

app = task_app(rows={"test": list(range(60))}, run=run, score=lambda row, answer: row % 4 > 0)
"""

KILLER = """
import os, pathlib, signal

def test_kills_its_worker():
    once = pathlib.Path(__file__).with_name("killed")  # loadscope runs the test again in a new worker
    if os.environ.get("PYTEST_XDIST_WORKER") and not once.exists():
        once.touch()
        os.kill(os.getpid(), signal.SIGKILL)
"""

# Six evals of ten seeds: rewards of 0.7 and 0.8 in turn.
TESTS = "import pytest\n" + "".join(
    f"""
@pytest.mark.synth_eval(seeds=range({10 * n}, {10 * n + 10}), split="test", min_reward=0.75)
def test_{n}(): ...
"""
    for n in range(6)
)

VERDICTS = {
    f"test_evals.py::test_{n}": ("failed" if n % 2 == 0 else "passed", 0.7 if n % 2 == 0 else 0.8)
    for n in range(6)
}


@pytest.fixture
def noted(project: pytest.Pytester) -> pytest.Pytester:
    project.makepyfile(my_app=APP, test_evals=TESTS)
    return project


def run(project: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    return project.runpytest("-p", "no:randomly", "--synth-report", "report.json", *arguments)


def calls(project: pytest.Pytester) -> Counter[str]:
    return Counter((project.path / "calls.log").read_text().splitlines())


def report(project: pytest.Pytester) -> RunReport:
    return from_json((project.path / "report.json").read_text(encoding="utf-8"))


def verdicts(project: pytest.Pytester) -> dict[str, tuple[str, float | None]]:
    return {entry.node_id: (entry.outcome, entry.mean_reward) for entry in report(project).evals}


ALL_CALLS = Counter({"started": 1} | {f"rollout {n}": 1 for n in range(60)})


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param((), id="no workers"),
        pytest.param(("-n", "2"), id="two"),
        pytest.param(("-n", "4"), id="four"),
        pytest.param(("-n", "2", "--dist", "loadscope"), id="loadscope"),
        pytest.param(("-n", "2", "--dist", "worksteal"), id="worksteal"),
    ],
)
def test_any_number_of_workers_makes_the_same_calls_and_verdicts(
    noted: pytest.Pytester, arguments: tuple[str, ...]
) -> None:
    run(noted, *arguments).assert_outcomes(passed=3, failed=3)
    assert calls(noted) == ALL_CALLS
    assert verdicts(noted) == VERDICTS
    assert list(verdicts(noted)) == list(VERDICTS)


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param((), id="load"),
        pytest.param(("--dist", "loadscope"), id="loadscope"),
        pytest.param(("--dist", "worksteal"), id="worksteal"),
    ],
)
def test_killed_worker_takes_nothing_from_the_others(
    noted: pytest.Pytester, arguments: tuple[str, ...]
) -> None:
    noted.makepyfile(test_killer=KILLER)
    result = run(noted, "-n", "2", *arguments)
    outcomes = result.parseoutcomes()
    assert (outcomes["failed"], outcomes["passed"]) in [(4, 3), (4, 4)]  # the second: it was run again
    result.stdout.fnmatch_lines(["*crashed while running 'test_killer.py::test_kills_its_worker'*"])
    assert calls(noted) == ALL_CALLS
    assert verdicts(noted) == VERDICTS
    assert result.stdout.str().count("= synth evals =") == 1


def dying_in_test_3(noted: pytest.Pytester) -> None:
    dying = KILLER.partition("\n\n")[2].replace("test_kills_its_worker", "test_3")
    killing = f"import os, pathlib, signal\n{TESTS.replace('def test_3(): ...', dying.strip())}"
    noted.makepyfile(test_evals=killing)


def test_worker_that_is_killed_in_an_eval_leaves_an_entry_that_says_so(noted: pytest.Pytester) -> None:
    dying_in_test_3(noted)
    run(noted, "-n", "2").assert_outcomes(passed=2, failed=4)
    assert calls(noted) == ALL_CALLS
    assert verdicts(noted) == VERDICTS | {"test_evals.py::test_3": ("incomplete", None)}
    assert list(verdicts(noted)) == list(VERDICTS)
    (entry,) = [e for e in report(noted).evals if e.outcome == "incomplete"]
    assert entry.gate_text == "gate incomplete: the test failed before its eval was judged"
    assert entry.seeds_asked == 10


def test_scope_that_is_run_again_after_a_crash_spends_nothing_twice_and_is_told_once(
    noted: pytest.Pytester,
) -> None:
    dying_in_test_3(noted)
    run(noted, "-n", "1", "--dist", "loadscope")
    assert calls(noted) == ALL_CALLS
    assert [entry.node_id for entry in report(noted).evals] == list(VERDICTS)
    assert verdicts(noted) == VERDICTS


def test_without_a_new_worker_the_run_ends_and_is_reported(noted: pytest.Pytester) -> None:
    noted.makepyfile(test_killer=KILLER)
    result = run(noted, "-n", "1", "--max-worker-restart", "0", "test_evals.py", "test_killer.py")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert verdicts(noted) == VERDICTS
    assert calls(noted)["started"] == 1


def test_all_workers_killed_before_any_verdict_leave_a_part_that_merge_refuses_to_pass(
    noted: pytest.Pytester,
) -> None:
    noted.makepyfile(test_killer=KILLER)
    arguments = ("-n", "1", "--max-worker-restart", "0", "--synth-shard-out", "part.json")
    run(noted, *arguments, "test_killer.py", "test_evals.py")
    text = (noted.path / "part.json").read_text()
    assert text.count('"state": "not_run"') == 6


def test_app_of_a_users_fixture_is_served_once_in_each_worker(noted: pytest.Pytester) -> None:
    noted.makeconftest(
        """
        import pytest

        @pytest.fixture(scope="session")
        def synth_task_app():
            from my_app import app
            return app
        """
    )
    run(noted, "-n", "2").assert_outcomes(passed=3, failed=3)
    found = calls(noted)
    assert found.pop("started") <= 2
    assert found == Counter({f"rollout {n}": 1 for n in range(60)})
    assert verdicts(noted) == VERDICTS


def test_groups_of_tests_keep_their_names_and_their_files(noted: pytest.Pytester) -> None:
    grouped = """
import pytest

class TestThem:
    @pytest.mark.xdist_group("first")
    @pytest.mark.xdist_group("again")
    @pytest.mark.synth_eval(seeds=range(10), split="test", max_regression=0.1)
    def test_compared(self, synth_eval):
        synth_eval(seeds=[1])

@pytest.mark.xdist_group(name="other")
@pytest.mark.synth_eval(seeds=range(10), split="test", min_reward=0.7)
def test_call_me(): ...
"""
    noted.makepyfile(test_evals=grouped)
    run(noted, "--synth-update-baseline").assert_outcomes(passed=2)
    alone = verdicts(noted)
    assert list(alone)[1] == "test_evals.py::TestThem::test_compared[call 1]"
    arguments = ("-n", "2", "--dist", "loadgroup", "--synth-shard-out", "part.json")
    run(noted, *arguments).assert_outcomes(passed=2)
    assert verdicts(noted) == alone
    part = (noted.path / "part.json").read_text()
    assert part.count('"state": "run"') == 2


def test_stop_at_the_first_failure(noted: pytest.Pytester) -> None:
    result = run(noted, "-n", "2", "-x")
    assert result.ret in (pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.INTERRUPTED)
    found = verdicts(noted)
    ended = {name: verdict for name, verdict in found.items() if verdict[0] != "incomplete"}
    assert ended.items() <= VERDICTS.items()
    assert "failed" in {outcome for outcome, _ in ended.values()}
    assert calls(noted)["started"] == 1


def test_eval_of_another_worker_does_not_hold_up_a_run_that_stops(pytester: pytest.Pytester) -> None:
    pytester.makeini("[pytest]\nsynth_app = slow_app:app\n")
    pytester.makepyfile(
        slow_app="""
        import asyncio, pathlib
        from pytest_synth import task_app

        async def run(row, llm):
            pathlib.Path("started").touch()
            await asyncio.sleep(300)

        app = task_app(rows=[1], run=run, score=lambda row, answer: 1.0)
        """,
        test_both="""
        import pathlib, time
        import pytest

        @pytest.mark.synth_eval(seeds=[0], min_reward=0.5, timeout=300)
        def test_slow(): ...

        def test_bad():
            deadline = time.monotonic() + 30
            while not pathlib.Path("started").exists():
                assert time.monotonic() < deadline
                time.sleep(0.02)
            assert False, "the first failure"
        """,
    )
    result = pytester.runpytest_subprocess("-n", "2", "-x", "-p", "no:randomly", timeout=60)
    result.stdout.fnmatch_lines(["*the first failure*"])
    result.stdout.fnmatch_lines(["gate incomplete: 1 of 1 seed has no reward (0: cancelled)"])
    assert result.ret == pytest.ExitCode.INTERRUPTED


def test_run_without_evals_starts_nothing_and_loads_nothing_heavy(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_plain(): ...")
    pytester.makeconftest(
        """
        import sys

        def pytest_unconfigure(config):
            if not hasattr(config, "workerinput"):
                heavy = {"fastapi", "uvicorn", "httpx", "aiohttp", "pydantic", "gepa"}
                print("loaded:", sorted(heavy & set(sys.modules)))
        """
    )
    others = ("randomly", "asyncio", "respx", "anyio", "syrupy", "hypothesispytest")
    off = [part for name in others for part in ("-p", f"no:{name}")]
    result = pytester.runpytest_subprocess("-n", "1", "--synth-report", "out.md", *off)
    result.assert_outcomes(passed=1)
    assert "loaded: []" in result.outlines
    assert not (pytester.path / "out.md").exists()


def test_worker_on_another_machine_is_refused_with_the_remedy(request: pytest.FixtureRequest) -> None:
    node: Any = SimpleNamespace(gateway=SimpleNamespace(spec=SimpleNamespace(popen=None)), workerinput={})
    ControllerRun(request.config).pytest_configure_node(node)
    assert node.workerinput == {}
    config: Any = SimpleNamespace(workerinput=node.workerinput)
    text = (
        "evals need the controller's backend, which a worker on another machine (--tx) cannot reach; "
        "use -n, or leave pytest-xdist out"
    )
    with pytest.raises(pytest.UsageError, match=f"^{re.escape(text)}$"):
        _owner(config)
