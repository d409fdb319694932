from __future__ import annotations

import random

from fakes.reports import optimization, prompt_of

from pytest_synth.contracts.evals import PromptMessage
from pytest_synth.report.diff import Piece, prompt_diff, shorten, word_diff
from pytest_synth.report.optimizations import optimization_text


def test_words_that_changed_are_told_from_those_that_did_not() -> None:
    assert word_diff("Name the intent.\nBe brief.", "Name the topic.\nBe brief.\nBe exact.") == [
        Piece("same", "Name the"),
        Piece("removed", " intent."),
        Piece("added", " topic."),
        Piece("same", "\nBe brief."),
        Piece("added", "\nBe exact."),
    ]


def test_both_texts_can_be_put_together_again() -> None:
    source = random.Random(2)
    for _ in range(200):
        old, new = ("".join(source.choices("ab \n\tä", k=source.randint(0, 40))) for _ in range(2))
        pieces = word_diff(old, new)
        assert "".join(p.text for p in pieces if p.kind != "added") == old
        assert "".join(p.text for p in pieces if p.kind != "removed") == new


def test_very_long_prompts_are_compared_by_line() -> None:
    old = "\n".join(f"line {n} with words" for n in range(4000))
    pieces = word_diff(old, old.replace("line 7 with", "line 7 without"))
    assert Piece("removed", "line 7 with words\n") in pieces


def test_messages_are_paired_by_place_and_a_new_one_is_all_added() -> None:
    old, new = prompt_of("a"), (*prompt_of("a"), PromptMessage(role="user", pattern="q"))
    assert prompt_diff(old, new) == [("system", [Piece("same", "a")]), ("user", [Piece("added", "q")])]
    developer = (PromptMessage(role="developer", pattern="a"),)
    assert prompt_diff(old, developer)[0][0] == "system → developer"


def test_a_line_break_at_the_end_is_told_only_where_nothing_else_has_changed() -> None:
    assert prompt_diff(prompt_of("- a\n- b\n"), prompt_of("- a\n- b: c")) == [
        ("system", [Piece("same", "- a\n-"), Piece("removed", " b"), Piece("added", " b: c")])
    ]
    assert prompt_diff(prompt_of("a\n"), prompt_of("a")) == [
        ("system", [Piece("same", "a"), Piece("removed", "\n")])
    ]


def test_long_stretches_of_the_same_are_left_out_but_for_the_words_near_a_change() -> None:
    same = "w" + " word" * 100
    short = shorten([Piece("same", same), Piece("added", " new"), Piece("same", same)], around=12)
    assert short == [Piece("same", "… word word"), Piece("added", " new"), Piece("same", "w word word …")]


def test_the_result_of_an_optimisation_as_text() -> None:
    assert optimization_text(optimization()).splitlines() == [
        "held-out reward 0.50 -> 0.75 on 10 seeds, difference +0.25 (interval +0.05 to +0.42)",
        "76 of 80 rollouts; budget used",
        "not applied: archive.size",
        "lineage, with rewards on the search's own seeds: c0 0.50 -> c1 0.60 -> c3 0.80",
        "system:",
        "  Name the{+ message's+} intent.{+ Be brief.+}",
    ]


def test_a_lineage_that_bites_its_tail_ends() -> None:
    entry = optimization()
    broken = entry.candidates[0].model_copy(update={"parents": ("c3",)})
    looped = entry.model_copy(update={"candidates": (broken, *entry.candidates[1:])})
    assert [c.id for c in looped.lineage()] == ["c0", "c1", "c3"]
