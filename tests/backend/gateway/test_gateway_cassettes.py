"""The file of a cassette: what is in it, how it is read, written and repaired."""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import threading
from pathlib import Path
from typing import Any

import pytest

from pytest_synth.backend.gateway.cassette import Cassette, CassetteError, _locked
from pytest_synth.backend.gateway.entries import (
    SHARED,
    Entry,
    Identity,
    map_texts,
    read_entry,
    redactor,
    request_of,
    write_entry,
)

LONG = "Classify the customer's query. " * 20
RESPONSE = {"choices": [{"index": 0, "message": {"role": "assistant", "content": "refunds"}}]}


def identity(
    query: str = "where is my money", *, system: str = LONG, sample: int = 0, **more: Any
) -> Identity:
    messages = [{"role": "system", "content": system}, {"role": "user", "content": query}]
    return Identity("chat/completions", "openai", "m-1", {"messages": messages, **more}, sample)


def entry(query: str = "where is my money", **more: Any) -> Entry:
    return Entry(identity(query, **more), RESPONSE, 412.34, 0.0001)


def saved(path: Path, *entries: Entry) -> Path:
    cassette = Cassette(path, path.name)
    for each in entries:
        cassette.add(each)
    cassette.snapshot().write()
    return path


def test_the_key_does_not_depend_on_the_order_of_fields() -> None:
    one = Identity("chat/completions", "p", "m", {"a": 1, "b": {"c": 2, "d": 3}}, 0)
    other = Identity("chat/completions", "p", "m", {"b": {"d": 3, "c": 2}, "a": 1}, 0)
    assert one.key == other.key


@pytest.mark.parametrize(
    "other",
    [
        identity("another query"),
        identity(system=LONG + "!"),
        identity(sample=1),
        identity(temperature=1),
        identity(tools=[{"type": "function"}]),
        identity(response_format={"type": "json_object"}),
        Identity("responses", "openai", "m-1", identity().request, 0),
        Identity("chat/completions", "groq", "m-1", identity().request, 0),
        Identity("chat/completions", "openai", "m-2", identity().request, 0),
        Identity("chat/completions", "openai", "m-1", identity().request, 0, repeat=1),
    ],
)
def test_the_key_tells_calls_apart(other: Identity) -> None:
    assert other.key != identity().key


def test_what_does_not_change_an_answer_is_not_in_the_request() -> None:
    body = {
        "model": "m", "stream": True, "stream_options": {}, "user": "u", "metadata": {"run": "7"},
        "temperature": 0.0, "top_p": 0.5, "n": None, "messages": [],
    }  # fmt: skip
    assert request_of(body, None) == {"temperature": 0, "top_p": 0.5, "messages": []}


def test_an_image_stands_as_its_hash() -> None:
    url = "data:image/png;base64," + "QUJD" * 100
    body = {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}]}
    text = json.dumps(request_of(body, None))
    assert "data:image/png;base64,sha256:" in text
    assert "QUJD" not in text
    assert body["messages"][0]["content"][0]["image_url"]["url"] == url  # type: ignore[index]


def test_patterns_and_secrets_are_blotted_out_of_requests_and_answers() -> None:
    redact = redactor([re.compile(r"\b\d{16}\b")], ["sk-secret-1234"])
    assert redact is not None
    body = {"messages": [{"role": "user", "content": "card 1234567812345678, key sk-secret-1234"}]}
    assert request_of(body, redact)["messages"][0]["content"] == "card [redacted], key [redacted]"
    assert map_texts({"a": ["sk-secret-1234"]}, redact) == {"a": ["[redacted]"]}


def test_an_entry_is_read_as_it_was_written() -> None:
    line, parts = write_entry(entry(temperature=0.5))
    assert read_entry(line, parts) == Entry(identity(temperature=0.5), RESPONSE, 412.3, 0.0001)


def test_a_request_that_looks_like_a_shared_part_is_no_such_part() -> None:
    odd = Identity("chat/completions", "p", "m", {"x": {"$part": "0" * 16}, "messages": [{"$part": "a"}]}, 0)
    line, parts = write_entry(Entry(odd, {}, 1.0, None))
    assert read_entry(line, parts).identity == odd


def test_a_text_that_calls_share_stands_once(tmp_path: Path) -> None:
    path = saved(tmp_path / "c.jsonl", *(entry(f"query {number}") for number in range(50)))
    text = path.read_text("utf-8")
    assert len(LONG) > SHARED
    assert text.count(LONG) == 1
    assert text.count("query 7") == 1
    lines = text.splitlines()
    assert lines[0] == '{"cassette": 1}'
    assert len(lines) == 52
    assert all(json.loads(line) for line in lines)


def test_entries_are_found_again_and_the_rest_is_unused(tmp_path: Path) -> None:
    path = saved(tmp_path / "c.jsonl", entry("one"), entry("two"))
    cassette = Cassette(path, "c")
    found = cassette.find(identity("one").key)
    assert found is not None
    assert (found.response, found.latency_ms, found.cost_usd) == (RESPONSE, 412.3, 0.0001)
    assert cassette.find(identity("three").key) is None
    assert cassette.unused == [identity("two").key]


