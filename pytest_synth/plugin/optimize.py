"""Tests marked `synth_optimize` under `--synth-optimize`: a search, then the gate on the best prompt."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pytest

from pytest_synth.errors import ConfigError, OptimizationFailed
from pytest_synth.evals.acceptance import Contest, Decision, Name, decide
from pytest_synth.evals.descriptions import Fingerprints
from pytest_synth.evals.entries import make_entry
from pytest_synth.evals.files import write_whole
from pytest_synth.evals.jobs import EvalJobs, Request
from pytest_synth.evals.optimizations import OptimizationJobs
from pytest_synth.evals.optimize_spec import OptimizeError, OptimizeSpec, parse_optimize
from pytest_synth.evals.recording import Recording
from pytest_synth.evals.settings import Settings
from pytest_synth.gates import by_seed, observe
from pytest_synth.plugin.detect import OPTIMIZE_MARKER
from pytest_synth.plugin.snapshots import not_submitted, updates_snapshots
from pytest_synth.prompts import Prompt, StoredPrompt
from pytest_synth.report.optimizations import diff_lines

if TYPE_CHECKING:
    from pytest_synth.client import EvalResult
    from pytest_synth.contracts.evals import PromptMessage, PromptSource
    from pytest_synth.evals.optimization_results import OptimizationResult
    from pytest_synth.evals.spec import EvalSpec
    from pytest_synth.plugin.items import PlannedEval
    from pytest_synth.plugin.progress import RunProgress
    from pytest_synth.report import EvalEntry, OptimizationEntry

_SOURCES: Mapping[Name, PromptSource] = {"baseline": "marker", "stored": "snapshot", "best": "optimized"}


def read_marker(item: pytest.Item, spec: EvalSpec | None) -> OptimizeSpec | None:
    """Read the marker of a test; None if it has none.

    Args:
        spec: Of the test's `synth_eval` marker.

    Raises:
        OptimizeError: If an argument is wrong, or the marker stands alone.
    """
    marker = item.get_closest_marker(OPTIMIZE_MARKER)
    if marker is None:
        return None
    if spec is None:
        raise OptimizeError("needs a synth_eval marker on the same test, on whose seeds the result is judged")
    found = parse_optimize(
        marker.args, marker.kwargs, base=item.path.parent, split=spec.split, prompt=spec.prompt
    )
    found.refuse_shared_seeds(spec)
    found.refuse_open_wildcards()
    return found


@dataclass(frozen=True)
class Optimized:
    """A test whose prompt has been optimised.

    Attributes:
        prompt: The one that the gate was held against.
        must_hold: Whether the test fails if its entry has not passed, criteria or not.
    """

    prompt: Prompt | None
    result: EvalResult
    entry: EvalEntry
    optimization: OptimizationEntry | None
    must_hold: bool


class OptimizedTests:
    """The tests of a run that are optimised.

    Args:
        announce: Shows a line at once.
        record: Says where an eval of a test is recorded, by a suffix of the test's name.
    """

    def __init__(
        self,
        evals: EvalJobs,
        searches: OptimizationJobs,
        settings: Settings,
        *,
        announce: Callable[[str], None],
        record: Callable[[pytest.Item, str], Recording],
        progress: RunProgress,
    ) -> None:
        self._evals = evals
        self._searches = searches
        self._settings = settings
        self._announce = announce
        self._record = record
        self._progress = progress
        self._apps: dict[str, object] = {}

    def concerns(self, plan: PlannedEval | None) -> bool:
        """Say whether a test is optimised in this run."""
        return self._settings.optimize and plan is not None and plan.optimize is not None

    def header_lines(self, plans: Iterable[PlannedEval]) -> list[str]:
        """Say how much is going to be spent at most, test by test."""
        lines = []
        for plan in plans:
            if self.concerns(plan) and plan.optimize is not None and plan.spec is not None:
                budget = plan.optimize.budget
                within = "as its generations need" if budget is None else f"within {budget} rollouts"
                prompts = 2 if plan.choice.stored is None else 3
                each = len(plan.spec.seeds) * plan.spec.samples
                lines.append(
                    f"synth: {plan.item.nodeid} is to be optimised {within}, "
                    f"and at most {prompts} x {each} on its eval seeds"
                )
        return lines

    def submit(self, plan: PlannedEval, app: object) -> None:
        """Submit the search of a test, and the evals that need not wait for its end."""
        node_id = plan.item.nodeid
        if node_id in self._apps:
            return
        assert plan.optimize is not None
        assert plan.spec is not None
        self._apps[node_id] = app
        rivals = self._rivals(plan)
        told = self._searches.submit(node_id, plan.optimize, app, plan.spec)
        if told is None:
            return
        each = len(plan.spec.seeds) * plan.spec.samples
        self._announce(f"optimising {node_id}: {told}; then {len(rivals) + 1} x {each} on its eval seeds")
        for request in rivals.values():
            self._evals.submit(request, app)

    def outcome(self, plan: PlannedEval, fingerprints: Callable[[], Fingerprints]) -> Optimized:
        """Wait for the search, evaluate what it has found, decide and judge."""
        assert plan.optimize is not None
        node_id = plan.item.nodeid
        try:
            with self._progress.telling() as report:
                found = self._searches.wait(node_id, report)
        except OptimizationFailed as error:
            return self._failed(plan, str(error))
        requests = self._rivals(plan)
        if found.improved:
            requests["best"] = self._request(plan, found.best, "best")
        results = self._results(requests, self._apps[node_id])
        contest = self._contest(plan, found, requests, results)
        decision = decide(contest)
        request = replace(requests[decision.winner], key=node_id)
        assert plan.spec is not None
        request = replace(request, spec=replace(plan.spec, prompt=request.spec.prompt))
        _, entry = make_entry(
            node_id,
            request,
            results[decision.winner],
            self._settings,
            baseline=plan.baseline,
            fingerprints=fingerprints(),
            update_baseline=self._settings.update_baseline,
        )
        if decision.stores:
            decision = self._store(plan, found, decision, entry.model)
        return Optimized(
            prompt=request.spec.prompt,
            result=results[decision.winner],
            entry=_as_decided(entry, decision, plan, request.spec.prompt),
            optimization=found.to_entry(
                node_id,
                paired=decision.paired,
                decision=decision.text,
                further_cost_usd=_cost(results, but=decision.winner),
            ),
            must_hold=decision.fails,
        )

    def call(
        self, key: str, spec: OptimizeSpec, app: object, eval_spec: EvalSpec | None
    ) -> OptimizationResult:
        """Run a search that a test's body asks for.

        Raises:
            OptimizationFailed: If it was refused, has failed or was cancelled.
        """
        told = self._searches.submit(key, spec, app, eval_spec)
        if told is not None:
            self._announce(f"optimising {key}: {told}")
        with self._progress.telling() as report:
            return self._searches.wait(key, report)

    def _rivals(self, plan: PlannedEval) -> dict[Name, Request]:
        """The prompts that are known before the search: the code's, and the stored one if it is another."""
        assert plan.optimize is not None
        rivals: dict[Name, Request] = {"baseline": self._request(plan, plan.optimize.prompt, "baseline")}
        if plan.choice.stored is not None:
            rivals["stored"] = self._request(plan, plan.choice.stored.prompt, "stored")
        return rivals

    def _request(self, plan: PlannedEval, prompt: Prompt, name: Name) -> Request:
        """An eval of a prompt on the test's seeds; no gate ends it early, as all rewards are compared."""
        assert plan.spec is not None
        spec = replace(
            plan.spec, prompt=prompt, min_reward=None, max_regression=None, metrics=(), gate="mean"
        )
        suffix = "" if name == "best" else f"[{name}]"
        recording = self._record(plan.item, suffix)
        return Request(f"{plan.item.nodeid}[{name}]", spec, plan.position, _SOURCES[name], recording)

    def _results(self, requests: Mapping[Name, Request], app: object) -> dict[Name, EvalResult]:
        """Run the evals; equal prompts are run once."""
        first: dict[str, Name] = {}
        for name, request in requests.items():
            assert request.spec.prompt is not None
            same = first.setdefault(request.spec.prompt.fingerprint, name)
            if same == name:
                self._evals.submit(request, app)
        results: dict[Name, EvalResult] = {}
        with self._progress.waiting() as report:
            for name, request in requests.items():
                assert request.spec.prompt is not None
                same = first[request.spec.prompt.fingerprint]
                results[name] = self._evals.wait(requests[same], report)
        return results

    def _contest(
        self,
        plan: PlannedEval,
        found: OptimizationResult,
        requests: Mapping[Name, Request],
        results: Mapping[Name, EvalResult],
    ) -> Contest:
        assert plan.spec is not None
        rewards = {name: _rewards(requests[name].spec, results[name]) for name in requests}
        return Contest(
            baseline=rewards["baseline"],
            best=rewards.get("best"),
            stored=rewards.get("stored"),
            has_best=found.improved,
            has_stored=plan.choice.stored is not None,
            found_again=plan.choice.stored is not None and plan.choice.stored.prompt == found.best,
            stale=plan.choice.stale,
            may_write=updates_snapshots(plan.item.config, plan.choice.file),
            confidence=plan.spec.confidence,
        )

    def _store(
        self, plan: PlannedEval, found: OptimizationResult, decision: Decision, model: str | None
    ) -> Decision:
        """Write the winner into the snapshot."""
        stored = found.stored(decision.paired)
        if decision.winner == "stored":
            assert plan.choice.stored is not None
            old = plan.choice.stored
            record = replace(stored.record, candidate=old.record.candidate, parent=old.record.parent)
            stored = StoredPrompt(old.prompt, record)
        stored = replace(stored, record=replace(stored.record, model=model))
        file = plan.choice.file
        try:
            write_whole(file, stored.to_text())
        except (OSError, ConfigError) as error:
            text = f"the best prompt cannot be stored in {str(file)!r}: {error}"
            return replace(decision, text=text, fails=True)
        return replace(decision, text=f"{decision.text}, in {_shown(plan)}")

    def _failed(self, plan: PlannedEval, reason: str) -> Optimized:
        """The search has failed: nothing is judged, and nothing stored."""
        assert plan.spec is not None
        request = Request(plan.item.nodeid, plan.spec, plan.position, plan.choice.source)
        result = not_submitted("not run, as the search has failed")
        _, entry = make_entry(plan.item.nodeid, request, result, self._settings)
        entry = entry.model_copy(
            update={"outcome": "incomplete", "gate_text": f"gate incomplete: {reason}", "gate_details": ()}
        )
        return Optimized(plan.spec.prompt, result, entry, None, must_hold=True)


