from __future__ import annotations

import re

import pytest
from fakes.reports import optimization

from pytest_synth.report.svg import gate_plot, histogram, number, reward_curve


def test_gate_plot_puts_marks_where_the_numbers_are_and_reads_them_out() -> None:
    plot = gate_plot(mean=0.5, interval=(0.25, 0.75), threshold=1.0, baseline=0.0)
    assert "<title>mean reward 0.50, interval 0.25 to 0.75, min_reward 1.00, baseline 0.00</title>" in plot
    assert '<circle cx="100.0" cy="12"' in plot
    assert '<line x1="53" y1="12" x2="147" y2="12" class="interval"/>' in plot
    assert '<line x1="194" y1="3" x2="194" y2="21" class="threshold"/>' in plot
    assert 'd="M6.0 5' in plot


def test_gate_plot_without_numbers_says_so() -> None:
    assert "<title>no mean reward</title>" in gate_plot(mean=None, interval=None, threshold=None)


def test_histogram_counts_every_value_and_scales_to_the_fullest_bar() -> None:
    chart = histogram([0.0, 0.0, 0.0, 0.04, 1.0], low=0.0, high=1.0, unit="", title="Rewards")
    heights = [float(height) for height in re.findall(r'height="([\d.]+)" class="bar"', chart)]
    assert heights == [62.0, 15.5]
    assert "<title>Rewards: 5 values from 0 to 1</title>" in chart
    assert "most in one bar: 4" in chart


def test_histogram_of_equal_values_is_one_bar() -> None:
    assert histogram([5.0, 5.0], low=5.0, high=5.0, unit=" ms", title="x").count('class="bar"') == 1


def test_reward_curve_shows_scored_candidates_and_the_best_so_far() -> None:
    made = optimization()
    curve = reward_curve(made.candidates, made.best, made.budget)
    assert re.findall(r'class="(best|accepted|rejected)"', curve) == [
        "accepted", "accepted", "best",
    ]  # fmt: skip
    assert "<title>c3: 0.80 after 62 rollouts, best</title>" in curve
    (path,) = re.findall(r'<path d="([^"]*)" class="best-line"', curve)
    assert path.count("V") == 2


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (1234.4, "1,234"), (99.96, "100"), (0.0002615, "0.000262"), (3.0, "3")]
)
def test_numbers_of_an_axis_have_no_more_digits_than_help(value: float, text: str) -> None:
    assert number(value) == text
