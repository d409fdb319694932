"""Settings of a run of evals, wherever they were read from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Settings:
    """The settings of a run, checked.

    Attributes:
        app: Task app as `module:attribute`, for evals that bring none.
        backend: `local`, `hosted` or a URL.
        tunnel: One of `choices.TUNNELS`.
        provider, model: Policy of evals that name none.
        concurrency: Rollouts in flight in the whole run.
        rootpath: Folder that `app` is imported from.
        record_mode: A mode of `recording.Recording`; None: `none` where CI is set and a test's cassette
            exists, else `off`.
        redact: Regular expressions of what must not get into a cassette.
        max_cost: US dollars that the model calls of the run may cost.
        prices: US dollars for a million tokens by `provider/model`: `input`, `output`, `cached_input`.
        providers: The user's own model providers by name.
        dry_run: Plan and estimate only.
        fail_fast: End an eval as soon as its gate is certain not to pass.
        update_baseline: Store the rewards of evals with `max_regression` as their baselines.
        optimize: Search for better prompts in the tests that are marked for it.
    """

    app: str | None = None
    backend: str = "local"
    tunnel: str = "auto"
    provider: str = "offline"
    model: str = "lexical"
    concurrency: int = 16
    rootpath: Path = field(default_factory=Path.cwd)
    record_mode: str | None = None
    redact: tuple[str, ...] = ()
    max_cost: float | None = None
    prices: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    providers: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    dry_run: bool = False
    fail_fast: bool = False
    update_baseline: bool = False
    optimize: bool = False

    @property
    def policy(self) -> dict[str, Any]:
        """Policy of an eval that names none."""
        return {"provider": self.provider, "model": self.model}
