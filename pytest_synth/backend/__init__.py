"""The embedded backend: the Synth HTTP API on this machine. Only what is named here is public."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pytest_synth.backend.running import BackendSettings, RunningBackend, start

__all__ = ["BackendSettings", "RunningBackend", "start"]


def __getattr__(name: str) -> Any:  # lazy (PEP 562): naming the package must not load the server
    if name not in __all__:
        raise AttributeError(f"module 'pytest_synth.backend' has no attribute {name!r}")
    value = getattr(import_module("pytest_synth.backend.running"), name)
    globals()[name] = value
    return value
