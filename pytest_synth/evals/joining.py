"""One result from all jobs of an eval: one for each sample, or a second one after a tunnel's restart."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from math import fsum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pytest_synth.client import EvalResult
    from pytest_synth.contracts.evals import EvalRow, PromptSource
    from pytest_synth.evals.relaying import Note
    from pytest_synth.evals.spec import EvalSpec

NOT_APPLIED = "prompt_not_applied"
NOT_SEEN = "its rollout did not come through this machine's gateway"


@dataclass(frozen=True)
class Seen:
    """What the rows of a job of the published API lack.

    Attributes:
        sample: Number of the repetition that the job is.
        notes: What was seen of its rollouts here; None: they do not come through here.
    """

    spec: EvalSpec
    prompt_source: PromptSource
    sample: int
    notes: Sequence[Note] | None


def recover(rows: Iterable[EvalRow], notes: Iterable[Note]) -> list[EvalRow]:
    """Add to a cut job's rows the rewards that the task app gave and the backend does not tell."""
    from pytest_synth.contracts.evals import EvalRow

    given = {note.seed: note.reward for note in notes if note.reward is not None}
    told = {row.seed: row for row in rows if row.score is not None or row.seed not in given}
    return [
        *told.values(),
        *(EvalRow(seed=s, score=r, outcome_reward=r) for s, r in given.items() if s not in told),
    ]


def complete(rows: Iterable[EvalRow], seen: Seen) -> list[EvalRow]:
    """Add to a job's rows what only this machine knows; without the prompt in it a reward is none."""
    return [_completed(row, seen) for row in rows]


def _completed(row: EvalRow, seen: Seen) -> EvalRow:
    found: dict[str, Any] = {
        "sample": seen.sample,
        "split": seen.spec.split,
        "prompt_source": seen.prompt_source,
    }
    note = None if seen.notes is None else _note_of(row, seen.notes)
    if note is not None:
        found |= {
            "calls": note.calls,
            "latency_ms": note.latency_ms if row.latency_ms is None else row.latency_ms,
            "tokens": row.tokens or note.tokens,
            "prompt_fingerprint": note.prompt_fingerprint,
            "replaced_fingerprint": note.replaced_fingerprint,
            "query": note.query,
            "answer": note.answer,
            "objectives": row.objectives or dict(note.objectives),
            "details": row.details or dict(note.details),
        }
    if row.error is None and row.error_kind is None:
        failure = _failure(note, seen)
        if failure is not None:
            error, kind = failure
            found |= {"score": None, "outcome_reward": None, "error": error, "error_kind": kind}
    return row.model_copy(update=found)


def _failure(note: Note | None, seen: Seen) -> tuple[str, str] | None:
    """Why the reward of a row is none, as our own backend would judge it."""
    if note is not None and note.model_error is not None:
        count = "the only model call" if note.calls == 1 else f"all {note.calls} model calls"
        return f"{count} failed: {note.model_error}", "model"
    if seen.spec.prompt is None or (note is not None and note.prompt_applied):
        return None
    return f"prompt not applied: {(note and note.prompt_reason) or NOT_SEEN}", NOT_APPLIED


def _note_of(row: EvalRow, notes: Sequence[Note]) -> Note | None:
    """The note of the rollout that a row is about: a backend that tries again makes several for one seed."""
    own = [note for note in notes if note.seed == row.seed]
    same = [note for note in own if note.correlation_id and note.correlation_id == row.correlation_id]
    answered = [note for note in same or own if note.is_answered]
    found = answered or same or own
    return found[-1] if found else None


def join(results: Sequence[EvalResult], rows: Sequence[EvalRow], error: str | None = None) -> EvalResult:
    """Make one result.

    Args:
        results: Of the jobs that count.
        rows: Of all of them.
        error: What ended the eval; without it the first error of a job counts.
    """
    from pytest_synth.client import EvalResult

    unsuccessful = [result for result in results if not result.succeeded]
    status = unsuccessful[0].status.value if unsuccessful else "completed"
    rewards = [row.score for row in rows if row.score is not None]
    costs = [row.cost_usd for row in rows]
    document = {
        "status": status if error is None else "failed",
        "error": error or next((result.error for result in unsuccessful if result.error), None),
        "started_at": _edge(results, "started_at", min),
        "completed_at": _edge(results, "completed_at", max),
        "mean_reward": fsum(rewards) / len(rewards) if rewards else None,
        "total_tokens": sum(row.tokens for row in rows),
        "total_cost_usd": None if None in costs else fsum(cost for cost in costs if cost is not None),
        "results": [row.model_dump(mode="json") for row in rows],
    }
    return EvalResult.from_response(results[0].job_id if results else "", document)


def _edge(
    results: Sequence[EvalResult], name: str, choose: Callable[[list[datetime]], datetime]
) -> str | None:
    """The first or last time of a kind; None where a backend writes it in another way."""
    times = []
    for result in results:
        try:
            time = datetime.fromisoformat(result.raw[name])
        except (KeyError, TypeError, ValueError):
            return None
        times.append(time if time.tzinfo is not None else time.replace(tzinfo=UTC))
    return choose(times).isoformat() if times else None
