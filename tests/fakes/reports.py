"""A whole run as reports see it, with fixed values: evals of all outcomes, model calls, an optimisation."""

from __future__ import annotations

import random

from fakes.entries import row

from pytest_synth.contracts.evals import EvalRow, PromptMessage
from pytest_synth.report import (
    BaselineEntry,
    Candidate,
    EvalEntry,
    ModelCall,
    OptimizationEntry,
    RolloutCalls,
    Rule,
    RunReport,
    SeedChange,
)

LABELS = ("card_arrival", "card_linking", "exchange_rate", "transfer_not_received_by_recipient")
QUERY = "I still have not received my new card, and I ordered it over a week ago. Where is it?"


def prompt_of(text: str) -> tuple[PromptMessage, ...]:
    return (PromptMessage(role="system", pattern=text),)


PROMPT = prompt_of(
    "Name the intent of the message, one of:\n" + "\n".join(f"- {label}" for label in LABELS * 8)
)


def whole_run(evals: int = 3, seeds: int = 6, text: str = "") -> RunReport:
    """Make a run; `text` is put into every foreign text."""
    return RunReport(
        created_at="2026-01-02T03:04:05+00:00",
        package_version="0.1.0",
        evals=tuple(_eval(n, seeds, text) for n in range(evals)),
        optimizations=(optimization(),),
    )


def _eval(n: int, seeds: int, text: str) -> EvalEntry:
    source = random.Random(n)
    rows = tuple(
        _row(seed, source, text, lost=n % 3 == 2 and seed == 101) for seed in range(100, 100 + seeds)
    )
    failing = [r for r in rows if r.score == 0.0]
    mean = sum(r.score or 0.0 for r in rows) / seeds
    incomplete = n % 3 == 2
    return EvalEntry(
        node_id=f"tests/test_intents.py::test_group[{n}{text}]",
        outcome="incomplete" if incomplete else "passed" if n % 3 == 0 else "failed",
        gate_text=f"gate {n} {text}",
        gate_details=(f"95% interval of the mean 0.40 to 0.90 {text}",),
        rule=Rule(min_reward=0.8),
        mean_reward=None if incomplete else mean,
        interval=None if incomplete else (max(mean - 0.1, 0.0), min(mean + 0.1, 1.0)),
        threshold=0.8,
        baseline=_baseline(failing, mean) if n % 3 == 1 else None,
        seeds_asked=seeds,
        seeds_done=sum(r.score is not None for r in rows),
        rollouts=seeds,
        duration_s=2.0,
        tokens=seeds * 400,
        cost_usd=0.0125,
        model=f"openai/gpt-4.1-nano{text}",
        prompt_source="marker",
        prompt_fingerprint="3f9c2a81d0aa",
        prompt=PROMPT,
        stored_prompt=prompt_of(f"Classify the message. {text}") if n % 3 == 1 else None,
        rows=rows,
        calls=tuple(_calls(r, text) for r in failing),
    )


def _row(seed: int, source: random.Random, text: str, lost: bool) -> EvalRow:
    expected, answer = source.choice(LABELS), source.choice(LABELS)
    if source.random() < 0.7:
        answer = expected
    if lost:
        return row(seed, None, split="test", error=f"task app answered 500 {text}")
    return row(
        seed,
        float(answer == expected),
        split="test",
        query=f"{QUERY} {text}",
        answer=f"{answer}{text}",
        latency_ms=source.uniform(200, 1500),
        cost_usd=source.uniform(0.0002, 0.0003),
        details={
            "expected": f"{expected}{text}",
            "feedback": f"the description of {expected} is thin {text}",
        },
    )


def _calls(failing: EvalRow, text: str) -> RolloutCalls:
    asked = PromptMessage(role="user", pattern=failing.query or "")
    call = ModelCall(
        messages=(*PROMPT, asked),
        answer=f'{{"intent": "{failing.answer}"}}',
        model="gpt-4.1-nano",
        tokens=400,
        latency_ms=312.4,
    )
    return RolloutCalls(split=failing.split, seed=failing.seed, calls=(call,))


def _baseline(failing: list[EvalRow], mean: float) -> BaselineEntry:
    fell = tuple(SeedChange(split="test", seed=r.seed, before=1.0, now=0.0) for r in failing)
    return BaselineEntry(
        mean=min(mean + 0.2, 1.0),
        difference=-0.2,
        interval=(-0.4, 0.0),
        lower_bound=-0.35,
        newly_failing=fell,
        drops=fell,
    )


def optimization() -> OptimizationEntry:
    texts = (
        "Name the intent.",
        "Name the intent of the message.",
        "Say it.",
        "Name the message's intent. Be brief.",
    )
    return OptimizationEntry(
        node_id="tests/test_intents.py::test_all",
        finish_reason="budget used",
        budget=80,
        rollouts=76,
        cost_usd=None,
        candidates=(
            Candidate(id="c0", accepted=True, reward=0.5, rollouts=10, prompt=prompt_of(texts[0])),
            Candidate(
                id="c1",
                parents=("c0",),
                generation=1,
                accepted=True,
                reward=0.6,
                rollouts=28,
                prompt=prompt_of(texts[1]),
            ),
            Candidate(
                id="c2",
                parents=("c1",),
                generation=2,
                accepted=False,
                rollouts=36,
                prompt=prompt_of(texts[2]),
            ),
            Candidate(
                id="c3",
                parents=("c1",),
                generation=2,
                accepted=True,
                reward=0.8,
                rollouts=62,
                prompt=prompt_of(texts[3]),
            ),
        ),
        best="c3",
        held_out_seeds=10,
        held_out_baseline=0.5,
        held_out_best=0.75,
        held_out_interval=(0.05, 0.42),
        not_applied=("archive.size",),
    )
