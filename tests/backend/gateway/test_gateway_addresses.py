from __future__ import annotations

import pytest

from pytest_synth.backend.gateway.addresses import Address, parse_address


@pytest.mark.parametrize(
    ("rest", "query"),
    [
        pytest.param("trial_1/trace_2/chat/completions", "", id="path"),
        pytest.param("trial_1/trace_2/v1/chat/completions", "", id="path-v1"),
        pytest.param("trial_1/trace_2/chat/completions/", "", id="trailing-slash"),
        pytest.param("trial_1/trace_2/chat/completions", "cid=trace_2", id="path-and-query"),
        pytest.param("trial_1/chat/completions", "cid=trace_2", id="query"),
        pytest.param("trial_1/v1/chat/completions", "cid=trace_2", id="query-v1"),
        pytest.param("trial_1/chat/completions", "a=b&cid=trace_2", id="second-parameter"),
        pytest.param("trial_1/chat/completions", "trace_correlation_id=trace_2", id="long-name"),
        pytest.param("trial_1", "cid=trace_2/chat/completions", id="glued"),
        pytest.param("trial_1", "cid=trace_2/v1/chat/completions", id="glued-v1"),
        pytest.param("trial_1", "cid=trace_2%2Fchat%2Fcompletions", id="glued-and-quoted"),
        pytest.param("trial_1/trace_2", "cid=trace_2/chat/completions", id="glued-behind-both"),
        pytest.param("trial_1", "cid=trace_2&x=y/chat/completions", id="glued-behind-another"),
        pytest.param("trial_1/v1", "cid=trace_2/chat/completions", id="v1-before-glued"),
    ],
)
def test_every_form_of_a_url_means_the_same_call(rest: str, query: str) -> None:
    assert parse_address(rest, query) == Address("trial_1", "trace_2", "chat/completions")


@pytest.mark.parametrize("operation", ["responses", "messages"])
def test_the_operations_of_other_apis_are_told_apart(operation: str) -> None:
    assert parse_address(f"t/c/v1/{operation}", "") == Address("t", "c", operation)


@pytest.mark.parametrize(
    ("rest", "query", "address"),
    [
        ("", "", Address("", None, None)),
        ("t", "", Address("t", None, None)),
        ("t/c", "", Address("t", "c", None)),
        ("t/c/models", "", Address("t", None, None)),
        ("t/chat/completions", "", Address("t", None, "chat/completions")),
        ("t/c/embeddings/chat/completions", "", Address("t", None, None)),
    ],
)
def test_what_is_no_call_has_no_operation_or_no_rollout(rest: str, query: str, address: Address) -> None:
    assert parse_address(rest, query) == address
