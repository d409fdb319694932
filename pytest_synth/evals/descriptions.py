"""What a task app says of itself: the fingerprints that a baseline is compared by."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_TIMEOUT_S = 30.0


@dataclass(frozen=True)
class Fingerprints:
    """Of the scorer and of the rows of one split; None where the task app tells none.

    `task_app` tells both; any other app does by `fingerprints: {"scorer": ..., "data": {split: ...}}` in what
    `provide_taskset_description` returns.
    """

    scorer: str | None = None
    data: str | None = None


def fetch_taskset(url: str, key: str | None) -> Mapping[str, Any]:
    """Read the `taskset` of `/task_info`; empty where the app has none or does not answer.

    By the standard library: a mock of httpx in the user's test must not catch it. What is wrong with the
    app is the job's to say, not ours.
    """
    headers = {} if key is None else {"X-API-Key": key}
    request = urllib.request.Request(f"{url.rstrip('/')}/task_info", headers=headers)  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as answer:  # noqa: S310
            document = json.load(answer)
    except (OSError, ValueError):
        return {}
    taskset = document.get("taskset") if isinstance(document, dict) else None
    return taskset if isinstance(taskset, dict) else {}


def fingerprints_of(taskset: Mapping[str, Any], split: str | None) -> Fingerprints:
    """Find the fingerprints for one split; without a named split, the only or default one counts."""
    told = taskset.get("fingerprints")
    if not isinstance(told, Mapping):
        return Fingerprints()
    data = told.get("data")
    by_split = data if isinstance(data, Mapping) else {}
    name = split or taskset.get("default_split") or (next(iter(by_split)) if len(by_split) == 1 else None)
    return Fingerprints(scorer=_text(told.get("scorer")), data=_text(by_split.get(name)))


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None
