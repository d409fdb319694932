from __future__ import annotations

from typing import Any

import pytest

from pytest_synth.errors import ConfigError
from pytest_synth.gates import GateRule, MetricLimit, parse_metrics


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param({"min_reward": 1.2}, "min_reward is 1.2; allowed: a number in [0, 1]", id="high"),
        pytest.param({"min_reward": -0.1}, "min_reward is -0.1; allowed: a number in [0, 1]", id="low"),
        pytest.param(
            {"rule": "median"}, "gate is 'median'; allowed: mean, lower_bound, not_worse", id="unknown rule"
        ),
        pytest.param(
            {"max_regression": 0}, "max_regression is 0; allowed: a number above 0, at most 1", id="no margin"
        ),
        pytest.param(
            {"confidence": 1.0}, "confidence is 1.0; allowed: a number between 0 and 1", id="certainty"
        ),
        pytest.param({"allow_missing": -1}, "allow_missing is -1; allowed: 0 or more seeds", id="negative"),
        pytest.param(
            {"rule": "not_worse"},
            "gate 'not_worse' needs max_regression, the margin that is still not worse",
            id="not_worse without a margin",
        ),
        pytest.param(
            {"rule": "lower_bound"},
            "gate 'lower_bound' needs min_reward, the limit that the lower bound must clear",
            id="lower_bound without a limit",
        ),
    ],
)
def test_a_rule_that_means_nothing_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        GateRule(**arguments)
    assert str(caught.value) == message


def test_metrics_are_limits_from_below_unless_they_say_otherwise() -> None:
    assert parse_metrics({"accuracy": 0.8, "latency_ms": ("<=", 900), "f1": [">=", 0.5]}) == (
        MetricLimit("accuracy", ">=", 0.8),
        MetricLimit("latency_ms", "<=", 900.0),
        MetricLimit("f1", ">=", 0.5),
    )


@pytest.mark.parametrize(
    ("value", "part"),
    [
        pytest.param({}, "metrics is {}; allowed: a mapping such as", id="empty"),
        pytest.param(0.8, "metrics is 0.8; allowed: a mapping", id="a number"),
        pytest.param({3: 0.8}, "metrics has the name 3; allowed: the name of an objective", id="name"),
        pytest.param({"a": "0.8"}, "metrics['a'] is '0.8'; allowed: a number (at least)", id="text"),
        pytest.param({"a": ("<", 1)}, "metrics['a'] is ('<', 1); allowed:", id="relation"),
        pytest.param({"a": True}, "metrics['a'] is True; allowed:", id="bool"),
        pytest.param({"a": float("nan")}, "metrics['a'] is nan; allowed:", id="nan"),
    ],
)
def test_metrics_that_cannot_be_read_are_refused(value: object, part: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_metrics(value)
    assert part in str(caught.value)
