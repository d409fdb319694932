"""Eval jobs on the wire: what is submitted, and the rows that come back (wire fields, Synth's spelling)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints

PromptSource = Literal["app", "marker", "snapshot", "call", "optimized"]
"""Whose prompt ran: the app's own, the marker's, the stored one, a call's argument, or the best one found."""


MAX_INTEGER = 2**53 - 1
"""The largest number that every JSON reader keeps exactly."""
MAX_ROLLOUTS = 100_000
"""Of one job; each is a row that is kept."""
MAX_DEPTH = 100
"""Levels of objects and lists in what users send as they like; readers of JSON fail on some hundreds."""


def _whole(value: object) -> object:
    return int(value) if isinstance(value, float) and value.is_integer() else value


WholeNumber = Annotated[int, BeforeValidator(_whole), Field(strict=True, le=MAX_INTEGER)]
"""An integer as JSON Schema has it: 5 and 5.0, but neither "5" nor true."""


def _shallow(value: dict[str, Any]) -> dict[str, Any]:
    """Refuse what is nested too deep to be stored and sent on."""
    level: list[object] = [value]
    for _ in range(MAX_DEPTH):
        level = [inner for outer in level for inner in _inside(outer)]
        if not level:
            return value
    raise ValueError(f"is nested deeper than {MAX_DEPTH} levels")


def _inside(value: object) -> Iterable[object]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


JsonObject = Annotated[dict[str, Any], AfterValidator(_shallow)]
"""An object whose fields belong to the user."""


class PromptMessage(BaseModel):
    """One message of a prompt; `pattern` may hold `{wildcard}` holes."""

    model_config = ConfigDict(extra="ignore")

    role: str = Field(min_length=1)
    pattern: str
    order: int = 0


RecordModeName = Literal["off", "none", "once", "new_episodes", "all", "rewrite"]
"""How model calls are recorded and replayed, in VCR's words."""


class FailFast(BaseModel):
    """End an eval as soon as its gate is certain not to pass, whatever the remaining rollouts bring."""

    model_config = ConfigDict(extra="forbid")

    min_reward: float = Field(ge=0, le=1)
    allow_missing: WholeNumber = Field(default=0, ge=0)


class EvalExtensions(BaseModel):
    """What the published wire has no field for; the backend takes it from its own local key only."""

    model_config = ConfigDict(extra="forbid")

    samples: WholeNumber = Field(default=1, ge=1)
    prompt: list[PromptMessage] | None = Field(default=None, min_length=1)
    prompt_source: PromptSource | None = None
    run_id: str | None = None
    node_id: str | None = None
    fail_fast: FailFast | None = None
    cassette: str | None = None
    """Name of the file of recorded model calls, below the folder that the backend was started with."""
    record_mode: RecordModeName = "off"
    max_cost: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    """US dollars that the model calls of the job may cost."""
    position: WholeNumber = Field(default=0, ge=-MAX_INTEGER)
    """Place of the test in its run; lower places are served first."""


HttpUrl = Annotated[str, StringConstraints(pattern=r"^https?://[^\s/]+")]


class EvalSubmit(BaseModel):
    """Body of `POST /api/eval/jobs`. A seed is a row of the split `env_config["split"]`."""

    model_config = ConfigDict(extra="ignore")

    task_app_url: HttpUrl
    task_app_api_key: str | None = None
    app_id: str | None = None
    env_name: str | None = None
    seeds: list[Annotated[WholeNumber, Field(ge=0)]] = Field(min_length=1)
    policy: JsonObject = Field(default_factory=dict)
    env_config: JsonObject = Field(default_factory=dict)
    verifier_config: JsonObject | None = None
    max_concurrent: WholeNumber = Field(default=5, ge=1)
    timeout: float = Field(default=600.0, gt=0, allow_inf_nan=False)
    """Seconds for one rollout."""
    save_trace: bool = Field(default=False, strict=True)
    extensions: EvalExtensions | None = None


class EvalRow(BaseModel):
    """One rollout of an eval job: a reward (`score`, `outcome_reward`: the same number) or an `error`.

    Attributes:
        tokens: Prompt and completion tokens of all model calls; 0 when no usage was reported.
        cost_usd: US dollars; None when the price is not known.
        replayed: Model calls that a cassette answered.
        saved_usd: What they cost when they were recorded; None when that is not known.
        prompt_fingerprint: Of the prompt that ran, as the gateway saw it; None when it saw no call.
        replaced_fingerprint: Of the task app's own prompt, where another one ran in its place.
        query, answer: The last user message and the model's answer to it, shortened, as the gateway saw them.
        details: The task app's own notes (`feedback`, `expected`, `predicted`, ...).
    """

    model_config = ConfigDict(extra="allow")

    seed: int
    split: str | None = None
    sample: int = 0
    score: float | None = None
    outcome_reward: float | None = None
    tokens: int = 0
    cost_usd: float | None = None
    latency_ms: float | None = None
    error: str | None = None
    error_kind: str | None = None
    calls: int = 0
    replayed: int = 0
    saved_usd: float | None = 0.0
    correlation_id: str | None = None
    prompt_source: PromptSource | None = None
    prompt_fingerprint: str | None = None
    replaced_fingerprint: str | None = None
    query: str | None = None
    answer: str | None = None
    objectives: dict[str, float] = Field(default_factory=dict)
    details: dict[str, Any] = Field(default_factory=dict)
