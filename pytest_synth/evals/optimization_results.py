"""What a search for a better prompt has found, read out of its job's status and events."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import fsum
from typing import TYPE_CHECKING, Any

from pytest_synth.errors import OptimizationFailed
from pytest_synth.evals.paired import PairedRewards
from pytest_synth.prompt_files import PromptRecord
from pytest_synth.prompts import Prompt, StoredPrompt

if TYPE_CHECKING:
    from pytest_synth.evals.optimize_spec import OptimizeSpec
    from pytest_synth.report import Candidate, OptimizationEntry

PREFIX = "learning.policy.gepa."


@dataclass(frozen=True)
class Search:
    """A search that was submitted.

    Attributes:
        plan: What the backend means to spend its budget on; "" if it does not say.
    """

    job_id: str
    spec: OptimizeSpec
    model: str
    plan: str


@dataclass(frozen=True)
class OptimizationResult:
    """What a search has found.

    Attributes:
        baseline: The prompt that it started from.
        best: The best one; the baseline if none was better.
        best_id, parent_id: Ids of the best candidate and of the one that it was made of.
        model: Provider and model that ran the prompts.
        budget, rollouts: Rollouts that were allowed, and those that were used.
        finish_reason: Why the search ended: `budget`, `generations`, `perfect`, ...
        plan, summary: What was planned and what was done, in a line each; no plan: "".
        candidates: All prompts that were tried, in the order in which they were decided.
        held_out: Baseline and best on the validation seeds; None where a reward is missing.
        not_applied: Settings without effect.
        cost_usd: Of rollouts and reflections; None when a price is not known.
        raw: The job's status document.
    """

    job_id: str
    baseline: Prompt
    best: Prompt
    best_id: str
    parent_id: str | None
    model: str
    budget: int
    rollouts: int
    finish_reason: str
    plan: str
    summary: str
    candidates: tuple[Candidate, ...] = field(repr=False)
    held_out: PairedRewards | None
    not_applied: tuple[str, ...] = ()
    cost_usd: float | None = None
    raw: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @property
    def improved(self) -> bool:
        """Whether another prompt than the baseline was the best."""
        return self.best.fingerprint != self.baseline.fingerprint

    @property
    def snapshot(self) -> StoredPrompt:
        """The best prompt with its record, as `assert result.snapshot == synth_snapshot` stores it."""
        return self.stored(self.held_out)

    def stored(self, paired: PairedRewards | None) -> StoredPrompt:
        """The best prompt, with a result on seeds that the search has not seen."""
        return StoredPrompt(
            self.best,
            PromptRecord(
                reward=None if paired is None else round(paired.after, 4),
                interval=None
                if paired is None
                else (round(paired.interval[0], 4), round(paired.interval[1], 4)),
                baseline_reward=None if paired is None else round(paired.before, 4),
                n=None if paired is None else len(paired.seeds),
                model=self.model,
                seeds=None if paired is None else paired.named_seeds,
                candidate=self.best_id,
                parent=self.parent_id,
                baseline_fingerprint=self.baseline.fingerprint,
            ),
        )

    def to_entry(
        self,
        name: str,
        *,
        paired: PairedRewards | None = None,
        decision: str | None = None,
        further_cost_usd: float | None = 0.0,
    ) -> OptimizationEntry:
        """Make the entry of the reports.

        Args:
            name: Node id of the test, with a suffix for a call of its body.
            paired: Baseline and best on the test's own seeds; without it, those of `held_out`.
            decision: What has become of the best prompt, for people.
            further_cost_usd: What the evals of other prompts have cost for `paired`.
        """
        from pytest_synth.report import OptimizationEntry

        shown = paired or self.held_out
        costs = (self.cost_usd, further_cost_usd)
        return OptimizationEntry(
            node_id=name,
            finish_reason=self.finish_reason,
            budget=self.budget,
            rollouts=self.rollouts,
            cost_usd=None if None in costs else fsum(cost for cost in costs if cost is not None),
            candidates=self.candidates,
            best=self.best_id,
            held_out_seeds=0 if shown is None else len(shown.seeds),
            held_out_baseline=None if shown is None else shown.before,
            held_out_best=None if shown is None else shown.after,
            held_out_interval=None if shown is None else shown.interval,
            not_applied=self.not_applied,
            plan=self.plan or None,
            summary=self.summary,
            decision=decision,
        )


def read_result(
    search: Search, document: Mapping[str, Any], events: Iterable[Mapping[str, Any]]
) -> OptimizationResult:
    """Read the result of a search that has succeeded.

    Raises:
        OptimizationFailed: If the document holds no best prompt that can be read.
    """
    from pytest_synth.report import Candidate

    known = list(events)
    completed = next(
        (_table(e.get("data")) for e in known if e.get("type") == f"{PREFIX}job.completed"), document
    )
    told = [e for e in known if e.get("type") == f"{PREFIX}candidate.new_best"]
    last = _table(told[-1].get("data")) if told else {}
    best = _prompt(document.get("best_prompt") or completed.get("best_prompt") or last.get("best_prompt"))
    if best is None:
        raise OptimizationFailed(f"the search {search.job_id} has succeeded without a best prompt")
    candidates = _candidates(search.spec.prompt, known)
    winner = _winner(candidates, completed.get("best_candidate_id"), best)
    if winner is None:
        winner = Candidate(
            id="best", parents=(candidates[0].id,), accepted=True, rollouts=0, prompt=_messages(best)
        )
        candidates = (*candidates, winner)
    budget = _table(document.get("plan")).get("budget") or search.spec.budget
    rollouts = document.get("total_rollouts") or completed.get("total_rollouts") or 0
    return OptimizationResult(
        job_id=search.job_id,
        baseline=search.spec.prompt,
        best=best,
        best_id=winner.id,
        parent_id=winner.parents[0] if winner.parents else None,
        model=search.model,
        budget=int(budget or rollouts),
        rollouts=int(rollouts),
        finish_reason=str(document.get("finish_reason") or "completed"),
        plan=search.plan,
        summary=str(document.get("summary") or f"{rollouts} rollouts"),
        candidates=candidates,
        held_out=_held_out(search.spec, winner.id, completed.get("validation")),
        not_applied=tuple(map(str, document.get("not_applied") or ())),
        cost_usd=_table(document.get("usage")).get("cost_usd"),
        raw=document,
    )


def _candidates(baseline: Prompt, events: Sequence[Mapping[str, Any]]) -> tuple[Candidate, ...]:
    """All prompts that were tried; the first is the baseline."""
    from pytest_synth.report import Candidate

    first = Candidate(id="baseline", accepted=True, rollouts=0, prompt=_messages(baseline))
    found: dict[str, Candidate] = {}
    rollouts = 0
    for event in events:
        data = _table(event.get("data"))
        if event.get("type") == f"{PREFIX}job.progress":
            rollouts = data.get("rollouts_completed", rollouts)
        name = str(data.get("candidate_id") or data.get("version_id"))
        if event.get("type") != f"{PREFIX}candidate.evaluated" or name in found:
            continue
        is_baseline = bool(data.get("is_baseline"))
        if not found and not is_baseline:
            found[first.id] = first  # the service does not tell of it
        accepted, parent = bool(data.get("accepted", True)), data.get("parent_id")
        prompt = baseline if is_baseline else _prompt(data.get("pattern"))
        found[name] = Candidate(
            id=name,
            parents=() if is_baseline else (str(parent) if parent in found else next(iter(found)),),
            generation=data.get("generation") or 0,
            accepted=accepted,
            reward=data.get("outcome_reward") if accepted else None,
            rollouts=data.get("rollouts_used", rollouts),
            prompt=None if prompt is None else _messages(prompt),
        )
    return tuple(found.values()) or (first,)


def _winner(candidates: Iterable[Candidate], named: object, best: Prompt) -> Candidate | None:
    """The candidate that the service names, else the one with the best prompt's text."""
    return next((c for c in candidates if c.id == named or (named is None and _same(c, best))), None)


