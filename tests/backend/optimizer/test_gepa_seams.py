"""What this engine relies on in gepa, seam by seam: a new gepa that breaks one is caught here."""

from __future__ import annotations

import inspect
import random
import subprocess
import sys
from typing import Any

import pytest
from fakes.optimizer_host import SimulatedHost, make_config, run_search
from fakes.rule_world import World

from pytest_synth.backend.optimizer import seams
from pytest_synth.backend.optimizer.candidates import Batch, Candidate, Child
from pytest_synth.backend.optimizer.ports import RolloutKey, RolloutOutcome
from pytest_synth.prompts import Message, Prompt


def test_importing_the_optimizer_does_not_import_gepa() -> None:
    code = "import sys, pytest_synth.backend.optimizer as o; o.GepaEngine(); print('gepa' in sys.modules)"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert answer.stdout.strip() == "False"


def test_optimize_takes_every_argument_that_is_given() -> None:
    from gepa.api import optimize

    source = inspect.getsource(seams.run_gepa)
    given = {line.split("=")[0].strip() for line in source.splitlines() if line.startswith(" " * 8)}
    names = {name for name in given if name.isidentifier()}
    assert {"sampling_strategy", "reflection_strategy", "selection_strategy"} <= names
    assert names <= set(inspect.signature(optimize).parameters)


def test_seeds_are_a_data_loader_by_gepa_s_own_protocol() -> None:
    from gepa.core.data_loader import DataLoader, ensure_loader

    seeds = seams.Seeds([7, 3])

    assert isinstance(seeds, DataLoader)
    assert ensure_loader(seeds) is seeds
    assert (list(seeds.all_ids()), seeds.fetch([3]), len(seeds)) == ([7, 3], [3], 2)


def test_strategies_satisfy_gepa_s_protocols() -> None:
    from gepa.proposer.reflective_mutation.reflection_lm import ReflectionLM
    from gepa.strategies.acceptance import AcceptanceCriterion

    breeder = seams.Breeder(None, None)  # type: ignore[arg-type]  # only its shape is looked at

    assert isinstance(breeder, ReflectionLM)
    assert isinstance(seams.PairedImprovement(), AcceptanceCriterion)


def test_gepa_s_selectors_draw_from_the_random_stream_that_they_are_given() -> None:
    from gepa.strategies.candidate_selector import ParetoCandidateSelector, TopKParetoCandidateSelector

    rng = random.Random(0)

    assert ParetoCandidateSelector(rng).rng is rng
    top = TopKParetoCandidateSelector(5, rng)
    assert (top.k, top.rng) == (5, rng)


def test_gepa_s_renderer_fills_both_places_and_leaves_braces_alone() -> None:
    from gepa.strategies.instruction_proposal import InstructionProposalSignature

    question = InstructionProposalSignature.prompt_renderer(
        {
            "current_instruction_doc": "Answer {query}.",
            "dataset_with_feedback": [{"Inputs": {"query": "{x}"}, "Feedback": "expected: y"}],
            "prompt_template": None,
        }
    )

    assert isinstance(question, str)
    assert "```\nAnswer {query}.\n```" in question
    assert "# Example 1\n## Inputs\n### query\n{x}\n\n## Feedback\nexpected: y" in question
    assert "<curr_param>" not in question
    assert "<side_info>" not in question


def test_the_criterion_reads_the_trajectories_of_gepa_s_proposals() -> None:
    from gepa.proposer.base import CandidateProposal, SubsampleEvaluation

    def evaluation(*rewards: float | None) -> SubsampleEvaluation:
        rollouts = [
            RolloutOutcome(reward)
            if reward is not None
            else RolloutOutcome(None, error="down", error_kind="infrastructure")
            for reward in rewards
        ]
        return SubsampleEvaluation(
            scores=[rollout.score for rollout in rollouts], outputs=[], trajectories=rollouts
        )

    def accepts(before: SubsampleEvaluation, after: SubsampleEvaluation) -> bool:
        proposal: CandidateProposal[int] = CandidateProposal(
            candidate={}, parent_program_ids=[0], eval_before=before, eval_after=after
        )
        state: Any = None
        return seams.PairedImprovement().should_accept(proposal, state)

    assert accepts(evaluation(0.5, 0.5), evaluation(0.5, 1.0))
    assert not accepts(evaluation(0.5, 0.5), evaluation(0.5, 0.5))
    assert not accepts(evaluation(None, 0.5), evaluation(1.0, 0.5))


