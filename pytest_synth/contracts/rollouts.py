"""The task app's side of the wire: rollout request and response, description of a task instance.

Names and fields are those of the published SDK (synth-ai 0.7.0, `sdk.localapi`), so that a task app
changes its import line only.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

# Values whose shape belongs to the user: configurations, traces, details.
JsonObject = dict[str, Any]


class _Wire(BaseModel):
    """Unknown keys are ignored: newer backends may send more."""

    model_config = ConfigDict(extra="ignore", populate_by_name=True)


class _Open(BaseModel):
    """Unknown keys are kept: the task app may say more about itself."""

    model_config = ConfigDict(extra="allow", populate_by_name=True)


class RolloutEnvSpec(_Wire):
    env_id: str | None = None
    env_name: str | None = None
    config: JsonObject = Field(default_factory=dict)
    seed: int | None = None


class StructuredOutputConfig(_Wire):
    schema_: JsonObject = Field(alias="schema")
    schema_name: str = "response"
    strict: bool = True


class RolloutPolicySpec(_Wire):
    policy_id: str | None = None
    policy_name: str | None = None
    config: JsonObject = Field(default_factory=dict)
    output_mode: Literal["tool_calls", "text", "structured"] = "tool_calls"
    structured_config: StructuredOutputConfig | None = None


class RolloutSafetyConfig(_Wire):
    max_time_s: float = 3600.0


class ContextOverride(_Wire):
    file_artifacts: dict[str, str] = Field(default_factory=dict)
    preflight_script: str | None = None
    env_vars: dict[str, str] = Field(default_factory=dict)
    mutation_type: str | None = None
    override_id: str | None = None


class RolloutRequest(_Wire):
    """One rollout that the backend asks for.

    `policy.config` holds `model`, `provider` and `inference_url`, the base URL for the model calls of
    this rollout; `env.seed` is the row of the split named by `env.config["split"]`.
    """

    trace_correlation_id: str = Field(min_length=1)
    env: RolloutEnvSpec
    policy: RolloutPolicySpec
    on_done: str = "reset"
    safety: RolloutSafetyConfig = Field(default_factory=RolloutSafetyConfig)
    training_session_id: str | None = None
    synth_base_url: str | None = None
    override_bundle_id: str | None = None
    context_overrides: list[ContextOverride] | None = None


class RolloutMetrics(_Wire):
    """What a rollout earned.

    `outcome_reward` lies in [0, 1]; a value outside, or one that is not finite, is no reward.
    `details` is the best place for `feedback`, `expected` and `predicted`: reports show them and the
    optimiser learns from them.
    """

    outcome_reward: float
    event_rewards: list[float] | None = None
    outcome_objectives: dict[str, float] | None = None
    event_objectives: list[dict[str, float]] | None = None
    instance_objectives: list[dict[str, float]] | None = None
    details: JsonObject = Field(default_factory=dict)


class RolloutResponse(_Wire):
    trace_correlation_id: str
    reward_info: RolloutMetrics
    trace: JsonObject | None = None
    inference_url: str | None = None
    artifact: list[JsonObject] | None = None
    success_status: (
        Literal["success", "timeout", "network_error", "apply_failed", "runtime_error", "failure"] | None
    ) = None
    status_detail: str | None = None
    override_application_results: list[JsonObject] | None = None


class TaskDescriptor(_Open):
    id: str
    name: str
    description: str | None = None
    version: str | None = None


class DatasetInfo(_Open):
    id: str | None = None
    name: str | None = None
    version: str | None = None
    splits: list[str] | None = None
    default_split: str | None = None
    description: str | None = None


class InferenceInfo(_Open):
    model: str | None = None
    inference_url: str | None = None


class LimitsInfo(_Open):
    max_turns: int | None = None
    max_response_tokens: int | None = None
    timeout_seconds: float | None = None


class TaskInfo(_Open):
    """Description of one task instance (one seed)."""

    task: TaskDescriptor
    dataset: DatasetInfo
    inference: InferenceInfo
    limits: LimitsInfo
    environment: str | None = None
    task_metadata: JsonObject = Field(default_factory=dict)
