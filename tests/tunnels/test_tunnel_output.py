"""Lines of cloudflared's log, in both formats, and what its ends mean."""

from __future__ import annotations

import pytest

from pytest_synth.tunnels.output import boxed_url, explain_exit, last_words, plain


@pytest.mark.parametrize(
    ("line", "url"),
    [
        pytest.param(
            "2026-08-01T10:00:00Z INF |  https://four-plain-words-here.trycloudflare.com          |",
            "https://four-plain-words-here.trycloudflare.com",
            id="text",
        ),
        pytest.param(
            '{"level":"info","message":"|  https://four-plain-words-here.trycloudflare.com   |","time":"x"}',
            "https://four-plain-words-here.trycloudflare.com",
            id="json",
        ),
        pytest.param(
            'failed to request quick Tunnel: Post "https://api.trycloudflare.com/tunnel": EOF',
            None,
            id="service",
        ),
        pytest.param("INF |  Your quick Tunnel has been created! Visit it at:  |", None, id="headline"),
        pytest.param(
            "terms of use (https://www.cloudflare.com/website-terms/), and Cloudflare", None, id="disclaimer"
        ),
    ],
)
def test_only_the_boxed_url_is_the_tunnels(line: str, url: str | None) -> None:
    assert boxed_url(line) == url


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ('{"level":"error","error":"dial failed","message":"Retrying"}', "Retrying dial failed"),
        ('{"level":"error"}', '{"level":"error"}'),
        ('{"cut off', '{"cut off'),
        ("  2026-08-01 ERR text \n", "2026-08-01 ERR text"),
    ],
)
def test_a_line_is_reduced_to_its_text(line: str, text: str) -> None:
    assert plain(line) == text


def test_last_words_skip_empty_lines_and_are_short() -> None:
    assert last_words(["first", "x" * 1000, "", "  "]) == f"its last line was {'x' * 300!r}"
    assert last_words([]) == "it printed nothing"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('ERR status_code="429 Too Many Requests"', "too many were asked for (429)"),
        ("QuickTunnel response: error code: 1015", "too many were asked for (429)"),
        ("request 4290 done at port 14291", "ended at its start with exit code 1"),
        ("Provided Tunnel token is not valid.", "refuses the token of the managed tunnel"),
        ("dial tcp 104.16.0.1:443: connect: network is unreachable", "cannot reach Cloudflare"),
        ("flag provided but not defined: -metrics", "ended at its start with exit code 1"),
    ],
)
def test_the_reason_of_an_early_end_is_read_from_any_line(line: str, words: str) -> None:
    assert words in str(explain_exit(1, ["INF starting", line, "bye"]))
