"""What gepa is handed: its own protocols, each a thin answer out of the `Search`.

Runs in the worker's thread. Only `gepa.optimize`'s keyword arguments and public protocols are used, so
that this is all that a new gepa can break. Of gepa 0.1.4 these are left alone, for they do not do what
they say (all measured): `cache_evaluation` mixes up seeds of the two sets, `run_dir` replaces stdout and
resumes with another random state, `raise_on_exception=False` spins for ever, the stock batch sampler
repeats itself, `max_metric_calls` is overrun.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pytest_synth.backend.optimizer.candidates import Child, improves
from pytest_synth.backend.optimizer.components import Components
from pytest_synth.backend.optimizer.config import GepaConfig
from pytest_synth.backend.optimizer.drawing import stream
from pytest_synth.backend.optimizer.feedback import record_of
from pytest_synth.backend.optimizer.ports import RolloutOutcome
from pytest_synth.backend.optimizer.search import Search
from pytest_synth.backend.optimizer.worker import Worker

if TYPE_CHECKING:
    from gepa.core.adapter import EvaluationBatch
    from gepa.core.state import GEPAState
    from gepa.proposer.base import CandidateProposal
    from gepa.proposer.reflective_mutation.base import CandidateSelector
    from gepa.proposer.reflective_mutation.reflection_lm import ReflectionProposal
    from gepa.strategies.acceptance import AcceptanceCriterion
    from gepa.strategies.batch_sampler import BatchSampler
    from gepa.strategies.proposal_sampling import ProposalTask

Texts = dict[str, str]


def run_gepa(
    config: GepaConfig,
    components: Components,
    search: Search,
    worker: Worker,
    *,
    pareto: Sequence[int],
    feedback: Sequence[int],
) -> None:
    """Run `gepa.optimize` until the search is over; for the worker's thread."""
    from gepa.api import optimize
    from gepa.strategies.candidate_selector import ParetoCandidateSelector, TopKParetoCandidateSelector

    rng = stream(config, "parents")
    breeder = Breeder(search, worker)
    # Any: gepa's protocols leave type variables open, or list methods that are optional at run time.
    adapter: Any = Adapter(components, search, worker)
    module_selector: Any = breeder.components
    settling: Any = Settling(breeder, search, worker)
    optimize(
        seed_candidate=components.split(components.baseline),
        trainset=Seeds(feedback),
        valset=Seeds(pareto),
        adapter=adapter,
        candidate_selection_strategy=ParetoCandidateSelector(rng)
        if config.archive_size is None
        else TopKParetoCandidateSelector(config.archive_size, rng),
        batch_sampler=NoSampler(),
        module_selector=module_selector,
        sampling_strategy=breeder,
        reflection_strategy=breeder,
        selection_strategy=breeder,
        acceptance_criterion=PairedImprovement(),
        stop_callbacks=[breeder.is_over],
        callbacks=[settling],
        logger=Silence(),
        track_best_outputs=False,
    )


class Seeds:
    """A gepa data loader whose ids are the seeds, so that ids of two sets never collide."""

    def __init__(self, seeds: Sequence[int]) -> None:
        self._seeds = list(seeds)

    def all_ids(self) -> Sequence[int]:
        return list(self._seeds)

    def fetch(self, ids: Sequence[int]) -> list[int]:
        return list(ids)

    def __len__(self) -> int:
        return len(self._seeds)


class Adapter:
    """Answers gepa's evaluations; trajectories are the outcomes themselves.

    `num_metric_calls` is 0 throughout: gepa's own counter decides nothing here.
    """

    propose_new_texts = None

    def __init__(self, components: Components, search: Search, worker: Worker) -> None:
        self._components = components
        self._search = search
        self._worker = worker

    def evaluate(
        self, batch: list[int], candidate: Texts, capture_traces: bool = False
    ) -> EvaluationBatch[RolloutOutcome, None]:
        from gepa.core.adapter import EvaluationBatch

        prompt = self._components.join(candidate)
        outcomes = self._worker.wait(self._search.evaluate(prompt, batch))
        return EvaluationBatch(
            outputs=[None] * len(outcomes),
            scores=[outcome.score for outcome in outcomes],
            trajectories=outcomes,
            num_metric_calls=0,
        )

    def batch_evaluate(
        self, items: list[tuple[Texts, list[int]]], *, capture_traces: bool = True
    ) -> list[EvaluationBatch[RolloutOutcome, None]]:
        return [self.evaluate(batch, candidate, capture_traces) for candidate, batch in items]

    def make_reflective_dataset(
        self,
        candidate: Texts,
        eval_batch: EvaluationBatch[RolloutOutcome, None],
        components_to_update: list[str],
    ) -> Mapping[str, Sequence[Mapping[str, Any]]]:
        records = [record_of(outcome) for outcome in eval_batch.trajectories or () if not outcome.is_lost]
        return dict.fromkeys(components_to_update, records)


