"""Client of the Synth HTTP API, for the embedded backend and the hosted service alike.

The names are imported when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pytest_synth.client.api import SynthClient
    from pytest_synth.client.driver import Timing
    from pytest_synth.client.eval_job import EvalJob
    from pytest_synth.client.evals import EvalJobConfig, EvalResult
    from pytest_synth.client.jobs_client import JobsClient
    from pytest_synth.client.keys import (
        mint_demo_api_key,
        mint_environment_api_key,
        setup_environment_api_key,
    )
    from pytest_synth.client.prompt_client import PromptLearningClient
    from pytest_synth.client.prompt_config import PromptLearningJobConfig
    from pytest_synth.client.prompt_job import PromptLearningJob
    from pytest_synth.client.prompt_results import PromptLearningResult, PromptResults
    from pytest_synth.client.transport import StdlibTransport

_HOMES = {
    "EvalJob": "eval_job",
    "EvalJobConfig": "evals",
    "EvalResult": "evals",
    "JobsClient": "jobs_client",
    "PromptLearningClient": "prompt_client",
    "PromptLearningJob": "prompt_job",
    "PromptLearningJobConfig": "prompt_config",
    "PromptLearningResult": "prompt_results",
    "PromptResults": "prompt_results",
    "StdlibTransport": "transport",
    "SynthClient": "api",
    "Timing": "driver",
    "mint_demo_api_key": "keys",
    "mint_environment_api_key": "keys",
    "setup_environment_api_key": "keys",
}

__all__ = [
    "EvalJob",
    "EvalJobConfig",
    "EvalResult",
    "JobsClient",
    "PromptLearningClient",
    "PromptLearningJob",
    "PromptLearningJobConfig",
    "PromptLearningResult",
    "PromptResults",
    "StdlibTransport",
    "SynthClient",
    "Timing",
    "mint_demo_api_key",
    "mint_environment_api_key",
    "setup_environment_api_key",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'pytest_synth.client' has no attribute {name!r}")
    value = getattr(import_module(f"pytest_synth.client.{_HOMES[name]}"), name)
    globals()[name] = value
    return value
