from __future__ import annotations

import pytest

from pytest_synth.errors import ConfigError
from pytest_synth.localapi import chat_completions_url


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("http://h", "http://h/v1/chat/completions"),
        ("http://h/", "http://h/v1/chat/completions"),
        ("http://h:1/v1", "http://h:1/v1/chat/completions"),
        ("http://h/v1/", "http://h/v1/chat/completions"),
        ("https://h/openai/v1", "https://h/openai/v1/chat/completions"),
        ("http://h/v10", "http://h/v10/v1/chat/completions"),
        ("http://h/api", "http://h/api/v1/chat/completions"),
        ("http://h/chat", "http://h/chat/completions"),
        ("http://h/v1/chat", "http://h/v1/chat/completions"),
        ("http://h/v1/chat/completions", "http://h/v1/chat/completions"),
        ("http://h/chat/completions/", "http://h/chat/completions"),
        ("http://h/api/i/v1/t/trace_1", "http://h/api/i/v1/t/trace_1/chat/completions"),
        ("http://h/v1/t/trace_1?cid=trace_1", "http://h/v1/t/trace_1/chat/completions?cid=trace_1"),
        ("http://h?cid=trace_1", "http://h/v1/chat/completions?cid=trace_1"),
        ("http://h?cid=1/v1/chat/completions", "http://h/v1/chat/completions?cid=1"),
        ("http://h/v1/t?cid=1/chat/completions", "http://h/v1/t/chat/completions?cid=1"),
        ("http://h/v1/t?cid=1/chat/completions&b=2", "http://h/v1/t/chat/completions?cid=1&b=2"),
        ("http://h?cid=1/v1", "http://h/v1/chat/completions?cid=1"),
        ("  http://h/v1 ", "http://h/v1/chat/completions"),
    ],
)
def test_a_base_url_becomes_the_url_for_chat_completions(given: str, expected: str) -> None:
    assert chat_completions_url(given) == expected
    assert chat_completions_url(expected) == expected


@pytest.mark.parametrize("given", ["", "h/v1", "ftp://h/v1", "http://"])
def test_what_is_no_http_url_is_refused(given: str) -> None:
    with pytest.raises(ConfigError, match=f"inference_url is '{given}', not an http or https URL"):
        chat_completions_url(given)
