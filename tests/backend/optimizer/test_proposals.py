"""Reading a new text out of a reflection model's answer, and judging it."""

from __future__ import annotations

import pytest

from pytest_synth.backend.optimizer.proposals import TextRules, extract_text

INNER = "Answer so:\n```json\n{}\n```\nand briefly."


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ("```\nBe kind.\n```", "Be kind."),
        ("I looked at it.\n\n```\nBe kind.\n```\nThat should do.", "Be kind."),
        ("```markdown\nBe kind.\n\nBe brief.\n```", "Be kind.\n\nBe brief."),
        (f"```\n{INNER}\n```", INNER),
        ("````\nUse:\n```\ncode\n```\n````", "Use:\n```\ncode\n```"),
        ("  ```\nBe kind.\n  ```", "Be kind."),
        ("\n<think>Maybe\n```\nBe odd.\n```\n?</think>\n```\nBe kind.\n```", "Be kind."),
    ],
    ids=["bare", "with-words", "language", "inner-code", "long-fence", "indented", "thoughts"],
)
def test_the_only_code_block_is_the_new_text(answer: str, text: str) -> None:
    assert extract_text(answer) == (text, None)


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        ("Be kind.", "it has no code block (```)"),
        ("", "it has no code block (```)"),
        ("```\nBe kind.", "its code block is not closed"),
        (
            "```\nBe kind.\n```\nor\n```\nBe brief.\n```",
            "it has 2 code blocks; the whole new text must stand in one",
        ),
    ],
    ids=["unfenced", "empty", "open", "two"],
)
def test_an_answer_that_is_not_one_block_is_refused(answer: str, problem: str) -> None:
    assert extract_text(answer) == ("", problem)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("Answer {query} with {intents}.", None),
        ("Answer {query}.", None),
        ('Answer {query} as {"intent": "x"}.', None),
        ("", "it is empty"),
        (" \n", "it is empty"),
        (" Handle {query}, {intents}. ", "it is the current text, unchanged"),
        ("Answer it.", "it lost {query}, which must stay, spelled exactly so"),
        ("Answer {Query}.", "it lost {query}, which must stay, spelled exactly so"),
        ("Answer {query} for {customer}.", "it has {customer}, which nothing fills at this place"),
        ("Answer {query}." + "!" * 100, "it has 115 characters; at most 60 are allowed"),
    ],
)
def test_a_text_is_judged_before_it_costs_a_rollout(text: str, problem: str | None) -> None:
    rules = TextRules(
        parent="Handle {query}, {intents}.",
        required=frozenset({"query"}),
        allowed=frozenset({"query", "intents"}),
        max_chars=60,
    )

    assert rules.problem_of(text) == problem