def _held_out(spec: OptimizeSpec, best_id: str, validation: object) -> PairedRewards | None:
    """Baseline and best on the validation seeds; None where one of them lacks a reward."""
    entries = [_table(entry) for entry in validation] if isinstance(validation, list) else []
    before = next((e.get("rewards") for e in entries if e.get("is_baseline")), None)
    after = next(
        (e.get("rewards") for e in entries if e.get("candidate_id") == best_id and not e.get("is_baseline")),
        before,
    )
    if not isinstance(before, Mapping) or not isinstance(after, Mapping) or set(before) != set(after):
        return None
    seeds = [seed for seed in spec.validation_seeds if str(seed) in before]
    if len(seeds) != len(before) or not seeds:
        return None
    split = spec.validation_split
    return PairedRewards.of(
        {(split, seed): float(before[str(seed)]) for seed in seeds},
        {(split, seed): float(after[str(seed)]) for seed in seeds},
    )


def _prompt(value: object) -> Prompt | None:
    """A prompt in one of the shapes that services send."""
    if isinstance(value, Mapping):
        value = value.get("messages")
    try:
        return Prompt.parse(value)
    except ValueError:
        return None


def _messages(prompt: Prompt) -> Any:
    return tuple(prompt.to_wire())


def _same(candidate: Candidate, prompt: Prompt) -> bool:
    return candidate.prompt is not None and [(m.role, m.pattern) for m in candidate.prompt] == [
        (m.role, m.pattern) for m in prompt.messages
    ]


def _table(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
