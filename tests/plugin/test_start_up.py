"""Merely installed, the plugin imports nothing heavy, makes no file and prints nothing."""

from __future__ import annotations

import pytest

HEAVY = ("fastapi", "starlette", "uvicorn", "httpx", "aiohttp", "pydantic", "gepa")

PROBE = """
import sys

def pytest_unconfigure():
    print("loaded:", sorted(set({heavy}) & set(sys.modules)), "syrupy" in sys.modules)
    print("ours:", sorted(name for name in sys.modules if name.startswith("pytest_synth.")))
    import threading
    print("threads:", [t.name for t in threading.enumerate() if t.name.startswith("synth")])
"""


@pytest.fixture
def plain(pytester: pytest.Pytester) -> pytest.Pytester:
    """A project that has nothing to do with evals."""
    pytester.makeconftest(PROBE.format(heavy=HEAVY))
    pytester.makepyfile("def test_plain(): ...")
    return pytester


def run(project: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    others = ("randomly", "asyncio", "respx", "anyio", "cacheprovider", "hypothesispytest")
    off = [part for name in others for part in ("-p", f"no:{name}")]
    return project.runpytest_subprocess(*off, *arguments)


def test_nothing_heavy_is_imported_and_no_thread_runs(plain: pytest.Pytester) -> None:
    result = run(plain, "-p", "no:syrupy")
    result.assert_outcomes(passed=1)
    assert {"loaded: [] False", "threads: []"} <= set(result.outlines)
    ours = next(line for line in result.outlines if line.startswith("ours:"))
    assert ours == (
        "ours: ['pytest_synth.evals', 'pytest_synth.evals.choices', 'pytest_synth.plugin', "
        "'pytest_synth.plugin.detect', 'pytest_synth.plugin.fixtures', 'pytest_synth.plugin.options', "
        "'pytest_synth.plugin.outputs']"
    )


def test_output_and_files_are_those_of_a_run_without_the_plugin(plain: pytest.Pytester) -> None:
    def lines(*arguments: str) -> list[str]:
        result = run(plain, "-p", "no:syrupy", *arguments)
        shown = [line for line in result.outlines if not line.startswith(("ours:", "plugins:"))]
        return [line.rsplit(" in ", 1)[0] for line in shown]

    def files() -> list[str]:
        harness = ("__pycache__", "runpytest", "stdout", "stderr")  # what pytester makes
        return sorted(p.name for p in plain.path.iterdir() if not p.name.startswith(harness))

    before = files()
    assert lines() == lines("-p", "no:synth")
    assert files() == before


def test_plugin_can_be_switched_off(plain: pytest.Pytester) -> None:
    result = run(plain, "-p", "no:synth")
    result.assert_outcomes(passed=1)
    assert "ours: []" in result.outlines


def test_help_and_markers_describe_the_options_and_the_marker(plain: pytest.Pytester) -> None:
    shown = run(plain, "--help").stdout.str()
    for option in ("app", "backend", "tunnel", "provider", "model", "concurrency"):
        assert f"--synth-{option}" in shown
        assert f"synth_{option} (" in shown
    assert "@pytest.mark.synth_eval(seeds, *, min_reward=None, ...)" in run(plain, "--markers").stdout.str()