def test_the_same_entries_make_the_same_file_in_any_order(tmp_path: Path) -> None:
    entries = [entry(f"query {number}", sample=sample) for number in range(9) for sample in range(2)]
    one = saved(tmp_path / "a.jsonl", *entries).read_bytes()
    assert saved(tmp_path / "b.jsonl", *reversed(entries)).read_bytes() == one


def test_another_prompt_changes_each_line_in_its_place(tmp_path: Path) -> None:
    """A diff shows the prompt once, and each call beside the one that it replaces."""
    queries = [f"query {number}" for number in range(20)]
    old = saved(tmp_path / "a.jsonl", *(entry(query) for query in queries)).read_text("utf-8").splitlines()
    new = saved(tmp_path / "b.jsonl", *(entry(query, system=f"{LONG} Be terse.") for query in queries))
    lines = new.read_text("utf-8").splitlines()
    assert [re.findall("query [0-9]+", line) for line in lines] == [
        re.findall("query [0-9]+", line) for line in old
    ]


def test_what_others_have_written_meanwhile_stays(tmp_path: Path) -> None:
    path = saved(tmp_path / "c.jsonl", entry("first"))
    mine = Cassette(path, "c")
    saved(path, entry("theirs"))
    mine.add(entry("mine"))
    mine.snapshot().write()
    queries = {each.identity.request["messages"][1]["content"] for each in Cassette(path, "c").entries()}
    assert queries == {"first", "theirs", "mine"}


def test_dropped_entries_are_gone_from_the_file(tmp_path: Path) -> None:
    path = saved(tmp_path / "c.jsonl", entry("old", system="old " * 100), entry("kept"))
    cassette = Cassette(path, "c")
    cassette.find(identity("kept").key)
    assert cassette.drop_unused() == 1
    cassette.snapshot().write(drop_others=True)
    assert "old old" not in path.read_text("utf-8")
    assert len(Cassette(path, "c")) == 1


def _write_some(path: Path, first: int) -> None:
    for number in range(first, first + 10):
        saved(path, entry(f"query {number}"))


def test_several_processes_write_one_cassette(tmp_path: Path) -> None:
    path = tmp_path / "cassettes" / "c.jsonl"
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_write_some, args=(path, 10 * number)) for number in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert len(Cassette(path, "c")) == 30
    assert [each.name for each in path.parent.iterdir()] == ["c.jsonl"]  # neither locks nor halves


@pytest.mark.skipif(os.name != "posix", reason="locks of folders and modes of files are POSIX")
def test_a_writer_waits_for_the_one_before_it(tmp_path: Path) -> None:
    path = saved(tmp_path / "c.jsonl", entry("one"))
    writer = threading.Thread(target=saved, args=(path, entry("two")))
    with _locked(tmp_path):
        writer.start()
        writer.join(0.1)
        assert writer.is_alive()
        assert len(Cassette(path, "c")) == 1
    writer.join(10)
    assert len(Cassette(path, "c")) == 2


@pytest.mark.skipif(os.name != "posix", reason="locks of folders and modes of files are POSIX")
def test_a_cassette_can_be_read_by_others(tmp_path: Path) -> None:
    assert saved(tmp_path / "c.jsonl", entry()).stat().st_mode & 0o777 == 0o644


def test_a_file_that_cannot_be_replaced_is_an_error_with_its_name_and_leaves_no_half(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved(tmp_path / "c.jsonl", entry("one"))
    before = path.read_bytes()
    cassette = Cassette(path, "c")
    cassette.add(entry("two"))

    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(CassetteError) as failed:
        cassette.snapshot().write()
    assert str(failed.value) == f"cannot write the cassette {path}: No space left on device"
    assert path.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == ["c.jsonl"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("hello\n", 'is no cassette: its first line is not {"cassette": 1}; restore the file, or {anew}'),
        ('{"cassette": 2}\n', "has format 2, this version reads 1; restore the file, or {anew}"),
        (
            '{"cassette": 1}\n<<<<<<< HEAD\n',
            "line 2: '<<<<<<< HEAD' is left of a merge; keep the lines of both sides and take the markers "
            "out, or {anew}",
        ),
        (
            '{"cassette": 1}\n{"ke\n',
            "line 2: neither an entry nor a part: '{\"ke'; restore the file, or {anew}",
        ),
    ],
)
def test_a_file_that_is_no_cassette_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "c.jsonl"
    path.write_text(text, "utf-8")
    with pytest.raises(CassetteError) as refused:
        Cassette(path, "c")
    anew = "remove it and record again with --synth-record-mode=once"
    assert str(refused.value).endswith(message.replace("{anew}", anew))
    assert str(path) in str(refused.value)


def test_an_entry_whose_part_is_gone_is_refused_by_its_key(tmp_path: Path) -> None:
    path = saved(tmp_path / "c.jsonl", entry())
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(line for line in lines if not line.startswith(b'{"part"')))
    with pytest.raises(CassetteError) as refused:
        Cassette(path, "c").find(identity().key)
    assert f"the entry of key {identity().key} cannot be read (KeyError: " in str(refused.value)


def test_windows_line_ends_are_read(tmp_path: Path) -> None:
    path = saved(tmp_path / "c.jsonl", entry("one"))
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert Cassette(path, "c").find(identity("one").key) is not None
