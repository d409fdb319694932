"""One pytest session with evals in it: submission, gate, rows. Registered when the first one is collected."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from pytest_synth.errors import SynthError
from pytest_synth.evals.arguments import SpecError
from pytest_synth.evals.descriptions import Fingerprints, fetch_taskset, fingerprints_of
from pytest_synth.evals.entries import NO_FINGERPRINTS, make_entry
from pytest_synth.evals.jobs import EvalJobs, Request
from pytest_synth.evals.optimizations import OptimizationJobs
from pytest_synth.evals.optimize_spec import parse_optimize
from pytest_synth.evals.resources import AppAddress, CurrentTunnel, Owner, Resources
from pytest_synth.evals.settings import Settings
from pytest_synth.evals.spec import parse_eval
from pytest_synth.plugin.dry_run import plan_lines
from pytest_synth.plugin.gate import enforce
from pytest_synth.plugin.homeward import attach_entries
from pytest_synth.plugin.items import SUBMISSION_FIXTURE, PlannedEval, plan_items, recording_for
from pytest_synth.plugin.junit import note_properties
from pytest_synth.plugin.left_over import LEFT_OVER, write_left_over
from pytest_synth.plugin.optimize import OptimizedTests
from pytest_synth.plugin.options import read_settings
from pytest_synth.plugin.outputs import read_outputs
from pytest_synth.plugin.progress import progress_of
from pytest_synth.plugin.record import RunRecord
from pytest_synth.plugin.shards import as_share, planned, share_out
from pytest_synth.plugin.snapshots import (
    UNUSED_PROMPTS,
    as_stale,
    choose_prompt,
    not_submitted,
    stale_in_rows,
    unused_prompts,
    with_code_prompt,
    write_unused,
)
from pytest_synth.plugin.summary import announcer, header_line

if TYPE_CHECKING:
    from _pytest.terminal import TerminalReporter

    from pytest_synth.client import EvalResult
    from pytest_synth.contracts.evals import PromptSource
    from pytest_synth.evals.optimization_results import OptimizationResult
    from pytest_synth.gates import Verdict
    from pytest_synth.plugin.homeward import Entry
    from pytest_synth.plugin.rendezvous import ControllerLink
    from pytest_synth.prompts import Prompt
    from pytest_synth.report import EvalEntry

PLUGIN_NAME = "synth-run"


@dataclass(frozen=True)
class EvalOutcome:
    """A finished eval: what came back, what the gate says, and the row for the reports.

    Attributes:
        must_hold: Whether the test fails if its entry has not passed, criteria or not.
        prompt: The one that the gate was held against; None: the task app's own.
    """

    result: EvalResult
    verdict: Verdict | None
    entry: EvalEntry
    must_hold: bool = False
    prompt: Prompt | None = None


class SynthRun:
    """Holds the evals of one session and what they need.

    Args:
        settings: The checked options.
        plans: The tests that concern us by node id, in the order of the run.
        config: Of the session; for terminal and verbosity only.
        owner: Who owns backend and app, in a worker of pytest-xdist.
    """

    def __init__(
        self,
        settings: Settings,
        plans: dict[str, PlannedEval],
        config: pytest.Config,
        owner: Owner | None = None,
    ) -> None:
        self.settings = settings
        self.plans = plans
        self.resources = Resources(settings, owner, announcer(config))
        self._config = config
        run_id = os.environ.get("PYTEST_XDIST_TESTRUNUID") or uuid.uuid4().hex
        self._jobs = EvalJobs(self.resources, settings, run_id)
        self._outcomes: dict[str, EvalOutcome] = {}
        self._calls: dict[str, int] = {}
        self._unsent: dict[str, list[Entry]] = {}
        self._record = RunRecord(config)
        self._record.expect(planned(plans.values()))
        self._shard = read_outputs(config).shard
        self._app: object | None = None
        self._left_over: Sequence[str] = ()
        self._progress = progress_of(config)
        self._searches = OptimizationJobs(self.resources, settings)
        self._optimized = OptimizedTests(
            self._jobs,
            self._searches,
            settings,
            announce=announcer(config),
            record=lambda item, suffix: recording_for(item, settings, suffix),
            progress=self._progress,
        )

    # What the fixtures call

    def submit(self, item: pytest.Item, app: object) -> None:
        """Submit the test's eval, and those that share its app and need not wait for their turn."""
        self._app = app
        own = self.plans.get(item.nodeid)
        if own is None or own.spec is None:
            return
        self._submit(own, app)
        if not own.eager:
            return
        for plan in self.plans.values():
            if plan.eager and plan.app_source is own.app_source:
                self._submit(plan, app)

    def outcome(self, node_id: str) -> EvalOutcome:
        """Wait for the eval of a marked test and judge it; kept for a rerun."""
        if node_id not in self._outcomes and self._optimized.concerns(self.plans[node_id]):
            self._outcomes[node_id] = self._optimize(self.plans[node_id])
        if node_id not in self._outcomes:
            request, choice = self._request(self.plans[node_id]), self.plans[node_id].choice
            if choice.stale is None:
                with self._progress.waiting() as report:
                    result = self._jobs.wait(request, report)
            else:
                result = not_submitted(choice.stale)
            verdict, entry = make_entry(
                node_id,
                request,
                result,
                self.settings,
                baseline=self.plans[node_id].baseline,
                fingerprints=self._fingerprints(self.plans[node_id]),
                update_baseline=self.settings.update_baseline,
            )
            entry = with_code_prompt(self._jobs.with_model_calls(entry, result), choice)
            entry = as_share(entry, self.plans[node_id], self._shard)
            stale = choice.stale or stale_in_rows(choice, entry.rows)
            if stale is not None:
                entry = as_stale(entry, stale)
            self._outcomes[node_id] = EvalOutcome(
                result, verdict, entry, must_hold=stale is not None, prompt=choice.prompt
            )
            self._keep(self.plans[node_id].item, entry)
        return self._outcomes[node_id]

    def _optimize(self, plan: PlannedEval) -> EvalOutcome:
        found = self._optimized.outcome(plan, lambda: self._fingerprints(plan))
        entry = self._jobs.with_model_calls(found.entry, found.result)
        self._keep(plan.item, entry)
        if found.optimization is not None:
            self._unsent[plan.item.nodeid].append(found.optimization)
        return EvalOutcome(found.result, None, entry, must_hold=found.must_hold, prompt=found.prompt)

    def prompt_of(self, request: pytest.FixtureRequest) -> Prompt:
        """The prompt under test, for the fixture `synth_prompt`.

        Raises:
            pytest.UsageError: If it is the task app's own, which only the app knows.
        """
        item = request.node
        plan = self.plans.get(item.nodeid)
        if plan is not None and self._optimized.concerns(plan):
            request.getfixturevalue(SUBMISSION_FIXTURE)
            prompt = self.outcome(item.nodeid).prompt
        else:
            prompt = (choose_prompt(item, None) if plan is None else plan.choice).prompt
        if prompt is None:
            raise pytest.UsageError(
                f"synth_prompt in {item.nodeid}: the test has no stored prompt, and its marker names none; "
                "the task app's own is known to the app alone"
            )
        return prompt

    def call_for(self, item: pytest.Item) -> Callable[..., EvalResult]:
        """The function behind the fixture `synth_eval`, for one test."""
        app = self._app

        def synth_eval(*args: Any, **kwargs: Any) -> EvalResult:
            try:
                spec = parse_eval(args, kwargs, base=item.path.parent)
            except SpecError as error:
                raise pytest.UsageError(f"synth_eval in {item.nodeid}: {error}") from None
            if spec.has_criterion:
                raise pytest.UsageError(
                    f"synth_eval in {item.nodeid}: min_reward is for the marker; assert on the result"
                )
            number = self._calls[item.nodeid] = self._calls.get(item.nodeid, 0) + 1
            position = self.plans[item.nodeid].position if item.nodeid in self.plans else 0
            key = f"{item.nodeid}[call {number}]"
            source: PromptSource = "call" if spec.prompt is not None else "app"
            recording = recording_for(item, self.settings, f"[call {number}]")
            request = Request(key, spec, position, source, recording)
            self._jobs.submit(request, app)
            with self._progress.waiting() as report:
                result = self._jobs.wait(request, report)
            _, entry = make_entry(key, request, result, self.settings)
            self._keep(item, self._jobs.with_model_calls(entry, result))
            return result

        return synth_eval

    def optimize_for(self, item: pytest.Item) -> Callable[..., OptimizationResult]:
        """The function behind the fixture `synth_optimize`, for one test."""
        app, plan = self._app, self.plans[item.nodeid]

        def synth_optimize(*args: Any, **kwargs: Any) -> OptimizationResult:
            split = None if plan.spec is None else plan.spec.split
            try:
                spec = parse_optimize(
                    args, kwargs, base=item.path.parent, split=split, prompt=plan.choice.code
                )
            except SpecError as error:
                raise pytest.UsageError(f"synth_optimize in {item.nodeid}: {error}") from None
            number = self._calls[item.nodeid] = self._calls.get(item.nodeid, 0) + 1
            key = f"{item.nodeid}[call {number}]"
            found = self._optimized.call(key, spec, app, plan.spec)
            self._unsent.setdefault(item.nodeid, []).append(found.to_entry(key))
            return found

        return synth_optimize

    def _keep(self, item: pytest.Item, entry: EvalEntry) -> None:
        """Keep an entry for the test's report, and its figures for other plugins' files."""
        self._unsent.setdefault(item.nodeid, []).append(entry)
        note_properties(item, entry)

    def _submit(self, plan: PlannedEval, app: object) -> None:
        if self._optimized.concerns(plan):
            self._optimized.submit(plan, app)
        elif plan.choice.stale is None:
            self._jobs.submit(self._request(plan), app)

    def _request(self, plan: PlannedEval) -> Request:
        assert plan.spec is not None
        recording = recording_for(plan.item, self.settings)
        return Request(plan.item.nodeid, plan.spec, plan.position, plan.choice.source, recording)

    def current_tunnel(self, app: object) -> CurrentTunnel:
        """The session's tunnel object; until a test has named its app, the given one counts."""
        if self._app is None:
            self._app = app
        return CurrentTunnel(self._address)

    def _address(self) -> AppAddress:
        return self.resources.address_of(self._app)

    def _fingerprints(self, plan: PlannedEval) -> Fingerprints:
        """Of the app of the running test; asked for only where a baseline needs them."""
        assert plan.spec is not None
        if plan.max_regression is None:
            return NO_FINGERPRINTS
        try:
            address = self.resources.address_of(self._app)
        except SynthError:
            return NO_FINGERPRINTS  # the job has failed for the same reason, and says so
        return fingerprints_of(fetch_taskset(address.here, address.key), plan.spec.split)

    # Hooks

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_pyfunc_call(self, pyfuncitem: pytest.Function) -> Generator[None, object, object]:
        plan = self.plans.get(pyfuncitem.nodeid)
        if plan is not None and plan.spec is not None:
            outcome = self.outcome(pyfuncitem.nodeid)
            if plan.is_gated or outcome.must_hold:
                enforce(outcome.entry)
        return (yield)

    @pytest.hookimpl(wrapper=True, tryfirst=True)  # the outermost: it sees what xfail has made of a failure
    def pytest_runtest_makereport(
        self, item: pytest.Item
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        report = yield
        if report.when == "call" or (report.when == "setup" and not report.passed):
            entries = self._unsent.pop(item.nodeid, [])
            if entries:
                attach_entries(report, self.plans[item.nodeid].position, entries)
        return report

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._record.take(report)

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        # After the last rerun: an eval that is still open belongs to a test that timed out or broke before.
        self._jobs.abandon(nodeid)
        self._jobs.abandon(f"{nodeid}[call {self._calls.get(nodeid, 0)}]")

    def pytest_runtestloop(self) -> bool | None:
        return True if self.settings.dry_run else None  # nothing is run, evals or not

    def pytest_report_collectionfinish(self) -> str | list[str] | None:
        if self.settings.dry_run:
            describe = self.resources.describe_cassette if self.resources.is_local else None
            searches = self._optimized.header_lines(self.plans.values())
            lines = plan_lines(self.plans.values(), self.settings, describe)
            return [*lines, *(f"{line}: not in the total, cost unknown" for line in searches)]
        evals = sum(plan.spec is not None for plan in self.plans.values())
        if not evals or self._config.get_verbosity() < 0:
            return None
        return [header_line(self.settings, evals), *self._optimized.header_lines(self.plans.values())]

    def summarise(self, reporter: TerminalReporter) -> None:
        self._record.summarise(reporter)
        write_unused(reporter, unused_prompts(self._config))
        write_left_over(reporter, self._left_over)

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        self._left_over = self._jobs.cancel_all()
        output = getattr(self._config, "workeroutput", None)
        if output is None:
            self._record.finish(session)
        else:
            output[LEFT_OVER] = list(self._left_over)
            output[UNUSED_PROMPTS] = unused_prompts(self._config)

    def pytest_unconfigure(self) -> None:
        self.resources.close()


def run_of(session: pytest.Session) -> SynthRun:
    """The run of a session; made at the first call.

    Raises:
        pytest.UsageError: If an option or the marker of a selected test is wrong. A worker of
            pytest-xdist sends the text to the controller instead, which raises it once.
    """
    config = session.config
    run = config.pluginmanager.get_plugin(PLUGIN_NAME)
    if run is None:
        owner = None
        try:
            settings = read_settings(config)
            owner = _owner(config)
            plans = plan_items(session.items, settings, is_worker=owner is not None)
            plans = share_out(plans, read_outputs(config).shard)
            if owner is not None:
                owner.tell_plan(planned(plans.values()))
        except pytest.UsageError as error:
            if not hasattr(config, "workeroutput"):
                raise
            config.workeroutput["synth_usage_error"] = list(map(str, error.args))
            session.items.clear()
            settings, plans = Settings(rootpath=config.rootpath), {}
        run = SynthRun(settings, plans, config, owner)
        config.pluginmanager.register(run, PLUGIN_NAME)
    assert isinstance(run, SynthRun)
    return run


def _owner(config: pytest.Config) -> ControllerLink | None:
    """The controller, in a worker of pytest-xdist."""
    if not hasattr(config, "workerinput"):
        return None
    from pytest_synth.plugin.rendezvous import WORKER_INPUT, ControllerLink

    address = config.workerinput.get(WORKER_INPUT)
    if address is None:
        raise pytest.UsageError(
            "evals need the controller's backend, which a worker on another machine (--tx) cannot reach; "
            "use -n, or leave pytest-xdist out"
        )
    return ControllerLink(address)
