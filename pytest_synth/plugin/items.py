"""Which collected tests are evals, what each asks for, and whether it may be submitted ahead of its turn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_synth.errors import ConfigError
from pytest_synth.evals.arguments import SpecError
from pytest_synth.evals.baselines import baseline_file, read_baseline
from pytest_synth.evals.optimize_spec import OptimizeSpec
from pytest_synth.evals.recording import Recording, recording_of
from pytest_synth.evals.settings import Settings
from pytest_synth.evals.spec import EvalSpec, parse_eval
from pytest_synth.plugin.detect import MARKER, concerns_us, name_of
from pytest_synth.plugin.optimize import read_marker
from pytest_synth.plugin.snapshots import PromptChoice, choose_prompt
from pytest_synth.prompts import Prompt

if TYPE_CHECKING:
    from pytest_synth.evals.parts import Whole

APP_FIXTURE = "synth_task_app"
SUBMISSION_FIXTURE = "_synth_submission"


@dataclass(frozen=True)
class PlannedEval:
    """One selected test that has to do with evals.

    Attributes:
        spec: What its marker asks for; None: it only uses our fixtures.
        app_source: The fixture definition that gives its task app; tests of one source share an app.
        eager: Whether its job may be submitted together with the first test of the same source.
        position: Place in the order of the run.
        baseline: File of its stored baseline, whether it is there or not.
        choice: Which prompt it runs; `spec.prompt` is that one.
        optimize: What its `synth_optimize` marker asks for, whether it is to be done or not.
        whole: What the marker asks for, where `spec` is only one shard's share of its seeds.
        is_elsewhere: Another shard runs it, and this one skips it.
    """

    item: pytest.Item
    spec: EvalSpec | None
    app_source: Any  # pytest's FixtureDef; compared by identity only
    eager: bool
    position: int
    baseline: Path
    choice: PromptChoice
    optimize: OptimizeSpec | None = None
    whole: Whole | None = None
    is_elsewhere: bool = False

    @property
    def is_gated(self) -> bool:
        """Whether a verdict can fail the test."""
        return self.whole is not None or (self.spec is not None and self.spec.has_criterion)

    @property
    def max_regression(self) -> float | None:
        """What the marker says of a baseline, also where the spec is only a share."""
        if self.whole is not None:
            return self.whole.rule.max_regression
        return None if self.spec is None else self.spec.max_regression


def plan_items(
    items: Sequence[pytest.Item], settings: Settings, *, is_worker: bool = False
) -> dict[str, PlannedEval]:
    """Read the markers of all selected tests and prepare the tests for their submission.

    Args:
        is_worker: Whether this is a worker of pytest-xdist. There a job goes ahead of its turn only
            where all workers would submit the very same one: to the controller's backend, for the
            controller's app.

    Returns:
        The tests that concern us by node id, in the order of the run.

    Raises:
        pytest.UsageError: One line for each test whose marker or set-up is wrong.
    """
    plans: dict[str, PlannedEval] = {}
    mistakes: list[str] = []
    for position, item in enumerate(items):
        if not concerns_us(item):
            continue
        try:
            plans[item.nodeid] = _plan(item, position, settings, is_worker)
        except SpecError as error:
            mistakes.append(f"{error.marker} on {item.nodeid}: {error}")
    if mistakes:
        raise pytest.UsageError(*mistakes)
    for plan in plans.values():
        # Added at the end: the test's own fixtures are set up first, and when one of them fails
        # nothing is submitted.
        names: list[str] = plan.item.fixturenames  # type: ignore[attr-defined]
        names += [name for name in (APP_FIXTURE, SUBMISSION_FIXTURE) if name not in names]
    return plans


def _plan(item: pytest.Item, position: int, settings: Settings, is_worker: bool) -> PlannedEval:
    marker = item.get_closest_marker(MARKER)
    if marker is not None and not _is_plain_test(item):
        raise SpecError(
            "only a plain test function or method can carry it; a unittest.TestCase method "
            "(or another kind of item) would never be gated"
        )
    spec = None
    if marker is not None:
        spec = parse_eval(marker.args, marker.kwargs, base=item.path.parent)
        _check_policy(spec, settings)
        if not spec.has_criterion and "synth_result" not in _fixture_names(item):
            raise SpecError(
                "no criterion; give min_reward, max_regression or metrics, "
                "or let the test look at synth_result"
            )
    elif "synth_result" in _fixture_names(item):
        raise SpecError("the fixture synth_result needs the marker, and the test has none")
    optimize = read_marker(item, spec)
    source = _app_source(item)
    if source is None or (_is_our_default(source) and settings.app is None):
        raise SpecError(
            "no task app; set synth_app = MODULE:ATTR in the ini file, pass --synth-app, "
            "or override the fixture synth_task_app in conftest.py"
        )
    if source.params and APP_FIXTURE not in _fixture_names(item):
        raise SpecError(
            f"its fixture {APP_FIXTURE} has params; ask for it, as in "
            f"def {item.name}({APP_FIXTURE}), so that pytest runs the test for each of them"
        )
    shared = _is_our_default(source) and settings.backend == "local"
    if is_worker and settings.optimize and optimize is not None:
        shared = False  # a search has no name that would keep workers from starting it twice
    eager = spec is not None and _may_be_eager(item, source) and (shared or not is_worker)
    baseline = baseline_file(item.path, name_of(item))
    if spec is not None and spec.max_regression is not None and not settings.update_baseline:
        _check_baseline(baseline)
    try:
        choice = choose_prompt(item, _code_prompt(spec, optimize))
    except ConfigError as error:
        raise SpecError(str(error)) from error
    if spec is not None:
        spec = replace(spec, prompt=choice.prompt)
    return PlannedEval(item, spec, source, eager, position, baseline, choice, optimize)


def _code_prompt(spec: EvalSpec | None, optimize: OptimizeSpec | None) -> Prompt | None:
    """The prompt that the markers name; None: the task app's own."""
    if optimize is not None:
        return optimize.prompt
    return None if spec is None else spec.prompt


