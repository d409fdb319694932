"""Asks the reflection model for a better prompt, and gives it one chance to mend an answer."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pytest_synth.backend.optimizer.components import Components
from pytest_synth.backend.optimizer.config import GepaConfig
from pytest_synth.backend.optimizer.pool import UsageMeter
from pytest_synth.backend.optimizer.ports import (
    Host,
    ReflectionAnswer,
    ReflectionFailed,
    ReflectionKey,
    ReflectionRequest,
)
from pytest_synth.backend.optimizer.proposals import TextRules, extract_text
from pytest_synth.backend.optimizer.spending import Spending
from pytest_synth.backend.optimizer.stopping import FailureStreak, StopSignal
from pytest_synth.prompts import Prompt


@dataclass
class Proposal:
    """What came of one child's reflections.

    Attributes:
        texts: New text of each component that has one; empty if there is no proposal.
        reasons: Why a component has none.
        costs: US dollars of each answer.
    """

    texts: dict[str, str] = field(default_factory=dict)
    reasons: list[str] = field(default_factory=list)
    costs: list[float | None] = field(default_factory=list)


class Proposer:
    """Proposes new texts for the messages of a prompt.

    The question is rendered by gepa, with lines of our own below; the answer is read and checked here.

    Attributes:
        asked: Questions that the host was sent.
        replayed: Answers that the ledger had.
    """

    def __init__(
        self,
        config: GepaConfig,
        components: Components,
        host: Host,
        *,
        meter: UsageMeter,
        streak: FailureStreak,
        spending: Spending,
        stop: StopSignal,
    ) -> None:
        self._config = config
        self._components = components
        self._host = host
        self._meter = meter
        self._streak = streak
        self._spending = spending
        self._stop = stop
        self.asked = 0
        self.replayed = 0

    async def propose(
        self,
        child: int,
        parent: Prompt,
        names: Sequence[str],
        records: Sequence[Mapping[str, Any]],
        known: Container[str],
    ) -> Proposal:
        """Ask once for each component, all at the same time.

        Args:
            child: Number of the child that it is for.
            parent: The prompt that gave the records.
            names: Components to rewrite.
            records: Examples, as `feedback.record_of` makes them.
            known: Fingerprints of prompts that are no news.
        """
        proposal = Proposal()
        await asyncio.gather(
            *(self._rewrite(child, parent, name, records, known, proposal) for name in names)
        )
        proposal.texts = {name: proposal.texts[name] for name in names if name in proposal.texts}
        return proposal

    async def _rewrite(
        self,
        child: int,
        parent: Prompt,
        name: str,
        records: Sequence[Mapping[str, Any]],
        known: Container[str],
        proposal: Proposal,
    ) -> None:
        rules = self._rules(parent, name)
        question = _question(rules, name, records, self._config.reflection.template)
        problem: str | None = None
        for is_repair in (False, True):
            try:
                answer = await self._ask(child, question, name, is_repair=is_repair)
            except ReflectionFailed as error:
                problem = f"the reflection model failed: {error}"
                break
            proposal.costs.append(answer.cost_usd)
            self._spending.add(answer.cost_usd)
            text, problem = extract_text(answer.text)
            problem = problem or rules.problem_of(text)
            if problem is None and self._components.replace(parent, {name: text}).fingerprint in known:
                problem = "it makes a prompt that is known already"
            if problem is None:
                proposal.texts[name] = text
                return
            question = _repair(question, answer.text, problem)
        proposal.reasons.append(f"{name}: {problem}")

    def _rules(self, parent: Prompt, name: str) -> TextRules:
        allowed = self._components.wildcards(name)
        return TextRules(
            parent=self._components.split(parent)[name],
            required=allowed & self._config.required_wildcards,
            allowed=allowed,
            max_chars=self._config.max_prompt_chars,
        )

    async def _ask(self, child: int, text: str, name: str, *, is_repair: bool) -> ReflectionAnswer:
        key = ReflectionKey(child, hashlib.sha256(text.encode()).hexdigest())
        known = self._host.ledger.find_reflection(key)
        if known is not None:
            self.replayed += 1
            return known
        self._spending.check()
        await self._stop.hold(is_search=True)
        self.asked += 1
        try:
            with self._meter.reflection():
                answer = await self._host.reflector.reflect(ReflectionRequest(key, text, name, is_repair))
        except ReflectionFailed as error:
            self._streak.failure(str(error))
            raise
        self._streak.success()
        self._host.ledger.add_reflection(key, answer)
        return answer


def _question(rules: TextRules, name: str, records: Sequence[Mapping[str, Any]], template: str | None) -> str:
    from gepa.strategies.instruction_proposal import InstructionProposalSignature

    rendered = InstructionProposalSignature.prompt_renderer(
        {
            "current_instruction_doc": rules.parent,
            "dataset_with_feedback": list(records),
            "prompt_template": template,
        }
    )
    assert isinstance(rendered, str), "records hold no images"
    return f"{rendered}\n\n{_rule_lines(rules, name)}"


def _rule_lines(rules: TextRules, name: str) -> str:
    role = name.partition(":")[2]
    lines = [
        "Keep to these rules:",
        f"- The instructions are the {role} message of a prompt; the new ones take its place as they stand.",
        "- Keep the output format that they ask for.",
        "- Do not copy the examples word for word; state what they teach.",
    ]
    if rules.required:
        lines.append(f"- Keep {_holes(rules.required)}, spelled exactly so: data is filled in there.")
    free = rules.allowed - rules.required
    if free:
        lines.append(f"- You may keep or leave out {_holes(free)}: data is filled in there.")
    lines.append("- Put no other name in braces; nothing would fill it.")
    if rules.max_chars is not None:
        lines.append(f"- Write at most {rules.max_chars} characters.")
    lines.append(
        "- Give the whole new text in one ``` block; if it holds ``` itself, open and close with ````."
    )
    return "\n".join(lines)


def _repair(question: str, answer: str, problem: str) -> str:
    return (
        f"{question}\n\nYou have answered this already:\n\n{answer}\n\n"
        f"The answer cannot be used: {problem}. Give the new text again, with this mended."
    )


def _holes(names: frozenset[str]) -> str:
    return ", ".join(f"{{{name}}}" for name in sorted(names))
