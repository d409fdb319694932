"""The section of one eval in the HTML report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import quantiles

from pytest_synth.contracts.evals import EvalRow, PromptMessage
from pytest_synth.report.diff import Piece, prompt_diff
from pytest_synth.report.entries import EvalEntry, ModelCall
from pytest_synth.report.markup import Markup, element, join
from pytest_synth.report.seeds import (
    Key,
    SeedRows,
    answer_of,
    missing_examples,
    missing_seeds,
    reason_of,
    reward_of,
    seeds_of,
    told_in_full,
    worst_seeds,
)
from pytest_synth.report.svg import histogram, number
from pytest_synth.report.terminal import SOURCES
from pytest_synth.report.text import count, dollars, one_line, rate, seed_list

_SEEDS_IN_FULL = {"passed": 5, "measured": 5, "failed": 50, "incomplete": 50}
_REASONS_SHOWN = 20
_TOTAL_IN_TABLES = 200_000  # characters of queries, answers and expectations in all tables
_TOTAL_IN_FULL = 150_000  # characters of what is told of single seeds, with their model calls
_CELL_CHARS = 160  # of a cell, at most
_TEXT_CHARS = 8_000  # of a text that is told of a single seed, at most


@dataclass(frozen=True)
class TextSizes:
    """How many characters foreign texts may have, so that 30 evals of 50 seeds stay below 1 MB.

    Attributes:
        cell: Of one cell in a table of seeds.
        text: Of one text that is told of a single seed.
    """

    cell: int
    text: int

    @classmethod
    def of(cls, evals: Sequence[EvalEntry]) -> TextSizes:
        """Cut the longest texts of a run until all fit."""
        cells: list[int] = []
        texts: list[int] = []
        for entry in evals:
            cells += [len(text) for seed in seeds_of(entry.rows) for text in _cells(seed)]
            calls = _calls_by_rollout(entry)
            for seed in told_in_full(entry, _SEEDS_IN_FULL[entry.outcome]):
                texts += [len(text) for text in _texts(seed).values()]
                for call in calls.get(_rollout(seed.lowest), ()):
                    texts += [len(text) for _, text in _call_texts(call, entry.prompt or ())]
        return cls(
            cell=min(_CELL_CHARS, fair_share(cells, _TOTAL_IN_TABLES)),
            text=min(_TEXT_CHARS, fair_share(texts, _TOTAL_IN_FULL)),
        )


def fair_share(lengths: Sequence[int], room: int) -> int:
    """To how many characters texts must be cut to fit together; short ones leave their share to long ones."""
    left = room
    for place, length in enumerate(sorted(lengths)):
        others = len(lengths) - place
        if length * others > left:
            return max(left // others, 40)
        left -= length
    return room


def badge(entry: EvalEntry) -> Markup:
    return element("span", entry.told_outcome, class_=f"badge {_look(entry)}")


def _look(entry: EvalEntry) -> str:
    return "expected" if entry.expected_failure else entry.outcome


def name_of(entry: EvalEntry) -> str:
    return one_line(entry.node_id, 300)


def eval_section(entry: EvalEntry, id_: str, sizes: TextSizes, same_prompt_in: str | None) -> Markup:
    """Everything about one eval: verdict, facts, distributions, lowest seeds, all seeds, prompt.

    Args:
        same_prompt_in: Id of an earlier section that shows the same prompt.
    """
    return element(
        "section",
        element("h2", name_of(entry), " ", badge(entry), id=id_),
        element("p", one_line(entry.gate_text, 2000), class_=f"verdict {_look(entry)}"),
        element("ul", [element("li", one_line(line, 500)) for line in entry.gate_details], class_="plain")
        if entry.gate_details
        else None,
        _facts(entry),
        _figures(entry),
        _missing(entry, sizes),
        _lowest(entry, sizes),
        _table(entry, sizes),
        _prompt(entry, same_prompt_in),
        class_="eval",
        aria_labelledby=id_,
    )


def diff_markup(pieces: Sequence[Piece]) -> Markup:
    """Show a diff as one text with insertions and deletions."""
    names = {"added": "ins", "removed": "del"}
    parts = [
        element(names[piece.kind], piece.text) if piece.kind in names else join([piece.text])
        for piece in pieces
    ]
    return element("pre", parts)


def facts_list(facts: dict[str, str]) -> Markup:
    items = [element("div", element("dt", name), element("dd", value)) for name, value in facts.items()]
    return element("dl", items, class_="facts")


def _facts(entry: EvalEntry) -> Markup:
    per_s = rate(entry.rollouts_per_s)
    source = SOURCES.get(entry.prompt_source, "unknown")
    facts = {
        "Model": one_line(entry.model or "unknown", 100),
        "Prompt": f"{source}, {entry.prompt_fingerprint or 'fingerprint unknown'}",
        "Seeds": f"{entry.seeds_done} of {entry.seeds_asked}",
        "Rollouts": f"{entry.rollouts:,} in {entry.duration_s:.1f} s ({per_s}/s)",
        "Tokens": f"{entry.tokens:,}",
        "Cost": dollars(entry.cost_usd),
    }
    if entry.replayed:
        facts["Replayed"] = f"{count(entry.replayed, 'call')}, saved {dollars(entry.saved_usd)}"
    return facts_list(facts)


def _figures(entry: EvalEntry) -> Markup | None:
    rewards = [s.reward for s in seeds_of(entry.rows) if s.reward is not None]
    latencies = [row.latency_ms for row in entry.rows if row.latency_ms is not None]
    costs = [row.cost_usd for row in entry.rows if row.cost_usd]
    figures: list[Markup] = []
    if rewards:
        figures.append(_figure(rewards, 0.0, 1.0, "", "Reward by seed", "Rewards"))
    if latencies:
        figures.append(_figure(latencies, 0.0, max(latencies), " ms", "Latency by rollout", "Latency"))
    if costs:
        figures.append(_figure(costs, 0.0, max(costs), " USD", "Cost by rollout", "Cost"))
    return element("div", figures, class_="figures") if figures else None


def _figure(values: list[float], low: float, high: float, unit: str, title: str, name: str) -> Markup:
    chart = histogram(values, low=low, high=high, unit=unit, title=title)
    told = f"{name}: median {number(quantiles(values, n=2)[0])}{unit}" if len(values) > 1 else name
    if len(values) > 1 and unit:
        told += f", 95% below {number(quantiles(values, n=20, method='inclusive')[-1])}{unit}"
    return element("figure", element("figcaption", told), chart)


def _missing(entry: EvalEntry, sizes: TextSizes) -> Markup | None:
    groups = list(missing_seeds(entry.rows).items())
    if not groups:
        return None
    items = [
        element("li", f"{seed_list(s.seed for s in seeds)}: {one_line(reason, 500)}")
        for reason, seeds in groups[:_REASONS_SHOWN]
    ]
    if len(groups) > _REASONS_SHOWN:
        items.append(element("li", f"and {count(len(groups) - _REASONS_SHOWN, 'other reason')}"))
    calls = _calls_by_rollout(entry)
    told = [
        element(
            "details",
            element("summary", f"seed {seed.name}, no reward", _about(seed.lowest)),
            _exchange(seed, entry.prompt or (), calls.get(_rollout(seed.lowest), ()), sizes.text),
            class_="seed",
        )
        for seed in missing_examples(entry)
        if seed.lowest.query or _rollout(seed.lowest) in calls
    ]
    return join([element("h3", "Seeds without a reward"), element("ul", items, class_="plain"), *told])


def _about(row: EvalRow) -> Markup | None:
    return element("span", f": {one_line(row.query, 100)}", class_="soft") if row.query else None


def _lowest(entry: EvalEntry, sizes: TextSizes) -> Markup | None:
    below = worst_seeds(entry, len(entry.rows))
    shown = below[: _SEEDS_IN_FULL[entry.outcome]]
    if not shown:
        return None
    newly = {(c.split, c.seed) for c in entry.baseline.newly_failing} if entry.baseline is not None else set()
    calls = _calls_by_rollout(entry)
    parts: list[Markup] = [element("h3", "Lowest rewards")]
    for seed in shown:
        row = seed.lowest
        head = [f"seed {seed.name}, reward {seed.reward:.2f}"]
        if seed.key in newly:
            head.append(", newly failing")
        told = _exchange(seed, entry.prompt or (), calls.get(_rollout(row), ()), sizes.text)
        parts.append(element("details", element("summary", *head, _about(row)), told, class_="seed"))
    if len(below) > len(shown):
        left = count(len(below) - len(shown), "more seed")
        parts.append(element("p", f"{left} below 1 in the table of all seeds.", class_="soft"))
    return join(parts)


def _exchange(
    seed: SeedRows, prompt: Sequence[PromptMessage], calls: Sequence[ModelCall], chars: int
) -> Markup:
    items = [
        join([element("dt", name), element("dd", _cut(text, chars))]) for name, text in _texts(seed).items()
    ]
    told = [_call(call, n, len(calls), prompt, chars) for n, call in enumerate(calls, start=1)]
    return join([element("dl", items, class_="exchange"), told])


def _texts(seed: SeedRows) -> dict[str, str]:
    """What is told of a single seed, by name."""
    row = seed.lowest
    told = {
        "Why": None if reward_of(row) is not None else reason_of(row),
        "Query": row.query,
        "Answer": answer_of(row),
        "Expected": row.details.get("expected"),
        "Feedback": row.details.get("feedback"),
    }
    if len(seed.rows) > 1:
        rewards = [reward_of(r) for r in seed.rows]
        told["Rewards of the samples"] = ", ".join("none" if r is None else f"{r:.2f}" for r in rewards)
    return {name: str(value) for name, value in told.items() if value not in (None, "")}


def _rollout(row: EvalRow) -> tuple[str | None, int, int]:
    return (row.split, row.seed, row.sample)


def _calls_by_rollout(entry: EvalEntry) -> dict[tuple[str | None, int, int], tuple[ModelCall, ...]]:
    return {(c.split, c.seed, c.sample): c.calls for c in entry.calls}


def _call_texts(call: ModelCall, prompt: Sequence[PromptMessage]) -> list[tuple[str, str]]:
    """Role and text of each message and of the answer; a message of the prompt is not shown again."""
    known = {(message.role, message.pattern) for message in prompt}
    texts = [
        (m.role, "(the message of the prompt, unchanged)" if (m.role, m.pattern) in known else m.pattern)
        for m in call.messages
    ]
    if call.error or call.answer:
        texts.append(("error", call.error) if call.error else ("answer", call.answer or ""))
    return texts


def _call(call: ModelCall, n: int, total: int, prompt: Sequence[PromptMessage], chars: int) -> Markup:
    parts = [
        join([element("dt", role), element("dd", _cut(text, chars))])
        for role, text in _call_texts(call, prompt)
    ]
    facts = [f"model call {n} of {total}", call.model or "", count(call.tokens, "token")]
    if call.latency_ms is not None:
        facts.append(f"{number(call.latency_ms)} ms")
    facts.append("replayed" if call.replayed else dollars(call.cost_usd) if call.cost_usd else "")
    return element(
        "details",
        element("summary", ", ".join(fact for fact in facts if fact)),
        element("dl", parts, class_="exchange"),
        class_="call",
    )


def _table(entry: EvalEntry, sizes: TextSizes) -> Markup | None:
    seeds = seeds_of(entry.rows)
    if not seeds:
        return None
    changes = {}
    if entry.baseline is not None:
        changed = (*entry.baseline.drops, *entry.baseline.newly_fixed)
        changes = {(c.split, c.seed): c.before for c in changed}
    newly = {(c.split, c.seed) for c in entry.baseline.newly_failing} if entry.baseline is not None else set()
    names = ["Seed", "Reward", *(["Was"] if changes else []), "Query", "Answer", "Expected", "Latency, ms"]
    splits = {seed.split for seed in seeds}
    kinds = [("", "all"), ("below", "reward below 1"), ("missing", "no reward")]
    if newly:
        kinds.append(("newly", "newly failing"))
    controls = element(
        "div",
        element("label", "Text ", element("input", type="search")),
        element("label", "Show ", element("select", [element("option", t, value=v) for v, t in kinds])),
        element("output", ""),
        class_="controls",
        hidden=True,
    )
    rows = [_seed_row(seed, changes, seed.key in newly, sizes.cell, len(splits) > 1) for seed in seeds]
    of_split = f", split {splits.pop()}" if len(splits) == 1 and None not in splits else ""
    table = element(
        "table",
        element("caption", f"Seeds of {name_of(entry)}{of_split}"),
        element("thead", element("tr", [element("th", name, scope="col") for name in names])),
        element("tbody", rows),
        class_="stack seeds was" if changes else "stack seeds",
    )
    return element(
        "details",
        element("summary", f"All {count(len(seeds), 'seed')}"),
        controls,
        element("div", table, class_="scroll"),
    )


def _seed_row(seed: SeedRows, changes: dict[Key, float], newly: bool, room: int, with_split: bool) -> Markup:
    reward = seed.reward
    classes = ["missing"] if reward is None else []
    if reward is not None and reward < 1:
        classes += ["below", "low"] if reward < 0.5 else ["below"]
    if newly:
        classes.append("newly")
    latencies = [r.latency_ms for r in seed.rows if r.latency_ms is not None]
    was = changes.get(seed.key)
    query, answer, expected = (one_line(text, room) for text in _cells(seed))
    cells = [
        element("th", seed.name if with_split else seed.seed, scope="row"),
        element("td", "none" if reward is None else f"{reward:.2f}"),
    ]
    if changes:
        cells.append(element("td", "" if was is None else f"{was:.2f}"))
    cells += [
        element("td", query),
        element("td", answer),
        element("td", expected),
        element("td", f"{sum(latencies) / len(latencies):.0f}" if latencies else ""),
    ]
    return element("tr", cells, class_=" ".join(classes) or None)


def _cells(seed: SeedRows) -> tuple[str, str, str]:
    """Query, answer (or why there is no reward) and expectation of a seed, each at most one cell long."""
    row = seed.lowest
    answer = answer_of(row) if seed.reason is None else f"no reward: {seed.reason}"
    texts = (row.query, answer, row.details.get("expected"))
    query, told, expected = ("" if text is None else one_line(text, _CELL_CHARS) for text in texts)
    return query, told, expected


def _prompt(entry: EvalEntry, same_in: str | None) -> Markup | None:
    parts: list[Markup] = []
    ran = entry.prompt
    if ran is not None and entry.code_prompt is not None and entry.code_prompt != ran:
        parts += _diff("Stored snapshot against the code's prompt", "the code", entry.code_prompt, ran)
    elif ran is not None and entry.stored_prompt is not None and entry.stored_prompt != ran:
        parts += _diff("Prompt against the stored snapshot", "the snapshot", entry.stored_prompt, ran)
    elif entry.prompt is not None and same_in is not None:
        parts.append(element("p", element("a", "The same prompt as above", href=f"#{same_in}")))
    elif entry.prompt is not None:
        messages = [
            join([element("p", message.role, class_="soft"), element("pre", message.pattern)])
            for message in entry.prompt
        ]
        parts.append(element("details", element("summary", "Prompt"), messages))
    return join(parts) if parts else None


def _diff(title: str, where: str, old: Sequence[PromptMessage], new: Sequence[PromptMessage]) -> list[Markup]:
    key = element(
        "p", element("del", f"only in {where}"), " ", element("ins", "only in the prompt under test")
    )
    shown = [
        join([element("p", role, class_="soft"), diff_markup(pieces)])
        for role, pieces in prompt_diff(old, new)
    ]
    return [element("h3", title), key, *shown]


def _cut(value: object, chars: int) -> str:
    text = str(value)
    return text if len(text) <= chars else f"{text[:chars]}… +{len(text) - chars:,} characters"