def recording_for(item: pytest.Item, settings: Settings, suffix: str = "") -> Recording:
    """The cassette of a test, or of one of the evals that its body calls."""
    return recording_of(settings.record_mode, settings.rootpath, item.path, name_of(item) + suffix)


def _fixture_names(item: pytest.Item) -> Sequence[str]:
    return getattr(item, "fixturenames", ())


def _is_plain_test(item: pytest.Item) -> bool:
    if not isinstance(item, pytest.Function):
        return False
    bases = item.cls.__mro__ if item.cls is not None else ()
    return not any(base.__module__.startswith("unittest.") for base in bases)


def _check_policy(spec: EvalSpec, settings: Settings) -> None:
    policy = spec.policy or {}
    provider = policy.get("provider")
    if provider is not None and provider != settings.provider and "model" not in policy:
        raise SpecError(f"policy names provider {provider!r} without a model; add policy['model']")


def _check_baseline(file: Path) -> None:
    """A baseline that cannot be read is told before anything is spent."""
    try:
        read_baseline(file)
    except ConfigError as error:
        raise SpecError(str(error)) from error


def _app_source(item: pytest.Item) -> Any:
    # pytest has no public way to ask which override of a fixture a test sees before its set-up.
    definitions = item.session._fixturemanager.getfixturedefs(APP_FIXTURE, item)
    return definitions[-1] if definitions else None


def _is_our_default(source: Any) -> bool:
    return str(source.func.__module__) == "pytest_synth.plugin.fixtures"


def _may_be_eager(item: pytest.Item, source: Any) -> bool:
    """Only tests that will run spend: what may still be skipped waits for its own set-up."""
    if source.scope != "session" or source.params:
        return False
    if item.get_closest_marker("skip") or item.get_closest_marker("skipif"):
        return False
    return not any(mark.kwargs.get("run", True) is False for mark in item.iter_markers("xfail"))
