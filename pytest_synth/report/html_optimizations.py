"""The section of one optimisation in the HTML report."""

from __future__ import annotations

from itertools import pairwise

from pytest_synth.report.diff import prompt_diff, shorten
from pytest_synth.report.entries import Candidate, OptimizationEntry
from pytest_synth.report.html_evals import diff_markup, facts_list
from pytest_synth.report.markup import Markup, element, join
from pytest_synth.report.optimizations import held_out_text, reward_text
from pytest_synth.report.svg import reward_curve
from pytest_synth.report.text import count, dollars, one_line


def optimization_section(entry: OptimizationEntry, id_: str) -> Markup:
    """Result on held-out seeds, reward over rollouts, and how the best prompt came about."""
    return element(
        "section",
        element("h2", f"Optimisation of {entry.node_id}", id=id_),
        element("p", held_out_text(entry), class_="verdict"),
        element("p", one_line(entry.decision, 2000)) if entry.decision else None,
        facts_list(
            {
                "Rollouts": f"{entry.rollouts:,} of {entry.budget:,}",
                "New prompts": _proposed(entry),
                "Cost": dollars(entry.cost_usd),
                "Ended": entry.finish_reason,
            }
        ),
        element(
            "figure",
            element(
                "figcaption",
                "Reward on the search's own seeds over rollouts. The line is the best so far; filled dots "
                "were accepted, hollow ones rejected.",
            ),
            reward_curve(entry.candidates, entry.best, entry.budget),
        ),
        _lineage(entry),
        _candidates(entry),
        element("p", f"Settings without effect: {', '.join(entry.not_applied)}", class_="soft")
        if entry.not_applied
        else None,
        class_="eval",
        aria_labelledby=id_,
    )


def _proposed(entry: OptimizationEntry) -> str:
    new = entry.candidates[1:]  # the first is the baseline
    return f"{len(new)} proposed, {sum(candidate.accepted for candidate in new)} accepted"


def _lineage(entry: OptimizationEntry) -> Markup | None:
    line = entry.lineage()
    if len(line) < 2:
        return None
    items = [element("li", f"{line[0].id} (baseline): {reward_text(line[0])}")]
    for parent, child in pairwise(line):
        diff = None
        if parent.prompt is not None and child.prompt is not None:
            diff = [
                join([element("p", role, class_="soft"), diff_markup(shorten(pieces))])
                for role, pieces in prompt_diff(parent.prompt, child.prompt)
                if any(piece.kind != "same" for piece in pieces)
            ]
        items.append(element("li", f"{child.id}: {reward_text(child)}, generation {child.generation}", diff))
    return join([element("h3", "Lineage of the best prompt"), element("ol", items)])


def _candidates(entry: OptimizationEntry) -> Markup:
    names = ("Candidate", "Reward", "Rollouts", "Generation", "Parents", "Decision")
    numbers = ("Reward", "Rollouts", "Generation")
    heads = [element("th", n, scope="col", class_="num" if n in numbers else None) for n in names]
    rows = [
        element(
            "tr",
            element("th", candidate.id, scope="row"),
            element("td", reward_text(candidate), class_="num", data_name="Reward"),
            element("td", f"{candidate.rollouts:,}", class_="num", data_name="Rollouts"),
            element("td", candidate.generation, class_="num", data_name="Generation"),
            element("td", ", ".join(candidate.parents), data_name="Parents"),
            element("td", _decision(candidate, entry.best)),
        )
        for candidate in entry.candidates
    ]
    table = element(
        "table",
        element("caption", f"Candidates of {entry.node_id}"),
        element("thead", element("tr", heads)),
        element("tbody", rows),
        class_="stack",
    )
    return element(
        "details",
        element("summary", f"All {count(len(entry.candidates), 'candidate')}"),
        element("div", table, class_="scroll"),
    )


def _decision(candidate: Candidate, best: str) -> str:
    if candidate.id == best:
        return "best"
    return "accepted" if candidate.accepted else "rejected"
