"""Prompt quality as a pytest test.

The public names; each is imported when it is first used (PEP 562), so that `import pytest_synth` costs
next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pytest_synth.client import (
        EvalJob,
        EvalJobConfig,
        EvalResult,
        JobsClient,
        PromptLearningClient,
        PromptLearningJob,
        SynthClient,
        mint_demo_api_key,
        mint_environment_api_key,
        setup_environment_api_key,
    )
    from pytest_synth.contracts.rollouts import RolloutMetrics, RolloutRequest, RolloutResponse, TaskInfo
    from pytest_synth.evals.optimization_results import OptimizationResult
    from pytest_synth.localapi import LocalAPIConfig, create_local_api, task_app
    from pytest_synth.plugin.gate import GateFailed, GateIncomplete
    from pytest_synth.prompts import Prompt, load_prompt
    from pytest_synth.tunnels import TunnelBackend, TunneledLocalAPI

_HOMES = {
    "EvalJob": "pytest_synth.client",
    "EvalJobConfig": "pytest_synth.client",
    "EvalResult": "pytest_synth.client",
    "JobsClient": "pytest_synth.client",
    "PromptLearningClient": "pytest_synth.client",
    "PromptLearningJob": "pytest_synth.client",
    "SynthClient": "pytest_synth.client",
    "mint_demo_api_key": "pytest_synth.client",
    "mint_environment_api_key": "pytest_synth.client",
    "setup_environment_api_key": "pytest_synth.client",
    "LocalAPIConfig": "pytest_synth.localapi",
    "create_local_api": "pytest_synth.localapi",
    "task_app": "pytest_synth.localapi",
    "RolloutMetrics": "pytest_synth.contracts.rollouts",
    "RolloutRequest": "pytest_synth.contracts.rollouts",
    "RolloutResponse": "pytest_synth.contracts.rollouts",
    "TaskInfo": "pytest_synth.contracts.rollouts",
    "GateFailed": "pytest_synth.plugin.gate",
    "GateIncomplete": "pytest_synth.plugin.gate",
    "OptimizationResult": "pytest_synth.evals.optimization_results",
    "Prompt": "pytest_synth.prompts",
    "load_prompt": "pytest_synth.prompts",
    "TunnelBackend": "pytest_synth.tunnels",
    "TunneledLocalAPI": "pytest_synth.tunnels",
}

__all__ = [
    "EvalJob",
    "EvalJobConfig",
    "EvalResult",
    "JobsClient",
    "PromptLearningClient",
    "PromptLearningJob",
    "SynthClient",
    "mint_demo_api_key",
    "mint_environment_api_key",
    "setup_environment_api_key",
    "LocalAPIConfig",
    "create_local_api",
    "task_app",
    "RolloutMetrics",
    "RolloutRequest",
    "RolloutResponse",
    "TaskInfo",
    "GateFailed",
    "GateIncomplete",
    "OptimizationResult",
    "Prompt",
    "load_prompt",
    "TunnelBackend",
    "TunneledLocalAPI",
]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'pytest_synth' has no attribute {name!r}")
    value = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