def _rewards(spec: EvalSpec, result: EvalResult) -> dict[Any, float] | None:
    """Rewards by split and seed; None if any is missing."""
    observations = observe(result.rows, seeds=spec.seeds, split=spec.split, samples=spec.samples)
    outcomes = by_seed(observations)
    rewards = {outcome.key: outcome.reward for outcome in outcomes if outcome.reward is not None}
    return rewards if len(rewards) == len(outcomes) else None


def _as_decided(entry: EvalEntry, decision: Decision, plan: PlannedEval, prompt: Prompt | None) -> EvalEntry:
    """The entry with its prompts, and failed if the decision says so."""
    stored = None if plan.choice.stored is None else plan.choice.stored.prompt
    changes: dict[str, Any] = {
        "prompt": _messages(prompt),
        "stored_prompt": _messages(stored) if stored != prompt else None,
    }
    if decision.fails and not entry.is_red:
        details = [] if decision.gain is None else [decision.gain.interval_text]
        if decision.gain is not None and changes["stored_prompt"] is not None:
            details += diff_lines(changes["stored_prompt"], changes["prompt"])
        outcome = "failed" if decision.paired is not None and plan.choice.stale is None else "incomplete"
        lead = "" if outcome == "failed" else "gate incomplete: "
        changes |= {
            "outcome": outcome,
            "gate_text": lead + decision.text,
            "gate_details": tuple(details),
        }
    elif entry.is_red:
        changes["gate_details"] = (*entry.gate_details, decision.text)
    return entry.model_copy(update=changes)


def _messages(prompt: Prompt | None) -> tuple[PromptMessage, ...] | None:
    from pytest_synth.contracts.evals import PromptMessage

    if prompt is None:
        return None
    return tuple(PromptMessage.model_validate(message) for message in prompt.to_wire())


def _cost(results: Mapping[Name, EvalResult], *, but: Name) -> float | None:
    """What the evals have cost, apart from the one with an entry of its own; None if that is not known."""
    others = {id(result): result for name, result in results.items() if result is not results[but]}
    costs = [row.cost_usd for result in others.values() for row in result.rows]
    return None if None in costs else sum(cost for cost in costs if cost is not None)


def _shown(plan: PlannedEval) -> str:
    root = plan.item.config.rootpath
    file = plan.choice.file
    return str(file.relative_to(root) if file.is_relative_to(root) else file)
