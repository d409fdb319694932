"""Reports: from the entries of a run to text and documents. Pure functions; no pytest.

The documents are made by `report.json`, `report.markdown` and `report.html`, which are imported when a report
is asked for.
"""

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
from pytest_synth.report.optimizations import optimization_text
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
    "optimization_text",
    "prompt_line",
    "terminal_lines",
]
