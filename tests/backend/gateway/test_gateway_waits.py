"""What providers' headers ask for."""

from __future__ import annotations

import pytest

from pytest_synth.backend.gateway.waits import pause, retry_after

NOW = 1_700_000_000.0  # 2023-11-14T22:13:20Z


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "0.25"}, 0.25),
        ({"retry-after-ms": "1500", "retry-after": "9"}, 1.5),
        ({"retry-after": "Tue, 14 Nov 2023 22:13:50 GMT"}, 30.0),
        ({"retry-after": "Tue, 14 Nov 2023 22:13:00 GMT"}, 0.0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-3"}, None),
        ({"retry-after": "nan"}, None),
    ],
)
def test_retry_after_is_read(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(headers, now=NOW) == seconds


def openai(remaining: str, limit: str, reset: str, what: str = "requests") -> dict[str, str]:
    values = {"remaining": remaining, "limit": limit, "reset": reset}
    return {f"x-ratelimit-{name}-{what}": value for name, value in values.items()}


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        pytest.param({}, 0.0, id="none"),
        pytest.param(openai("12", "60", "48s"), 0.0, id="some-left"),
        pytest.param(openai("0", "60", "60s"), 1.0, id="one-call-of-sixty"),
        pytest.param(openai("0", "60", "1m0s"), 1.0, id="minutes"),
        pytest.param(openai("0", "10", "1h0m10.5s"), 361.05, id="hours"),
        pytest.param(openai("0", "10", "200ms"), 0.02, id="milliseconds"),
        pytest.param(openai("0", "10", "later"), 0.0, id="unreadable"),
        pytest.param(openai("100", "1000", "9s", "tokens"), 1.0, id="tokens"),
        pytest.param(openai("500", "1000", "9s", "tokens"), 0.0, id="enough-tokens"),
        pytest.param(
            {
                "anthropic-ratelimit-requests-remaining": "0",
                "anthropic-ratelimit-requests-limit": "50",
                "anthropic-ratelimit-requests-reset": "2023-11-14T22:14:10Z",
            },
            1.0,
            id="anthropic",
        ),
    ],
)
def test_a_limit_that_is_used_up_is_waited_for(headers: dict[str, str], seconds: float) -> None:
    assert pause(headers, 200, now=NOW) == pytest.approx(seconds)
