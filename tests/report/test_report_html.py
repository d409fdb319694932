from __future__ import annotations

import hashlib
import re
from base64 import b64encode
from html.parser import HTMLParser
from itertools import pairwise

import pytest
from fakes.entries import replace
from fakes.reports import whole_run

from pytest_synth.report import EvalEntry, RunReport
from pytest_synth.report.html import to_html

HOSTILE = (
    "</td></table></details><script>alert(1)</script><img src=x onerror=alert(1)>"
    '" onmouseover="alert(1)" \'x\' <!-- ]]> </style><style>*{display:none}</style>\x00\x1b[31m\u202e&lt;'
)
EMPTY = {"meta", "input"}


class Page(HTMLParser):
    """A page taken apart: elements with their attributes, and the text inside of each kind."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert not self._open, f"elements that are not closed: {self._open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in EMPTY:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag, f"</{tag}> closes another element"

    def handle_data(self, data: str) -> None:
        if self._open:
            self.texts.append((self._open[-1], data))

    def all(self, *tags: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.elements if tag in tags]

    def text_of(self, tag: str) -> str:
        return "".join(data for where, data in self.texts if where == tag)


def test_hostile_text_makes_no_element_and_no_attribute() -> None:
    clean, hostile = Page(to_html(whole_run())), Page(to_html(whole_run(text=HOSTILE)))
    assert {tag for tag, _ in hostile.elements} == {tag for tag, _ in clean.elements}
    assert len(hostile.all("script")) == len(hostile.all("style")) == 1
    names = {name for _, attributes in hostile.elements for name in attributes}
    assert names == {name for _, attributes in clean.elements for name in attributes}
    assert not [name for name in names if name.startswith("on")]


def test_hostile_text_is_shown_as_it_is_with_control_characters_as_escapes() -> None:
    page = to_html(whole_run(text=HOSTILE))
    assert "<script>alert(1)</script>" in "".join(text for _, text in Page(page).texts)
    assert r"\x00\x1b[31m\u202e" in page
    assert not set(page) & set("\x00\x1b\u202e")


def test_the_page_loads_nothing_and_allows_only_its_own_script_and_style() -> None:
    text = to_html(whole_run(text=HOSTILE))
    page = Page(text)
    links = [
        v for _, attributes in page.elements for k, v in attributes.items() if k in ("href", "src", "action")
    ]
    assert links
    assert all(link is not None and link.startswith("#") for link in links)
    assert "url(" not in page.text_of("style")
    (policy,) = (a["content"] for a in page.all("meta") if a.get("http-equiv") == "Content-Security-Policy")
    for tag in ("script", "style"):
        (body,) = re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        digest = b64encode(hashlib.sha256(body.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in str(policy)
    assert str(policy).startswith("default-src 'none'; ")


def test_links_of_the_overview_lead_to_sections() -> None:
    page = Page(to_html(whole_run()))
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    targets = {str(a["href"])[1:] for a in page.all("a")}
    assert targets == set(ids)
    assert page.text_of("a").count("The same prompt as above") == 1


def test_headings_tables_controls_and_pictures_can_be_read_out() -> None:
    page = Page(to_html(whole_run()))
    assert page.all("html") == [{"lang": "en"}]
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    assert len(page.all("caption")) == len(page.all("table"))
    assert all(attributes.get("scope") in ("col", "row") for attributes in page.all("th"))
    pictures = [a for a in page.all("svg") if a.get("aria-hidden") != "true"]
    assert all(a.get("role") == "img" for a in pictures)
    assert len(page.all("title")) >= 1 + len(pictures)  # the page's own, and one in each picture
    tags = [tag for tag, _ in page.elements]
    inside_labels = [tags[n - 1] for n, tag in enumerate(tags) if tag in ("input", "select")]
    assert inside_labels
    assert set(inside_labels) == {"label"}
    assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in page.all("meta")


def test_verdict_numbers_and_failing_seeds_are_all_there() -> None:
    page = to_html(whole_run())
    assert "<h1>3 evals: 1 passed, 1 failed, 1 incomplete</h1>" in page
    text = "\n".join(text for _, text in Page(page).texts)
    for told in (
        "gate 1", "newly failing", "3f9c2a81d0aa", "task app answered 500", "is thin", '{"intent": "',
        "(the message of the prompt, unchanged)", "only in the snapshot", "Lineage of the best prompt",
        "3 proposed, 2 accepted",
        "held-out reward 0.50 -> 0.75 on 10 seeds, difference +0.25 (interval +0.05 to +0.42)",
        "mean reward 0.83, interval 0.73 to 0.93, min_reward 0.80, baseline 1.00",
    ):  # fmt: skip
        assert told in text, told


def test_seeds_without_a_reward_and_decisions_on_prompts_are_told() -> None:
    run = whole_run()
    incomplete = run.evals[2]
    lost = tuple(row.model_copy(update={"query": "Where is <it>?"}) for row in incomplete.rows if row.error)
    decided = run.optimizations[0].model_copy(update={"decision": "better: 0.50 -> 0.75 on 10 eval seeds"})
    page = to_html(RunReport(evals=(replace(incomplete, rows=lost),), optimizations=(decided,)))
    summary = '<summary>seed test/101, no reward<span class="soft">: Where is &lt;it&gt;?</span></summary>'
    assert summary in page
    assert "<dt>Why</dt><dd>task app answered 500 </dd>" in page
    assert "<p>better: 0.50 -&gt; 0.75 on 10 eval seeds</p>" in page


def test_every_seed_has_its_row() -> None:
    page = to_html(whole_run(evals=1, seeds=50))
    (table,) = re.findall(r'<table class="stack seeds">.*?</table>', page, re.DOTALL)
    assert re.findall(r'<th scope="row">(\d+)</th>', table) == [str(seed) for seed in range(100, 150)]


@pytest.mark.parametrize("text", ["", "long " * 400], ids=["usual", "long texts"])
def test_thirty_evals_of_fifty_seeds_stay_below_a_megabyte(text: str) -> None:
    assert len(to_html(whole_run(evals=30, seeds=50, text=text)).encode()) < 1_000_000


def test_an_eval_ended_early_shows_the_most_that_was_possible() -> None:
    (entry,) = whole_run(evals=1).evals
    early = replace(entry, outcome="failed", mean_reward=None, interval=None, at_most=0.71)
    assert "mean reward at most 0.71, min_reward 0.80" in to_html(RunReport(evals=(early,)))


def test_a_run_without_evals_says_so() -> None:
    assert "This run had no evals." in to_html(RunReport())


def luminance(color: str) -> float:
    """Relative luminance of `#rrggbb` (WCAG 2.2)."""
    parts = [int(color[n : n + 2], 16) / 255 for n in (1, 3, 5)]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
@pytest.mark.parametrize(
    ("text", "background"),
    [
        ("fg", "bg"), ("soft", "bg"), ("link", "bg"), ("fg", "raised"), ("failed", "bg"),
        ("passed", "passed-bg"), ("failed", "failed-bg"), ("incomplete", "incomplete-bg"),
        ("fg", "added"), ("fg", "removed"),
    ],
)  # fmt: skip
def test_text_has_the_contrast_that_wcag_aa_asks_for(scheme: int, text: str, background: str) -> None:
    style = Page(to_html(RunReport())).text_of("style")
    colors = [
        dict(re.findall(r"--([\w-]+): (#\w{6})", block))
        for block in re.findall(r":root \{(.*?)\}", style, re.S)
    ]
    assert contrast(colors[scheme][text], colors[scheme][background]) >= 4.5


def test_an_expected_failure_has_a_look_of_its_own() -> None:
    entry = EvalEntry(node_id="a", outcome="failed", gate_text="gate failed", expected_failure=True)
    page = to_html(RunReport(evals=(entry,)))
    assert '<span class="badge expected">failed (expected)</span>' in page
    assert "badge failed" not in page.split("<body>")[1]