def test_gepa_calls_back_for_fronts_acceptance_and_the_end_of_each_iteration() -> None:
    from gepa.core import callbacks

    assert "new_front" in callbacks.ParetoFrontUpdatedEvent.__annotations__
    for name in ("on_pareto_front_updated", "on_candidate_accepted", "on_iteration_end"):
        assert hasattr(callbacks.GEPACallback, name)
        assert hasattr(seams.Settling, name)


class RecordingSearch:
    """Stands in for `Search`; keeps what gepa asks for, and hands over two children."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, Any]] = []
        self.prompts = {0: "start", 1: "better", 2: "worse"}
        self.handed = 0

    async def next_child(self, select_parent: Any) -> Child | None:
        parent = select_parent()
        self.calls.append(("next_child", parent))
        self.handed += 1
        if self.handed > 2:
            return None
        baseline = Candidate(0, 0, prompt("start"), None, 0, 0, {})
        keys = tuple(RolloutKey("start", None, seed, 0) for seed in (5, 6))
        return Child(self.handed, 1, baseline, ("0:system",), False, Batch(keys, keys), 0, 0)

    async def evaluate(self, asked: Prompt, seeds: list[int]) -> list[RolloutOutcome]:
        self.calls.append(("evaluate", (asked.system, tuple(seeds))))
        reward = {"start": 0.5, "better": 0.9, "worse": 0.1}[asked.system or ""]
        return [RolloutOutcome(reward) for _ in seeds]

    def proposed_texts(self) -> dict[str, str]:
        self.calls.append(("proposed_texts", None))
        return {"0:system": self.prompts[self.handed]}

    async def settle(self, *, is_accepted: bool, front: tuple[int, ...]) -> None:
        self.calls.append(("settle", (is_accepted, tuple(front))))


def prompt(text: str) -> Prompt:
    return Prompt((Message("system", text),))


def test_gepa_asks_in_the_order_that_the_search_relies_on() -> None:
    import asyncio

    from pytest_synth.backend.optimizer.components import Components
    from pytest_synth.backend.optimizer.worker import Worker

    search: Any = RecordingSearch()

    async def main() -> None:
        worker = Worker()
        await worker.run(
            lambda: seams.run_gepa(
                make_config(World()),
                Components(prompt("start")),
                search,
                worker,
                pareto=[1, 2],
                feedback=[5, 6],
            )
        )

    asyncio.run(main())

    assert search.calls == [
        ("evaluate", ("start", (1, 2))),
        ("next_child", 0),
        ("evaluate", ("start", (5, 6))),
        ("proposed_texts", None),
        ("evaluate", ("better", (5, 6))),
        ("evaluate", ("better", (1, 2))),
        ("settle", (True, (1,))),
        ("next_child", 1),
        ("evaluate", ("start", (5, 6))),
        ("proposed_texts", None),
        ("evaluate", ("worse", (5, 6))),
        ("settle", (False, (1,))),
        ("next_child", 1),
    ]


@pytest.mark.parametrize("children", [1, 3])
def test_gepa_asks_for_nothing_that_was_not_there_already(
    children: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every rollout is started by the child itself; what gepa asks for is known by then."""
    from pytest_synth.backend.optimizer.search import Search

    late: list[tuple[int, ...]] = []
    ask = Search.evaluate

    async def watched(self: Search, asked: Prompt, seeds: Any) -> list[RolloutOutcome]:
        before = len(host.sent)
        outcomes = await ask(self, asked, seeds)
        if len(host.sent) > before:
            late.append(tuple(seeds))
        return outcomes

    monkeypatch.setattr(Search, "evaluate", watched)
    host = SimulatedHost(World(1))
    run_search(make_config(World(1), children_per_generation=children, max_concurrent=1), host)

    assert late == []


def test_nothing_is_printed_and_no_file_is_written(
    capfd: pytest.CaptureFixture[str], tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run_search(make_config(World(1)), SimulatedHost(World(1)))

    assert capfd.readouterr() == ("", "")
    assert list(tmp_path.iterdir()) == []
