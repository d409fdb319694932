"""Results of prompt-learning jobs, read out of status documents and events.

The hosted service has no results document in use: its client computes results from the event list. The
rules here are those of the published client, so that both read the same out of the same events; but an
event with `data: null`, or a `state: null` in it, is no crash.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any, Self

from pytest_synth.client.flows import Json
from pytest_synth.client.polling import status_of
from pytest_synth.client.prompt_texts import full_text_of, messages_of, system_text_of
from pytest_synth.contracts.jobs import JobStatus
from pytest_synth.errors import UnexpectedAnswer

SCORE_NAMES = ("best_score", "best_reward", "best_train_score", "best_train_reward")
BINS = ((0.0, 0.2), (0.2, 0.4), (0.4, 0.6), (0.6, 0.8), (0.8, 1.0))


@dataclass(frozen=True)
class PromptLearningResult:
    """The state of a prompt-learning job. A score of 0.0 is a score; None means unknown.

    Attributes:
        status: Of success: `succeeded`, whatever word the backend uses.
        best_prompt: A string, or an object with `messages` of `role` and `pattern`.
        raw: The whole status document.
    """

    job_id: str
    status: JobStatus
    best_score: float | None = None
    best_prompt: str | Json | None = None
    error: str | None = None
    raw: Json = field(default_factory=dict, repr=False)

    @classmethod
    def from_response(cls, job_id: str, data: Mapping[str, Any]) -> Self:
        """Read a status document.

        Raises:
            UnexpectedAnswer: If the status is missing or unknown, or the score is no number.
        """
        status = status_of(data, job_id)
        return cls(
            job_id=job_id,
            status=JobStatus.SUCCEEDED if status.is_success else status,
            best_score=_best_score(job_id, data),
            best_prompt=data.get("best_prompt"),
            error=data.get("error"),
            raw=dict(data),
        )

    @property
    def succeeded(self) -> bool:
        return self.status.is_success

    @property
    def failed(self) -> bool:
        return self.status is JobStatus.FAILED

    @property
    def is_terminal(self) -> bool:
        """Whether the job has ended, one way or another."""
        return self.status.is_terminal

    def get_system_prompt(self) -> str | None:
        """Return the best prompt's system text; None if the document does not hold one."""
        text = system_text_of(self.best_prompt)
        if text:
            return text
        for name in ("optimized_candidates", "frontier", "candidates", "archive"):
            for candidate in _objects(self.raw.get(name)):
                pattern = candidate.get("pattern") or _object(candidate.get("object")).get("pattern")
                if isinstance(pattern, Mapping) and (text := system_text_of(pattern)):
                    return text
        return None


@dataclass(frozen=True)
class PromptResults:
    """What a prompt-learning job has found, as its events tell it.

    Attributes:
        best_prompt: As a rule an object with `messages` of `role` and `pattern`.
        top_prompts: Objects with `rank` (from 1), `train_accuracy`, `val_accuracy`, `pattern`,
            `full_text`.
        total_rollouts, total_proposal_calls: 0 when the events do not say.
    """

    best_prompt: str | Json | None = None
    best_score: float | None = None
    version_tree: Json | None = None
    top_prompts: list[Json] = field(default_factory=list)
    optimized_candidates: list[Json] = field(default_factory=list)
    attempted_candidates: list[Json] = field(default_factory=list)
    validation_results: list[Json] = field(default_factory=list)
    total_rollouts: int = 0
    total_proposal_calls: int = 0

    def text_of_rank(self, rank: int) -> str | None:
        """Return the full text of a top prompt; None if there is none of that rank."""
        return next((p.get("full_text") for p in self.top_prompts if p.get("rank") == rank), None)


def read_prompt_results(events: Iterable[Mapping[str, Any]]) -> PromptResults:
    """Read results out of a job's events, which are in order."""
    best_prompt: Any = None
    best_score: float | None = None
    completed: Mapping[str, Any] = {}
    ranked: list[Json] = []
    validations: list[Json] = []
    validation_by_rank: dict[int, float] = {}
    rollouts = proposals = 0
    for event in events:
        data = _object(event.get("data"))
        match event.get("type"):
            case "learning.policy.gepa.candidate.new_best":
                best_prompt = data.get("best_prompt")
                best_score = _either(score_of(data, "best_score"), best_score)
            case "learning.policy.gepa.candidate.evaluated" if data.get("rank") is not None:
                ranked.append(_ranked(data))
            case "learning.policy.gepa.validation.completed":
                validations.append(dict(data))
                _note_validation(validation_by_rank, data)
            case "learning.policy.gepa.job.completed":
                completed = data
                best_prompt = data.get("best_prompt") if best_prompt is None else best_prompt
                best_score = _either(best_score, score_of(data, "best_score"))
                state = _object(data.get("state"))
                rollouts = _count(data.get("total_rollouts"), state.get("total_rollouts"))
                proposals = _count(data.get("trials_tried"), state.get("total_trials"))
                for item in _objects(data.get("validation")):
                    _note_validation(validation_by_rank, item)
            case "learning.policy.mipro.job.completed":
                names = ("best_score", "best_full_score", "best_minibatch_score")
                best_score = _either(best_score, score_of(data, *names))
    optimized = _list(completed.get("optimized_candidates"))
    return PromptResults(
        best_prompt=best_prompt,
        # A score filed under rank 0 is the best prompt's validation score: it stands above the rest.
        best_score=validation_by_rank.get(0, best_score),
        version_tree=completed.get("version_tree"),
        top_prompts=ranked or _top_of(optimized, validation_by_rank),
        optimized_candidates=optimized,
        attempted_candidates=_list(completed.get("attempted_candidates")),
        validation_results=validations,
        total_rollouts=rollouts,
        total_proposal_calls=proposals,
    )


