"""Gates: from rewards to a verdict. Pure functions; no I/O, no pytest."""

from __future__ import annotations

from pytest_synth.contracts.rewards import NOT_RUN
from pytest_synth.gates.baselines import Baseline, Change, Comparison, Conditions, compare
from pytest_synth.gates.checks import Check, Outcome
from pytest_synth.gates.curtailment import Certainty, certain_to_fail
from pytest_synth.gates.observations import Observation, SeedOutcome, by_seed, observe
from pytest_synth.gates.rules import RULES, GateRule, MetricLimit, RuleName, parse_metrics
from pytest_synth.gates.verdicts import Verdict, judge

__all__ = [
    "NOT_RUN",
    "RULES",
    "Baseline",
    "Certainty",
    "Change",
    "Check",
    "Comparison",
    "Conditions",
    "GateRule",
    "MetricLimit",
    "Observation",
    "Outcome",
    "RuleName",
    "SeedOutcome",
    "Verdict",
    "by_seed",
    "certain_to_fail",
    "compare",
    "judge",
    "observe",
    "parse_metrics",
]
