from __future__ import annotations

import re

from fakes.entries import replace, row
from fakes.reports import whole_run

from pytest_synth.report import EvalEntry, RunReport
from pytest_synth.report.markdown import code, to_markdown

HOSTILE = (
    "<script>x</script> | ![i](http://evil.example/i.png) `c` </code> www.evil.example @you $x$ \\ a\n# b"
)


def test_a_small_run_as_markdown() -> None:
    rows = (
        row(7, 0.0, split="test", query="Where is it?", answer="lost", details={"expected": "arrival"}),
        row(8, None, error="no answer within 30 s"),
    )
    bad = EvalEntry(
        node_id="test_a.py::test_b", outcome="failed", gate_text="gate failed", gate_details=("a detail",),
        mean_reward=0.5, interval=(0.25, 0.75), threshold=0.8, seeds_asked=2, seeds_done=1, rollouts=2,
        tokens=1200, cost_usd=0.5, model="m", rows=rows,
    )  # fmt: skip
    good = replace(
        bad, node_id="good", outcome="passed", mean_reward=1.0, interval=None, threshold=None, rows=()
    )
    assert to_markdown(RunReport(evals=(good, bad))).splitlines() == [
        "### pytest-synth: 1 passed, 1 failed",
        "",
        "| eval | gate | reward | min | seeds | cost |",
        "| :--- | :--- | ---: | ---: | ---: | ---: |",
        "| <code>good</code> | ✅ passed | 1.00 |  | 1/2 | $0.5000 |",
        r"| <code>test\_a\.py\:\:test\_b</code> | ❌ failed | 0.50 (0.25 to 0.75) | 0.80 | 1/2 | $0.5000 |",
        "",
        "4 rollouts; 2,400 tokens; cost $1.00",
        "",
        "<details><summary>❌ <code>test_a.py::test_b</code></summary>",
        "",
        "<code>gate failed</code>",
        "",
        "- <code>a detail</code>",
        "",
        "| seed | reward | query | answer | expected | feedback |",
        "| :--- | ---: | :--- | :--- | :--- | :--- |",
        r"| test\/7 | 0.00 | <code>Where is it\?</code> | <code>lost</code> | <code>arrival</code> |  |",
        "",
        "- no reward, seed 8: <code>no answer within 30 s</code>",
        "",
        r"<code>prompt\: unknown\, fingerprint unknown \(no model call was seen\)\; model\: m</code>",
        "",
        "</details>",
    ]


def test_foreign_text_cannot_leave_its_code_element() -> None:
    made = code(HOSTILE, 1000)
    inner = made.removeprefix("<code>").removesuffix("</code>")
    rest = re.sub(r"\\[!-/:-@\[-`{-~]|&(amp|lt|gt|quot|#124);", "", inner)
    assert re.fullmatch(r"[\w ]*", rest), rest
    assert "\n" not in inner


def test_a_hostile_run_has_as_many_lines_cells_and_elements_as_a_clean_one() -> None:
    def shape(text: str) -> list[tuple[int, int]]:
        lines = to_markdown(whole_run(text=text)).splitlines()
        return [(line.count("<"), line.count("|") if line.startswith("|") else 0) for line in lines]

    assert shape(HOSTILE) == shape("x")


def test_a_large_run_stays_far_below_the_limit_of_a_step_summary() -> None:
    text = to_markdown(whole_run(evals=600, seeds=10, text="<" * 200))
    assert len(text.encode()) < 1_000_000
    assert "100 more evals not shown." in text
    assert "350 more evals did not pass." in text


def test_unknown_costs_are_said_to_be_unknown_and_replays_are_told() -> None:
    (entry,) = whole_run(evals=1).evals
    text = to_markdown(RunReport(evals=(replace(entry, cost_usd=None, replayed=3),)))
    assert "cost unknown; replayed 3 calls" in text


def test_a_run_without_evals_says_so() -> None:
    assert to_markdown(RunReport()) == "### pytest-synth: no evals\n"


def test_an_expected_failure_is_marked_as_such_and_not_told_among_the_failures() -> None:
    entry = EvalEntry(node_id="a", outcome="failed", gate_text="gate failed", expected_failure=True)
    text = to_markdown(RunReport(evals=(entry, replace(entry, outcome="measured", expected_failure=False))))
    assert "| ☑️ failed (expected) |" in text
    assert "| 📏 measured |" in text
    assert "<details>" not in text
