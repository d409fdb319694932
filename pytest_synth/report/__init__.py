"""Reports: from the entries of a run to text and documents. Pure functions; no pytest."""

from __future__ import annotations

from pytest_synth.report.entries import (
    BaselineEntry,
    Candidate,
    EvalEntry,
    MetricLimit,
    ModelCall,
    OptimizationEntry,
    RolloutCalls,
    Rule,
    RunReport,
    SeedChange,
)
from pytest_synth.report.terminal import failure_text, prompt_line, terminal_lines

__all__ = [
    "BaselineEntry",
    "Candidate",
    "EvalEntry",
    "MetricLimit",
    "ModelCall",
    "OptimizationEntry",
    "RolloutCalls",
    "Rule",
    "RunReport",
    "SeedChange",
    "failure_text",
    "prompt_line",
    "terminal_lines",
]
