"""Data of the events on the wire (section 8 of the contract), made of what a search knows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from pytest_synth.backend.optimizer.candidates import Candidate, Child, mean
from pytest_synth.backend.optimizer.outcome import CandidateResult, HeldOut, OptimizationOutcome
from pytest_synth.prompts import Prompt

PREFIX: Final = "learning.policy.gepa."
PROGRESS: Final = PREFIX + "job.progress"


def wire_prompt(prompt: Prompt) -> dict[str, Any]:
    """The shape that every reader of a best prompt understands."""
    return {"messages": prompt.to_wire()}


def prompt_text(prompt: Prompt) -> str:
    """The system message; of a prompt without one, all its messages."""
    return prompt.system or "\n\n".join(message.pattern for message in prompt.messages)


def reward_fields(reward: float, rewards: Mapping[int, float | None] | None = None) -> dict[str, Any]:
    """A score under all names that readers look for."""
    fields: dict[str, Any] = {
        "outcome_reward": reward,
        "outcome_objectives": {"reward": reward},
        "objectives": {"reward": reward},
    }
    if rewards is not None:
        fields["seeds"] = list(rewards)
        fields["instance_objectives"] = [{"reward": value} for value in rewards.values()]
    return fields


def estimated_reward(parent: float, before: float, after: float) -> float:
    """What a rejected child, which only ran on its minibatch, would have had on the Pareto set.

    Its parent's reward, less what it lost against it: minibatch rewards themselves are on other seeds, and
    would stand beside Pareto rewards in the published client's summary.
    """
    return max(0.0, parent - max(0.0, before - after))


def baseline_evaluated(candidate: Candidate) -> dict[str, Any]:
    return {
        "candidate_id": candidate.id,
        "version_id": candidate.id,
        "parent_id": None,
        "generation": 0,
        "accepted": True,
        "is_baseline": True,
        "is_pareto": True,
        "mutation_type": "baseline",
        "rollouts_used": len(candidate.outcomes),
        **reward_fields(candidate.reward, _rewards(candidate)),
    }


def child_evaluated(child: Child, accepted: Candidate | None, *, is_on_front: bool) -> dict[str, Any]:
    """A child that was accepted (scored on the Pareto set) or rejected (on its minibatch)."""
    assert child.prompt is not None
    if accepted is not None:
        score = reward_fields(accepted.reward, _rewards(accepted))
    else:
        estimate = estimated_reward(child.parent.reward, mean(child.before), mean(child.after))
        pairs = zip(child.batch.seeds, child.after, strict=True)
        score = reward_fields(estimate, {seed: outcome.reward for seed, outcome in pairs})
    return {
        "candidate_id": child.id,
        "version_id": child.id,
        "parent_id": child.parent.id,
        "generation": child.generation,
        "accepted": accepted is not None,
        "reason": child.reason,
        "is_pareto": is_on_front,
        "mutation_type": "initial" if child.is_founder else "reflection",
        "components": list(child.proposal.texts),
        "minibatch_before": mean(child.before),
        "minibatch_after": mean(child.after),
        "pattern": wire_prompt(child.prompt),
        **score,
    }


def new_best(best: Candidate, previous: float) -> dict[str, Any]:
    return {
        "candidate_id": best.id,
        "version_id": best.id,
        "best_prompt": wire_prompt(best.prompt),
        "best_candidate": wire_prompt(best.prompt),
        "best_score": best.reward,
        "best_reward": best.reward,
        "previous_best_score": previous,
        "improvement": best.reward - previous,
        **reward_fields(best.reward),
    }


def ranked(candidate: CandidateResult, held_out: HeldOut | None) -> dict[str, Any]:
    """A candidate at the end: what `get_prompts` lists as top prompts."""
    return {
        "rank": candidate.rank,
        "candidate_id": candidate.id,
        "version_id": candidate.id,
        "parent_id": candidate.parent_id,
        "generation": candidate.generation,
        "accepted": True,
        "is_baseline": candidate.parent_id is None,
        "is_pareto": candidate.is_on_front,
        "mutation_type": "baseline" if candidate.parent_id is None else "reflection",
        "train_accuracy": candidate.reward,
        "val_accuracy": held_out.reward if held_out is not None else None,
        "pattern": wire_prompt(candidate.prompt),
        "full_text": prompt_text(candidate.prompt),
        "changed": list(candidate.changed),
        **reward_fields(candidate.reward, candidate.rewards),
    }


def validated(entry: HeldOut) -> dict[str, Any]:
    """A candidate on the validation seeds; the baseline has no rank: readers file scores under ranks."""
    data: dict[str, Any] = {
        "candidate_id": entry.candidate_id,
        "is_baseline": entry.is_baseline,
        "rewards": {str(seed): reward for seed, reward in entry.rewards.items()},
    }
    if entry.rank is not None:
        data["rank"] = entry.rank
    if entry.reward is None:
        missing = [f"{seed}: {reason}" for seed, reason in entry.missing.items()]
        return {**data, "missing": missing, "error": f"no reward for {len(missing)} seeds"}
    return {**data, **reward_fields(entry.reward)}


def completed(outcome: OptimizationOutcome) -> dict[str, Any]:
    """All that the published client reads of a job that has ended well."""
    pool = [ranked(candidate, outcome.held_out_of(candidate.id)) for candidate in outcome.candidates]
    best, baseline = outcome.best, outcome.baseline
    assert best is not None
    assert baseline is not None
    return {
        "best_prompt": wire_prompt(best.prompt),
        "best_candidate": wire_prompt(best.prompt),
        "best_candidate_id": best.id,
        "best_score": best.reward,
        "best_reward": best.reward,
        "baseline_score": baseline.reward,
        "optimized_candidates": [entry for entry in pool if entry["is_pareto"]],
        "attempted_candidates": [*pool, *_rejected(outcome)],
        "version_tree": version_tree(outcome.candidates),
        "validation": [validated(entry) for entry in outcome.held_out if entry.reward is not None],
        "total_rollouts": outcome.usage.rollouts,
        "trials_tried": len(outcome.attempts),
        "total_candidates": len(pool),
        "summary": outcome.text,
        **ending(outcome),
        **reward_fields(best.reward),
    }


def ending(outcome: OptimizationOutcome) -> dict[str, Any]:
    """How a run ended, and what it used, beside the plan."""
    usage = outcome.usage
    return {
        "finish_reason": outcome.finish_reason,
        "finish_detail": outcome.detail,
        "plan": outcome.plan.to_document(),
        "usage": {
            "rollouts": usage.rollouts,
            "by_purpose": dict(usage.by_purpose),
            "unfinished": usage.unfinished,
            "replayed": usage.replayed,
            "reflections": usage.reflections,
            "tokens": usage.tokens,
            "cost_usd": usage.cost_usd,
            "wall_seconds": usage.wall_s,
            "reflection_wait_seconds": usage.reflection_wait_s,
            "utilisation": usage.utilisation,
        },
    }


def version_tree(candidates: Sequence[CandidateResult]) -> dict[str, Any]:
    """The pool's lineage: nodes by id, edges from parent to child."""
    return {
        "root": next((c.id for c in candidates if c.parent_id is None), None),
        "nodes": {
            c.id: {"reward": c.reward, "rank": c.rank, "generation": c.generation, "parent_id": c.parent_id}
            for c in candidates
        },
        "edges": [{"from": c.parent_id, "to": c.id} for c in candidates if c.parent_id is not None],
    }


def _rejected(outcome: OptimizationOutcome) -> list[dict[str, Any]]:
    rewards = {candidate.id: candidate.reward for candidate in outcome.candidates}
    entries = []
    for attempt in outcome.attempts:
        if attempt.fate != "rejected":
            continue
        assert attempt.prompt is not None
        assert attempt.before is not None
        assert attempt.after is not None
        entries.append(
            {
                "candidate_id": attempt.id,
                "version_id": attempt.id,
                "parent_id": attempt.parent_id,
                "generation": attempt.generation,
                "accepted": False,
                "reason": attempt.reason,
                "is_estimate": True,
                "minibatch_before": attempt.before,
                "minibatch_after": attempt.after,
                "pattern": wire_prompt(attempt.prompt),
                **reward_fields(estimated_reward(rewards[attempt.parent_id], attempt.before, attempt.after)),
            }
        )
    return entries


def _rewards(candidate: Candidate) -> dict[int, float | None]:
    return {seed: outcome.reward for seed, outcome in candidate.outcomes.items()}
