"""The fixtures. Their bodies are one call each; what they do is in `run` and `resources`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from syrupy.assertion import SnapshotAssertion

    from pytest_synth.client import EvalResult, SynthClient
    from pytest_synth.evals.optimization_results import OptimizationResult
    from pytest_synth.evals.resources import CurrentTunnel
    from pytest_synth.plugin.run import SynthRun
    from pytest_synth.prompts import Prompt


def _run(request: pytest.FixtureRequest) -> SynthRun:
    from pytest_synth.plugin.run import run_of

    return run_of(request.session)


@pytest.fixture(scope="session")
def synth_task_app(request: pytest.FixtureRequest) -> object:
    """The task app: an ASGI app, or the URL of one that runs already.

    Override it in `conftest.py`; this default is the app that `--synth-app` names.
    """
    return _run(request).resources.default_app()


@pytest.fixture(name="_synth_submission")
def synth_submission(request: pytest.FixtureRequest, synth_task_app: object) -> None:
    """Submit the test's eval, and with it all that may go ahead of their turn. Added by the plugin."""
    _run(request).submit(request.node, synth_task_app)


@pytest.fixture(scope="session")
def synth_tunnel(request: pytest.FixtureRequest, synth_task_app: object) -> CurrentTunnel:
    """The open tunnel to the task app of the running test: `.url`, `.backend`."""
    return _run(request).current_tunnel(synth_task_app)


@pytest.fixture(scope="session")
def synth_client(request: pytest.FixtureRequest) -> SynthClient:
    """A `SynthClient` for the configured backend, which starts if it does not run yet."""
    return _run(request).resources.client()


@pytest.fixture
def synth_eval(request: pytest.FixtureRequest, _synth_submission: None) -> Callable[..., EvalResult]:
    """Run an eval from the test's body: `synth_eval(seeds=..., prompt=..., policy=...) -> EvalResult`.

    Takes the arguments of the marker but for criteria; it waits for the result and never fails the
    test by itself.
    """
    return _run(request).call_for(request.node)


@pytest.fixture
def synth_result(request: pytest.FixtureRequest, _synth_submission: None) -> EvalResult:
    """The `EvalResult` of the test's `synth_eval` marker. Waits for it; never raises."""
    return _run(request).outcome(request.node.nodeid).result


@pytest.fixture
def synth_optimize(
    request: pytest.FixtureRequest, _synth_submission: None
) -> Callable[..., OptimizationResult]:
    """Search for a better prompt from the test's body, whatever the options say.

    Takes the arguments of the marker; it waits for the result.
    """
    return _run(request).optimize_for(request.node)


@pytest.fixture
def synth_prompt(request: pytest.FixtureRequest) -> Prompt:
    """The `Prompt` under test: the stored one if there is one, else the one that the marker names.

    In a test that is optimised, it is the one that the gate was held against.
    """
    return _run(request).prompt_of(request)


@pytest.fixture
def synth_snapshot(snapshot: SnapshotAssertion) -> SnapshotAssertion:
    """A syrupy assertion for prompts: `assert prompt == synth_snapshot` compares messages alone."""
    from pytest_synth.plugin.snapshot_extension import PromptSnapshotExtension

    return snapshot.use_extension(PromptSnapshotExtension)