class Breeder:
    """gepa's sampling, reflection and selection strategy: hands over one child after the other."""

    def __init__(self, search: Search, worker: Worker) -> None:
        self._search = search
        self._worker = worker
        self._is_over = False
        self.child: Child | None = None
        self.failure: Exception | None = None

    def is_over(self, gepa_state: GEPAState[None, int]) -> bool:
        """gepa's stop callback."""
        return self._is_over

    def sample_tasks(
        self,
        state: GEPAState[None, int],
        candidate_selector: CandidateSelector,
        batch_sampler: BatchSampler[int, int],
        trainset: object,
    ) -> list[ProposalTask[int, int]]:
        from gepa.strategies.proposal_sampling import ProposalTask

        if self.failure is not None:
            raise self.failure
        self.child = self._worker.wait(
            self._search.next_child(lambda: candidate_selector.select_candidate_idx(state))
        )
        if self.child is None:
            self._is_over = True  # with an empty list alone gepa would ask again for ever
            return []
        seeds = list(self.child.batch.seeds)
        parent = self.child.parent.index
        return [ProposalTask(parent, state.program_candidates[parent], seeds, seeds)]

    def components(
        self,
        state: GEPAState[None, int],
        trajectories: list[RolloutOutcome],
        subsample_scores: list[float],
        candidate_idx: int,
        candidate: Texts,
    ) -> list[str]:
        """gepa's module selector."""
        assert self.child is not None
        return list(self.child.components)

    def reflect(
        self,
        candidate: Texts,
        reflective_dataset: Mapping[str, Sequence[Mapping[str, Any]]],
        components_to_update: list[str],
    ) -> tuple[ReflectionProposal, Breeder]:
        from gepa.proposer.reflective_mutation.reflection_lm import ReflectionProposal

        return ReflectionProposal(new_texts=dict(self._search.proposed_texts())), self

    def select(
        self,
        proposals: list[CandidateProposal[int]],
        state: GEPAState[None, int],
        acceptance_criterion: AcceptanceCriterion,
    ) -> list[CandidateProposal[int]]:
        """Founders enter as they are; all others must pass the criterion."""
        assert self.child is not None
        is_founder = self.child.is_founder
        return [p for p in proposals if is_founder or acceptance_criterion.should_accept(p, state)]


class PairedImprovement:
    """gepa's acceptance criterion, over the seeds that parent and child have both run."""

    def should_accept(self, proposal: CandidateProposal[int], state: GEPAState[None, int]) -> bool:
        before, after = proposal.eval_before, proposal.eval_after
        assert before is not None
        assert after is not None
        return improves(before.trajectories or (), after.trajectories or ())


class Settling:
    """gepa callbacks: tells the search what became of the child of each iteration.

    gepa swallows what a callback raises; an error here ends the run at the next `sample_tasks`.
    """

    def __init__(self, breeder: Breeder, search: Search, worker: Worker) -> None:
        self._breeder = breeder
        self._search = search
        self._worker = worker
        self._is_accepted = False
        self._front: tuple[int, ...] = (0,)

    def on_pareto_front_updated(self, event: Mapping[str, Any]) -> None:
        self._front = tuple(event["new_front"])

    def on_candidate_accepted(self, event: Mapping[str, Any]) -> None:
        self._is_accepted = True

    def on_iteration_end(self, event: Mapping[str, Any]) -> None:
        if self._breeder.child is None:
            return
        self._breeder.child = None
        accepted, self._is_accepted = self._is_accepted, False
        try:
            self._worker.wait(self._search.settle(is_accepted=accepted, front=self._front))
        except Exception as error:  # gepa would swallow it
            self._breeder.failure = error


class NoSampler:
    """gepa wants a batch sampler; minibatches are drawn by the search."""

    def next_minibatch_ids(self, loader: object, state: object) -> list[int]:
        raise AssertionError("minibatches are drawn by the search")


class Silence:
    """gepa's logger; the search reports through events."""

    def log(self, message: str) -> None:
        return
