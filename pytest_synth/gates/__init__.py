"""Gates: from rewards to a verdict. Pure functions; no I/O, no pytest."""

from __future__ import annotations

from pytest_synth.gates.observations import NOT_RUN, Observation, SeedOutcome, by_seed, observe
from pytest_synth.gates.rules import RULES, GateRule, MetricLimit, RuleName, parse_metrics
from pytest_synth.gates.verdicts import Check, Outcome, Verdict, judge

__all__ = [
    "NOT_RUN",
    "RULES",
    "Check",
    "GateRule",
    "MetricLimit",
    "Observation",
    "Outcome",
    "RuleName",
    "SeedOutcome",
    "Verdict",
    "by_seed",
    "judge",
    "observe",
    "parse_metrics",
]
