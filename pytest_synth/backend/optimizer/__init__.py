"""Search for better prompts by GEPA: reflective evolution, within a budget of rollouts.

A library inside the backend. It knows neither HTTP nor SQLite: the host gives it rollouts, a reflection
model, a ledger and a listener (`ports.Host`).
"""

from pytest_synth.backend.optimizer.config import GepaConfig, PipelineConfig, ReflectionConfig, TaskConfig
from pytest_synth.backend.optimizer.engine import Engine, GepaEngine
from pytest_synth.backend.optimizer.feedback import inputs_of
from pytest_synth.backend.optimizer.fields import GepaConfigError
from pytest_synth.backend.optimizer.outcome import (
    Attempt,
    CandidateResult,
    HeldOut,
    OptimizationOutcome,
    Usage,
)
from pytest_synth.backend.optimizer.parsing import parse_gepa_config
from pytest_synth.backend.optimizer.plan import Plan, make_plan
from pytest_synth.backend.optimizer.ports import (
    Host,
    Ledger,
    MemoryLedger,
    ReflectionAnswer,
    ReflectionFailed,
    ReflectionKey,
    ReflectionRequest,
    Reflector,
    RolloutKey,
    RolloutOutcome,
    RolloutRequest,
    Rollouts,
)

__all__ = [
    "Attempt",
    "CandidateResult",
    "Engine",
    "GepaConfig",
    "GepaConfigError",
    "GepaEngine",
    "HeldOut",
    "Host",
    "Ledger",
    "MemoryLedger",
    "OptimizationOutcome",
    "PipelineConfig",
    "Plan",
    "ReflectionAnswer",
    "ReflectionConfig",
    "ReflectionFailed",
    "ReflectionKey",
    "ReflectionRequest",
    "Reflector",
    "RolloutKey",
    "RolloutOutcome",
    "RolloutRequest",
    "Rollouts",
    "TaskConfig",
    "Usage",
    "inputs_of",
    "make_plan",
    "parse_gepa_config",
]
