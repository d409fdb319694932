"""What containers and task apps call the same things. Pure; the requests are elsewhere."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import parse_qsl, urlsplit, urlunsplit

from pytest_synth.errors import TaskAppError
from pytest_synth.localapi.failures import failure

_SUCCEEDED = frozenset({"completed", "succeeded"})
ENDED = _SUCCEEDED | {"failed", "error", "cancelled", "canceled", "terminated"}
"""States of a container's rollout that do not change any more."""


@dataclass(frozen=True)
class Routes:
    """Where a container has what is asked of it; a deployment may rename a route in its `/metadata`."""

    program: str = "/program"
    taskset: str = "/taskset"
    tasks: str = "/taskset/tasks"
    rollout: str = "/rollout"

    @classmethod
    def read(cls, metadata: Mapping[str, Any]) -> Self:
        contracts = _mapping(_mapping(metadata.get("metadata")).get("optimizer_contracts"))
        named = _mapping(contracts.get("gepa"))
        keys = {"program": "program", "taskset": "taskset", "tasks": "taskset_tasks", "rollout": "rollout"}
        found = {ours: named.get(f"{theirs}_route") for ours, theirs in keys.items()}
        return cls(**{ours: route for ours, route in found.items() if isinstance(route, str)})


def split_sizes(taskset: Mapping[str, Any]) -> dict[str, int | None]:
    """Read the splits of a taskset: names and sizes (None where it tells none)."""
    splits = taskset.get("splits")
    if isinstance(splits, Mapping):
        return {str(name): _size(value) for name, value in splits.items()}
    if isinstance(splits, list):
        sizes = taskset.get("sizes")
        known = sizes if isinstance(sizes, Mapping) else {}
        return {str(name): _size(known.get(name)) for name in splits}
    return {}


def choose_split(asked: object, taskset: Mapping[str, Any]) -> str:
    """Say which split a request means.

    Raises:
        HTTPException: 422 if it names none and there are several, or one that does not exist.
    """
    splits = list(split_sizes(taskset))
    names = ", ".join(map(repr, splits))
    if asked is None:
        default = taskset.get("default_split") or (splits[0] if len(splits) == 1 else None)
        if default is None:
            known = f"there are several: {names}" if splits else "the container names none"
            raise failure(422, "split_missing", f"env.config names no split, and {known}; name one")
        return str(default)
    if splits and asked not in splits:
        raise failure(422, "unknown_split", f"env.config['split'] is {asked!r}; the splits are {names}")
    return str(asked)


def check_seed(seed: int | None, split: str, size: int | None) -> None:
    """Refuse a seed that a split does not have; containers may wrap around silently.

    Raises:
        HTTPException: 422.
    """
    if seed is None:
        raise failure(422, "seed_missing", "env.seed is missing; it is the number of a row")
    if seed < 0 or (size is not None and seed >= size):
        held = "an unknown number of rows" if size is None else f"rows 0 to {size - 1}" if size else "no rows"
        raise failure(422, "seed_out_of_range", f"seed {seed} is outside split {split!r}, which has {held}")


def policy_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """Translate a policy: the model's address goes into both fields that containers read; keys stay out."""
    url = plain_base_url(str(config.get("inference_url") or ""))
    limit = config.get("max_completion_tokens", config.get("max_tokens"))
    policy = {
        "provider": config.get("provider") or "openai",
        "model": config.get("model"),
        "api_family": "chat_completions",
        "inference_url": url,
        "base_url": url,
        "credential_mode": "proxy",
        "config": {name: config[name] for name in ("temperature", "top_p") if config.get(name) is not None},
    }
    return policy if limit is None else {**policy, "max_tokens": limit}


def plain_base_url(url: str) -> str:
    """Make a base URL that OpenAI clients can append `/chat/completions` to: the query's `cid` becomes a part
    of the path, which the interceptor takes as well; the rest of the query goes.
    """
    parts = urlsplit(url)
    path = parts.path.rstrip("/").removesuffix("/chat/completions")
    cid = dict(parse_qsl(parts.query)).get("cid")
    if cid is not None and cid not in path.split("/"):
        path = f"{path}/{cid}"
    return urlunsplit((parts.scheme, parts.netloc, path, "", ""))


def read_answer(answer: Mapping[str, Any]) -> dict[str, Any]:
    """Translate a container's finished rollout into the fields of a `RolloutResponse`.

    Raises:
        TaskAppError: If the rollout failed; with the container's reason.
    """
    status = answer.get("status")
    if status not in _SUCCEEDED:
        reason = (
            answer.get("status_detail") or _mapping(answer.get("metadata")).get("error_type") or "no reason"
        )
        raise TaskAppError(f"the container's rollout ended as {status!r}: {reason}")
    info, summary = _mapping(answer.get("reward_info")), _mapping(answer.get("summary"))
    scores = [_mapping(score) for score in answer.get("objective_scores") or ()]
    rewards = [
        info.get("outcome_reward"),
        summary.get("outcome_reward"),
        summary.get("reward"),
        *(score.get("value") for score in scores),
    ]
    block: dict[str, Any] = {
        "outcome_reward": next((reward for reward in rewards if reward is not None), None),
        "details": _notes(answer, info, summary),
    }
    objectives = {
        str(score.get("objective")): score["value"] for score in scores if score.get("value") is not None
    }
    if objectives:
        block["outcome_objectives"] = objectives
    if isinstance(info.get("event_rewards"), list):
        block["event_rewards"] = info["event_rewards"]
    trace = answer.get("trace")
    return {"reward_info": block, "trace": trace if isinstance(trace, Mapping) and trace else None}


def _notes(answer: Mapping[str, Any], info: Mapping[str, Any], summary: Mapping[str, Any]) -> dict[str, Any]:
    notes = dict(_mapping(info.get("details")))
    for ours, theirs in (("predicted", "prediction"), ("expected", "expected")):
        for source in (notes, summary):
            if theirs in source:
                notes.setdefault(ours, source[theirs])
    side = answer.get("actionable_side_info")
    if side and "feedback" not in notes:
        text = _mapping(side).get("feedback", side)
        notes["feedback"] = (
            text if isinstance(text, str) else json.dumps(text, ensure_ascii=False, default=str)
        )
    return notes


def refused_fields(answer: object) -> frozenset[str]:
    """Names of the top-level fields that a strict container refuses (FastAPI's 422)."""
    detail = _mapping(answer).get("detail")
    entries = [_mapping(entry) for entry in detail] if isinstance(detail, list) else []
    return frozenset(
        str(entry["loc"][1])
        for entry in entries
        if entry.get("type") == "extra_forbidden" and len(entry.get("loc") or ()) == 2
    )


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _size(value: object) -> int | None:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    return len(value) if isinstance(value, list) else None


def shorten(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 200 else text[:197] + "..."
