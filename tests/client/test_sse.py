from __future__ import annotations

import json

import pytest

from pytest_synth.client.sse import EventParser


def read(*chunks: bytes) -> list[dict[str, object]]:
    parser = EventParser()
    return [event for chunk in chunks for event in parser.feed(chunk)]


STREAM = 'id: 1\nevent: x\ndata: {"seq": 1, "text": "für"}\n\n: comment\n\ndata: {"seq": 2}\n\n'
EVENTS = [{"seq": 1, "text": "für"}, {"seq": 2}]


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"], ids=["LF", "CRLF", "CR"])
@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_events_are_read_whatever_the_line_ends_and_pieces(newline: str, size: int) -> None:
    data = STREAM.replace("\n", newline).encode() + b"data: next"
    assert read(*(data[i : i + size] for i in range(0, len(data), size))) == EVENTS


def test_an_event_may_have_several_data_lines_and_no_space() -> None:
    data = b'data:{"seq":\r\ndata: 3}\r\n\r\n'
    assert read(data) == [{"seq": 3}]
    assert read(*(bytes([byte]) for byte in data)) == [{"seq": 3}]


@pytest.mark.parametrize("data", ["[DONE]", "ping", "[1, 2]", "null", "", "[" * 100_000])
def test_data_that_is_no_object_is_left_out(data: str) -> None:
    assert read(f"data: {data}\n\n".encode(), b'data: {"seq": 1}\n\n') == [{"seq": 1}]


def test_an_event_that_is_cut_off_is_not_handed_on() -> None:
    assert read(b'data: {"seq": 1}\n\ndata: {"seq": 2}\n') == [{"seq": 1}]


def test_a_thousand_events_in_one_piece_are_read_in_order() -> None:
    data = b"".join(b"data: %s\n\n" % json.dumps({"seq": n}).encode() for n in range(1000))
    assert [event["seq"] for event in read(data)] == list(range(1000))
