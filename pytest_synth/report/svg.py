"""Charts as inline SVG, drawn ahead: no script, no font, no style of their own.

A module of our own and not a library: one interval plot takes about 0.5 kB here, against 5.6 kB (altair with
vl-convert), 9.7 kB (matplotlib) and 15 kB (pygal, which also loads a script from its site), so that 30 evals
with four charts each would fill the megabyte that a report may have with charts alone; the packages would add
95, 136 and 2 MB to an install. Colours are classes, so that one style sheet serves light, dark and print.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, floor

from pytest_synth.report.entries import Candidate
from pytest_synth.report.markup import Markup, element

_GATE_WIDTH, _GATE_HEIGHT = 200, 24
_PAD = 6  # room for marks at both ends of an axis


def gate_plot(
    *,
    mean: float | None,
    interval: tuple[float, float] | None,
    threshold: float | None,
    baseline: float | None = None,
    at_most: float | None = None,
) -> Markup:
    """Draw the interval of a mean reward against its threshold and its baseline, on [0, 1]."""
    middle = _GATE_HEIGHT / 2
    told: list[str] = []
    marks: list[Markup] = [_line(_PAD, middle, _GATE_WIDTH - _PAD, middle, "axis")]
    if interval is not None:
        marks.append(_line(_reward_x(interval[0]), middle, _reward_x(interval[1]), middle, "interval"))
    if threshold is not None:
        x = _reward_x(threshold)
        marks.append(_line(x, 3, x, _GATE_HEIGHT - 3, "threshold"))
        told.append(f"min_reward {threshold:.2f}")
    if baseline is not None:
        x = _reward_x(baseline)
        marks.append(element("path", d=f"M{x:.1f} 5l5 7-5 7-5-7z", class_="baseline"))
        told.append(f"baseline {baseline:.2f}")
    if mean is not None:
        marks.append(element("circle", cx=f"{_reward_x(mean):.1f}", cy=f"{middle:g}", r=4, class_="mean"))
        told.insert(0, f"mean reward {mean:.2f}")
    if at_most is not None:
        x = _reward_x(at_most)
        marks.append(_line(_PAD, middle, x, middle, "possible"))
        told.insert(0, f"mean reward at most {at_most:.2f}")
    if interval is not None:
        told.insert(1, f"interval {interval[0]:.2f} to {interval[1]:.2f}")
    return _svg(_GATE_WIDTH, _GATE_HEIGHT, ", ".join(told) or "no mean reward", marks, "gate")


def histogram(
    values: Sequence[float], *, low: float, high: float, unit: str, title: str, bins: int = 20
) -> Markup:
    """Draw how often values fall into equal parts of [low, high]; the last part holds `high`.

    Args:
        unit: Put after the numbers of the axis, such as ` ms`.
        title: What is counted; read out, and shown above.
    """
    width, height, base = 260, 96, 78
    counts = [0] * bins
    span = (high - low) or 1.0
    for value in values:
        counts[max(0, min(int((value - low) / span * bins), bins - 1))] += 1
    most = max(counts) or 1
    step = (width - 2 * _PAD) / bins
    bars = [
        element(
            "rect",
            x=f"{_PAD + n * step + 0.5:.1f}",
            y=f"{base - count / most * (base - 16):.1f}",
            width=f"{step - 1:.1f}",
            height=f"{count / most * (base - 16):.1f}",
            class_="bar",
        )
        for n, count in enumerate(counts)
        if count
    ]
    text = f"{title}: {len(values)} values from {number(min(values))}{unit} to {number(max(values))}{unit}"
    labels = [
        _text(_PAD, 12, f"most in one bar: {most}", "start"),
        _text(_PAD, height - 4, f"{number(low)}{unit}", "start"),
        _text(width - _PAD, height - 4, f"{number(high)}{unit}", "end"),
    ]
    return _svg(width, height, text, [_line(_PAD, base, width - _PAD, base, "axis"), *bars, *labels], "chart")


def reward_curve(candidates: Sequence[Candidate], best: str, budget: int) -> Markup:
    """Draw the reward of each candidate over the rollouts used, and the best one so far as a step line."""
    width, height, left, bottom = 520, 200, 34, 176
    scored = [(c.rollouts, c.reward, c) for c in candidates if c.reward is not None]
    rewards = [reward for _, reward, _ in scored] or [0.0, 1.0]
    low, high = floor(min(rewards) * 10) / 10, ceil(max(rewards) * 10) / 10
    if low == high:
        low, high = max(0.0, low - 0.1), min(1.0, high + 0.1)
    end = max([budget, 1, *(rollouts for rollouts, _, _ in scored)])

    def x(rollouts: int) -> float:
        return left + rollouts / end * (width - left - 10)

    def y(reward: float) -> float:
        return bottom - (reward - low) / (high - low) * (bottom - 14)

    marks = [
        _line(left, y(reward), width - 10, y(reward), class_)
        for reward, class_ in ((low, "axis"), (high, "grid"))
    ]
    marks += [
        _text(left - 6, y(low) + 4, f"{low:.1f}", "end"),
        _text(left - 6, y(high) + 4, f"{high:.1f}", "end"),
        _text(left, height - 6, "0 rollouts", "start"),
        _text(width - 10, height - 6, f"{end:,}", "end"),
    ]
    path, so_far = "", -1.0
    for rollouts, reward, candidate in scored:
        if candidate.accepted and reward > so_far:
            here = (f"{x(rollouts):.1f}", f"{y(reward):.1f}")
            path += "H{}V{}".format(*here) if path else "M{} {}".format(*here)
            so_far = reward
    if path:
        marks.append(element("path", d=f"{path}H{x(scored[-1][0]):.1f}", class_="best-line"))
    for rollouts, reward, candidate in scored:
        kind = "best" if candidate.id == best else "accepted" if candidate.accepted else "rejected"
        where = {"cx": f"{x(rollouts):.1f}", "cy": f"{y(reward):.1f}"}
        about = element("title", f"{candidate.id}: {reward:.2f} after {rollouts} rollouts, {kind}")
        marks.append(element("circle", about, r=5 if kind == "best" else 3.5, class_=kind, **where))
    text = f"reward of {len(scored)} candidates over {end} rollouts; the best has {max(rewards):.2f}"
    return _svg(width, height, text, marks, "curve")


def number(value: float) -> str:
    """A number for an axis: no more digits than help."""
    if value == 0 or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def _reward_x(reward: float) -> float:
    return _PAD + reward * (_GATE_WIDTH - 2 * _PAD)


def _svg(width: int, height: int, text: str, marks: Sequence[Markup], class_: str) -> Markup:
    return element(
        "svg",
        element("title", text),
        list(marks),
        viewBox=f"0 0 {width} {height}",
        width=width,
        height=height,
        role="img",
        class_=class_,
    )


def _line(x1: float, y1: float, x2: float, y2: float, class_: str) -> Markup:
    return element("line", x1=f"{x1:.4g}", y1=f"{y1:.4g}", x2=f"{x2:.4g}", y2=f"{y2:.4g}", class_=class_)


def _text(x: float, y: float, text: str, anchor: str) -> Markup:
    return element("text", text, x=f"{x:g}", y=f"{y:g}", text_anchor=anchor)
