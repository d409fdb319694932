"""The pytest plugin's entry point: hooks that every pytest run pays for.

Nothing heavy is imported here, and nothing happens, until a test with a `synth_eval` marker or one of our
fixtures has been collected; then `SynthRun` (or, in the controller of pytest-xdist, `ControllerRun`) is
registered and does the rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pytest

from pytest_synth.plugin.detect import COLLECTED, concerns_us, keep_prompts
from pytest_synth.plugin.fixtures import (
    synth_client,
    synth_eval,
    synth_optimize,
    synth_prompt,
    synth_result,
    synth_snapshot,
    synth_submission,
    synth_task_app,
    synth_tunnel,
)
from pytest_synth.plugin.options import add_options
from pytest_synth.plugin.outputs import add_output_options, read_outputs

if TYPE_CHECKING:
    from _pytest.terminal import TerminalReporter

__all__ = [
    "synth_client",
    "synth_eval",
    "synth_optimize",
    "synth_prompt",
    "synth_result",
    "synth_snapshot",
    "synth_submission",
    "synth_task_app",
    "synth_tunnel",
]

MARKERS = (
    "synth_eval(seeds, *, min_reward=None, ...): submit an eval job over the seeds (rows of a split) and "
    "fail the test when its mean reward is below min_reward.",
    "synth_optimize(seeds, *, validation_seeds, prompt, budget=80, ...): beside synth_eval; under "
    "--synth-optimize search for a better prompt first, and hold the gate against the best one.",
)


def pytest_addoption(parser: pytest.Parser) -> None:
    add_options(parser)
    add_output_options(parser)


def pytest_configure(config: pytest.Config) -> None:
    for line in MARKERS:
        config.addinivalue_line("markers", line)
    keep_prompts(config)
    read_outputs(config)  # a wrong one is told before anything runs


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    config.stash[COLLECTED] = tuple(items)  # before others deselect some


@pytest.hookimpl(tryfirst=True)
def pytest_collection_finish(session: pytest.Session) -> None:
    # A part for merge is wanted even of a job that has drawn no eval.
    if any(concerns_us(item) for item in session.items) or session.config.getoption("synth_shard_out"):
        from pytest_synth.plugin.run import run_of

        run_of(session)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_setupnodes(config: pytest.Config, specs: Sequence[Any]) -> None:
    from pytest_synth.plugin.controller import ControllerRun

    config.pluginmanager.register(ControllerRun(config), "synth-controller")


def pytest_terminal_summary(terminalreporter: TerminalReporter, config: pytest.Config) -> None:
    for name in ("synth-run", "synth-controller"):
        run = config.pluginmanager.get_plugin(name)
        if run is not None:
            run.summarise(terminalreporter)