def scoring_summary(results: PromptResults) -> Json:
    """Sum up the scores of all candidates; the baseline does not count as a validation result."""
    train = [_candidate_score(candidate) for candidate in _objects(results.attempted_candidates)]
    rewards = [reward for reward in train if reward is not None]
    checked = [score_of(item) for item in results.validation_results if not item.get("is_baseline")]
    validation = [reward for reward in checked if reward is not None]
    last = len(BINS) - 1
    return {
        "best_train_accuracy": max(rewards, default=None),
        "best_val_accuracy": max(validation, default=None),
        "num_candidates_tried": len(results.attempted_candidates),
        "num_frontier_candidates": len(results.optimized_candidates),
        "score_distribution": {
            f"{low:.1f}-{high:.1f}": sum(
                low <= reward < high or (index == last and reward == high) for reward in rewards
            )
            for index, (low, high) in enumerate(BINS)
        },
        "mean_train_accuracy": fmean(rewards) if rewards else None,
    }


def score_of(value: object, *fallbacks: str) -> float | None:
    """Read a score: `outcome_objectives.reward`, else `outcome_reward`, else the first fallback there is."""
    data = _object(value)
    places = [_object(data.get("outcome_objectives")).get("reward"), data.get("outcome_reward")]
    return next((n for n in map(_number, [*places, *map(data.get, fallbacks)]) if n is not None), None)


def _candidate_score(candidate: Mapping[str, Any]) -> float | None:
    return _either(score_of(candidate), score_of(candidate.get("score")))


def _note_validation(by_rank: dict[int, float], data: Mapping[str, Any]) -> None:
    rank, reward = data.get("rank"), score_of(data)
    if isinstance(rank, int) and reward is not None:
        by_rank[rank] = reward


def _ranked(data: Mapping[str, Any]) -> Json:
    return {
        "rank": data["rank"],
        "train_accuracy": data.get("train_accuracy"),
        "val_accuracy": data.get("val_accuracy"),
        "pattern": data.get("pattern") or messages_of(data.get("template")),
        "full_text": data.get("full_text"),
    }


def _top_of(candidates: Sequence[object], validation_by_rank: Mapping[int, float]) -> list[Json]:
    """Make the list of top prompts out of the frontier, when no event has named them."""
    found: list[Json] = []
    for index, candidate in enumerate(candidates):
        if not isinstance(candidate, Mapping):
            continue
        rank = index + 1 if candidate.get("rank") is None else candidate["rank"]
        entry: Json = {
            "rank": rank,
            "train_accuracy": _either(score_of(candidate.get("score")), score_of(candidate)),
            "val_accuracy": validation_by_rank.get(rank),
        }
        for source in (candidate.get("template"), candidate.get("pattern"), candidate.get("object")):
            text = full_text_of(source)
            if text:
                entry |= {"pattern": messages_of(source), "full_text": text}
                break
        found.append(entry)
    return sorted(found, key=lambda entry: entry["rank"] if isinstance(entry["rank"], int) else len(found))


def _best_score(job_id: str, data: Mapping[str, Any]) -> float | None:
    name = next((name for name in SCORE_NAMES if data.get(name) is not None), None)
    if name is None:
        return None
    score = _number(data[name])
    if score is None:
        raise UnexpectedAnswer(f"{name} of job {job_id} is {data[name]!r}, not a number")
    return score


def _count(*values: object) -> int:
    return next((value for value in values if isinstance(value, int)), 0)


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        return float(value)
    except (ValueError, OverflowError):
        return None


def _either(first: float | None, second: float | None) -> float | None:
    return second if first is None else first


def _object(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _objects(value: object) -> list[Mapping[str, Any]]:
    return [item for item in _list(value) if isinstance(item, Mapping)]
