"""Name resolution for new quick tunnels, and HTTPS to addresses that are given."""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping

import pytest

from pytest_synth.tunnels.probe import PublicResolver, Resolve, ask_health, get_public

NAME = "four-plain-words-here.trycloudflare.com"


class PublicDns:
    """Answers as https://1.1.1.1/dns-query does; records what it was asked."""

    def __init__(self, answer: object, status: int = 200) -> None:
        self.asked: list[str] = []
        self.answer = answer
        self.status = status

    def __call__(self, url: str, headers: Mapping[str, str], resolve: Resolve) -> tuple[int, bytes]:
        self.asked.append(url)
        assert headers == {"Accept": "application/dns-json"}
        assert resolve("1.1.1.1", 443) == [("1.1.1.1", 443)]
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.status, json.dumps(self.answer).encode()


@pytest.fixture
def system(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names that this machine's own resolver was asked for."""
    asked: list[str] = []

    def ask(host: str, port: int) -> list[tuple[str, int]]:
        asked.append(host)
        return [("127.0.0.9", port)]

    monkeypatch.setattr("pytest_synth.tunnels.probe.ask_system", ask)
    return asked


def test_a_quick_tunnels_name_is_asked_for_in_public_only(system: list[str]) -> None:
    dns = PublicDns(
        {"Status": 0, "Answer": [{"type": 5, "data": "alias."}, {"type": 1, "data": "104.16.1.2"}]}
    )
    assert PublicResolver(dns)(NAME, 443) == [("104.16.1.2", 443)]
    assert dns.asked == [f"https://1.1.1.1/dns-query?name={NAME}&type=A"]
    assert system == []


def test_a_name_that_is_not_there_yet_is_not_asked_for_at_home(system: list[str]) -> None:
    dns = PublicDns({"Status": 3})
    resolver = PublicResolver(dns)
    for _ in range(2):
        with pytest.raises(socket.gaierror):
            resolver(NAME, 443)
    assert len(dns.asked) == 2
    assert system == []
    assert ask_health(f"https://{NAME}", None, resolver) == "its name is not in the DNS yet"


@pytest.mark.parametrize(
    ("answer", "status"),
    [(ConnectionRefusedError("blocked"), 200), ("", 403), ({}, 502), ([], 200)],
    ids=["unreachable", "forbidden", "broken", "odd"],
)
def test_without_the_public_resolver_the_machines_own_is_asked(
    answer: object, status: int, system: list[str]
) -> None:
    dns = PublicDns(answer, status)
    resolver = PublicResolver(dns)
    assert resolver(NAME, 443) == resolver(NAME, 443) == [("127.0.0.9", 443)]
    assert system == [NAME, NAME]
    assert len(dns.asked) == 1, "a resolver that is blocked is asked once"


def test_other_names_are_resolved_as_usual(system: list[str]) -> None:
    dns = PublicDns({})
    assert PublicResolver(dns)("task-1.usesynth.ai", 8443) == [("127.0.0.9", 8443)]
    assert dns.asked == []


def test_each_address_is_tried_and_the_last_refusal_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        free = server.getsockname()[1]
    with pytest.raises(ConnectionRefusedError):
        get_public(f"https://{NAME}/health", {}, lambda host, port: [("127.0.0.1", free)] * 2)
    answer = ask_health(f"https://{NAME}", None, lambda host, port: [("127.0.0.1", free)])
    assert answer is not None
    assert answer.endswith("Connection refused)")
    assert ask_health(f"https://{NAME}", None, lambda host, port: []) == (
        "no answer (the name has no address)"
    )
