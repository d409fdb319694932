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
    from pytest_synth.client.transport import StdlibTransport

_HOMES = {
    "EvalJob": "eval_job",
    "EvalJobConfig": "evals",
    "EvalResult": "evals",
    "StdlibTransport": "transport",
    "SynthClient": "api",
    "Timing": "driver",
}

__all__ = ["EvalJob", "EvalJobConfig", "EvalResult", "StdlibTransport", "SynthClient", "Timing"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'pytest_synth.client' has no attribute {name!r}")
    value = getattr(import_module(f"pytest_synth.client.{_HOMES[name]}"), name)
    globals()[name] = value
    return value
