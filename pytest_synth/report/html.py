"""The report as one HTML file that needs nothing else: no network, and no script but the one in it.

Answers, queries and reasons are hostile input. They are escaped where elements are made (`markup.py`), and
the page's policy allows exactly its own script and style by their hashes, so that even markup that slipped
through could not run or load anything.
"""

from __future__ import annotations

import hashlib
from base64 import b64encode
from functools import cache
from importlib.resources import files

from pytest_synth.report.entries import EvalEntry, RunReport, total_cost
from pytest_synth.report.html_evals import TextSizes, badge, eval_section, name_of
from pytest_synth.report.html_optimizations import optimization_section
from pytest_synth.report.markup import Markup, element, join
from pytest_synth.report.svg import gate_plot
from pytest_synth.report.text import count, dollars, one_line, skipped_text


def to_html(report: RunReport) -> str:
    """Write the report of a run."""
    title = _title(report)
    sizes = TextSizes.of(report.evals)
    sections = [
        eval_section(entry, f"eval-{n}", sizes, _first_with_prompt(report, entry))
        for n, entry in enumerate(report.evals, start=1)
    ]
    sections += [
        optimization_section(entry, f"optimisation-{n}")
        for n, entry in enumerate(report.optimizations, start=1)
    ]
    style, script = _asset("page.css"), _asset("page.js")
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=_policy(style, script)),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("meta", name="referrer", content="no-referrer"),
        element("title", f"pytest-synth: {title}"),
        element("style", Markup(style)),
    )
    body = element(
        "body",
        element("a", "Skip to the overview", href="#overview", class_="skip"),
        element("header", element("h1", title), element("p", _facts(report), class_="soft")),
        element("main", _overview(report), sections),
        element("script", Markup(script)),
    )
    return f"<!doctype html>\n{element('html', head, body, lang='en')}\n"


def _title(report: RunReport) -> str:
    n = len(report.evals) + len(report.skipped)
    if not n:
        return count(len(report.optimizations), "optimisation") if report.optimizations else "no evals"
    return f"{count(n, 'eval')}: {report.told_outcomes}"


def _facts(report: RunReport) -> str:
    parts = [
        count(sum(entry.rollouts for entry in report.evals), "rollout"),
        f"{sum(entry.tokens for entry in report.evals):,} tokens",
        f"cost {dollars(total_cost(report.evals))}",
    ]
    replayed = sum(entry.replayed for entry in report.evals)
    if replayed:
        parts.append(f"{count(replayed, 'call')} replayed")
    if report.created_at:
        parts.append(report.created_at)
    if report.package_version:
        parts.append(f"pytest-synth {report.package_version}")
    return " · ".join(parts)


def _overview(report: RunReport) -> Markup:
    if not report.evals and not report.optimizations and not report.skipped:
        return element("p", "This run had no evals.", id="overview")
    parts: list[Markup] = [element("h2", "Overview", id="overview")]
    if report.evals:
        parts += [_legend(), element("div", _gates(report), class_="scroll")]
    if report.skipped:
        names = [element("li", one_line(name, 300)) for name in report.skipped]
        told = element("summary", skipped_text(len(names)))
        parts.append(element("details", told, element("ul", names, class_="plain")))
    if report.optimizations:
        links = [
            element("li", element("a", f"Optimisation of {entry.node_id}", href=f"#optimisation-{n}"))
            for n, entry in enumerate(report.optimizations, start=1)
        ]
        parts.append(element("ul", links, class_="plain"))
    return join(parts)


def _gates(report: RunReport) -> Markup:
    heads = [
        element("th", name, scope="col", class_=class_)
        for name, class_ in (
            ("Test", None), ("Gate", None), ("Reward", "num"), ("Interval, 0 to 1", None), ("Min", "num"),
            ("Baseline", "num"), ("Seeds", "num"), ("Cost", "num"),
        )
    ]  # fmt: skip
    return element(
        "table",
        element("caption", "The gate of each eval"),
        element("thead", element("tr", heads)),
        element("tbody", [_gate_row(entry, n) for n, entry in enumerate(report.evals, start=1)]),
        class_="stack gates",
    )


def _gate_row(entry: EvalEntry, n: int) -> Markup:
    reward = entry.mean_reward
    told = "" if reward is None else f"{reward:.2f}"
    if entry.at_most is not None:
        told = f"at most {entry.at_most:.2f}"
    baseline = entry.baseline.mean if entry.baseline is not None else None
    plot = gate_plot(
        mean=reward,
        interval=entry.interval,
        threshold=entry.threshold,
        baseline=baseline,
        at_most=entry.at_most,
    )
    cells = [
        element("th", element("a", name_of(entry), href=f"#eval-{n}"), scope="row"),
        element("td", badge(entry)),
        _number("Reward", told),
        element("td", plot),
        _number("Min", "" if entry.threshold is None else f"{entry.threshold:.2f}"),
        _number("Baseline", "" if baseline is None else f"{baseline:.2f}"),
        _number("Seeds", f"{entry.seeds_done}/{entry.seeds_asked}"),
        _number("Cost", dollars(entry.cost_usd)),
    ]
    return element("tr", cells)


def _number(name: str, text: str) -> Markup:
    return element("td", text, class_="num", data_name=name)


def _legend() -> Markup:
    def mark(what: str, drawn: Markup) -> Markup:
        box = {"width": 20, "height": 14, "viewBox": "0 0 20 14", "class_": "mark", "aria_hidden": "true"}
        return element("li", element("svg", drawn, **box), " ", what)

    return element(
        "ul",
        mark("mean reward", element("circle", cx=10, cy=7, r=4, class_="mean")),
        mark("confidence interval", element("line", x1=1, y1=7, x2=19, y2=7, class_="interval")),
        mark("min_reward", element("line", x1=10, y1=0, x2=10, y2=14, class_="threshold")),
        mark("baseline", element("path", d="M10 1l5 6-5 6-5-6z", class_="baseline")),
        class_="legend",
    )


def _first_with_prompt(report: RunReport, entry: EvalEntry) -> str | None:
    """Id of the first eval with the same prompt, if that is an earlier one: a prompt is shown once."""
    for n, other in enumerate(report.evals, start=1):
        if other is entry:
            return None
        if other.prompt == entry.prompt:
            return f"eval-{n}"
    return None


def _policy(style: str, script: str) -> str:
    return (
        f"default-src 'none'; style-src {_hash(style)}; script-src {_hash(script)}; "
        "base-uri 'none'; form-action 'none'"
    )


def _hash(text: str) -> str:
    return f"'sha256-{b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


@cache
def _asset(name: str) -> str:
    return files("pytest_synth.report").joinpath(name).read_text(encoding="utf-8")
