"""Stored prompts: any text comes back as it was, and a damaged file is refused with its line."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from pytest_synth import load_prompt
from pytest_synth.errors import ConfigError
from pytest_synth.prompt_files import PromptRecord
from pytest_synth.prompts import Message, Prompt, StoredPrompt, load_stored_prompt

RECORD = PromptRecord(
    reward=0.859375,
    interval=(0.2157, 0.6118),
    baseline_reward=0.4375,
    n=64,
    model="offline/lexical",
    seeds="test 0-63",
    candidate="c7",
    parent="c3",
    baseline_fingerprint="3f9c2a1b0d4e",
)
PROMPT = Prompt((Message("system", "Sort the messages.\n- refund: money back\n"), Message("user", "{query}")))
TEXT = """\
---
format: pytest-synth prompt 1
reward: 0.859375
interval: [0.2157, 0.6118]
baseline_reward: 0.4375
n: 64
model: offline/lexical
seeds: test 0-63
candidate: c7
parent: c3
baseline_fingerprint: 3f9c2a1b0d4e
---
=== system ===
Sort the messages.
- refund: money back

=== user ===
{query}
=== end ===
"""


def system(text: str) -> Prompt:
    return Prompt((Message("system", text),))


def test_a_stored_prompt_is_readable() -> None:
    assert StoredPrompt(PROMPT, RECORD).to_text() == TEXT


def test_prompt_and_record_come_back() -> None:
    assert StoredPrompt.from_text(TEXT) == StoredPrompt(PROMPT, RECORD)


def test_a_prompt_without_a_record_comes_back() -> None:
    assert StoredPrompt.from_text(StoredPrompt(PROMPT).to_text()) == StoredPrompt(PROMPT)


@pytest.mark.parametrize(
    "text",
    [
        "no line break at the end",
        "one\n",
        "three\n\n\n",
        "\n\nbefore",
        "windows\r\nlines\r\n",
        "a return\rin a line\r",
        "=== system ===",
        "=== end ===\n=== user ===\n=== end ===\r\nmore",
        "\\=== system ===\n\\\\=== end ===",
        "=== tool ===\n=== system === \n == system ==",
        "---\nreward: 1\n---\n",
        "---\nformat: pytest-synth prompt 1\n---\n=== system ===\nx\n=== end ===\n",
        "<<<<<<< HEAD\na\n=======\nb\n>>>>>>> branch\n||||||| base",
        "Über 77 Absichten → 你好 \U0001f600 e\u0301",
        "\x00 \x0b \x0c \x1b \x85 \u2028 \u2029 \ufeff",
        "trailing spaces   \n\ttabs\t",
    ],
)
def test_any_text_comes_back_as_it_was(text: str, tmp_path: Path) -> None:
    stored = StoredPrompt(Prompt((Message("system", text), Message("assistant", text))), RECORD)
    file = tmp_path / "a.prompt"
    file.write_bytes(stored.to_text().encode())
    assert load_stored_prompt(file) == stored
    assert load_prompt(file) == stored.prompt


MARKS = ["=== system ===", "=== user ===", "=== end ===", "---", "\\", "<<<<<<< ", "=======", "\n", "\r", "x"]


def test_texts_made_of_our_own_marks_come_back() -> None:
    chance = random.Random(7)
    for _ in range(2000):
        texts = ["".join(chance.choices(MARKS, k=chance.randint(1, 9))) for _ in range(3)]
        stored = StoredPrompt(Prompt(tuple(Message("user", text + "x") for text in texts)), RECORD)
        assert StoredPrompt.from_text(stored.to_text()) == stored


def test_one_changed_word_is_one_changed_line() -> None:
    other = Prompt(
        (Message("system", "Sort the messages.\n- refund: cash back\n"), Message("user", "{query}"))
    )
    before, after = TEXT.splitlines(), StoredPrompt(other, RECORD).to_text().splitlines()
    assert [line for line in after if line not in before] == ["- refund: cash back"]
    assert len(before) == len(after)


def test_a_checkout_with_windows_line_ends_is_read() -> None:
    assert StoredPrompt.from_text(TEXT.replace("\n", "\r\n")) == StoredPrompt(PROMPT, RECORD)


def test_keys_of_other_versions_are_left_out() -> None:
    newer = TEXT.replace("n: 64\n", "n: 64\ncolour: red\n")
    assert StoredPrompt.from_text(newer) == StoredPrompt(PROMPT, RECORD)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("prompt 1", "prompt 2", "line 2 is 'format: pytest-synth prompt 2'; this version reads"),
        ("n: 64", "n: many", "n is 'many', not a number"),
        ("n: 64", "n: 64\nn: 65", "line 7 gives n a second time"),
        ("[0.2157, 0.6118]", "0.2", "interval is '0.2', not two numbers in brackets"),
        ("n: 64", "<<<<<<< HEAD", "line 6 is '<<<<<<< HEAD', not 'name: value'"),
        ("- refund: money back", "<<<<<<< HEAD", "line 15 is '<<<<<<< HEAD': a conflict of a merge is not"),
        ("- refund: money back", "=======", "line 15 is '=======': a conflict of a merge is not resolved"),
        ("=== system ===\n", "", "line 13 is 'Sort the messages.', not a heading such as '=== system ==='"),
        ("=== end ===\n", "", "the last line is not '=== end ==='; the file has been cut"),
        ("=== end ===\n", "=== end ===\nmore\n", "there is text after '=== end ==='"),
        ("{query}\n", "\n", "messages[1].pattern is '', not a text"),
        (TEXT[TEXT.index("=== system") :], "=== end ===\n", "there is no message"),
    ],
)
def test_a_damaged_file_is_refused_and_never_read_as_plain_text(
    old: str, new: str, words: str, tmp_path: Path
) -> None:
    file = tmp_path / "a.prompt"
    file.write_text(TEXT.replace(old, new, 1), encoding="utf-8", newline="\n")
    with pytest.raises(ConfigError) as caught:
        load_prompt(file)
    assert str(caught.value).startswith(f"the stored prompt {str(file)!r} cannot be read: {words}")


def test_a_file_without_a_second_fence_is_refused() -> None:
    with pytest.raises(ConfigError, match="there is no second line '---'"):
        StoredPrompt.from_text("---\nformat: pytest-synth prompt 1\nreward: 1\n")


def test_a_plain_file_is_no_stored_prompt(tmp_path: Path) -> None:
    file = tmp_path / "a.prompt"
    file.write_text("Sort.\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"line 1 is 'Sort\.', not the beginning of a stored prompt"):
        load_stored_prompt(file)


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        (Prompt((Message("tool", "x"),)), "role is 'tool'; allowed: system, developer, user, assistant"),
        (system(" \n"), "is ' \\n', not a text"),
        (system("half \ud83d"), "a prompt with '\\ud83d' cannot be stored: half of a surrogate pair"),
        (Prompt(()), "a prompt must have at least one message"),
    ],
)
def test_what_could_not_be_read_again_is_not_written(prompt: Prompt, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        StoredPrompt(prompt).to_text()
    assert words in str(caught.value)


def test_a_record_with_a_line_break_is_not_written() -> None:
    with pytest.raises(ConfigError, match=r"model is 'a\\nb'; a line break in it cannot be stored"):
        StoredPrompt(PROMPT, PromptRecord(model="a\nb")).to_text()


def test_a_byte_order_mark_of_a_windows_editor_is_no_part_of_the_prompt(tmp_path: Path) -> None:
    """Before a stored prompt's first fence it would make the whole file the prompt."""
    plain, stored = tmp_path / "plain.md", tmp_path / "stored.prompt"
    plain.write_bytes(b"\xef\xbb\xbfBe brief.")
    stored.write_bytes(b"\xef\xbb\xbf" + StoredPrompt(Prompt.parse("Be kind.")).to_text().encode())
    assert load_prompt(plain) == Prompt.parse("Be brief.")
    assert load_prompt(stored) == Prompt.parse("Be kind.")


def test_plain_text_files_are_the_system_message(tmp_path: Path) -> None:
    file = tmp_path / "support.md"
    file.write_bytes(b"---\ntitle: mine\n---\nSort.\r\n")
    assert load_prompt(file) == system("---\ntitle: mine\n---\nSort.\n")


@pytest.mark.parametrize(
    ("content", "words"),
    [(None, "cannot read the prompt file"), (b" \n", "is empty"), (b"\xff", "is not UTF-8")],
)
def test_files_that_hold_no_prompt_are_named(content: bytes | None, words: str, tmp_path: Path) -> None:
    file = tmp_path / "a.md"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        load_prompt(file)
    assert words in str(caught.value)
    assert repr(str(file)) in str(caught.value)
