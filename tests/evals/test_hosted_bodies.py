"""What a backend that knows the published API only is asked for, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from pytest_synth.client import SynthClient
from pytest_synth.errors import ConfigError
from pytest_synth.evals.backends import Backend, is_near
from pytest_synth.evals.published import published_body

URL = "https://api.example.test"
PLAIN = {"seeds": [1], "policy": {"provider": "openai", "model": "m"}, "max_concurrent": 4}


def backend(*, is_ours: bool = False) -> Backend:
    return Backend(SynthClient(URL, "key"), is_ours, takes_extensions=False, is_near=False)


def body(**extensions: Any) -> dict[str, Any]:
    return {**PLAIN, "extensions": extensions}


def refusal(found: dict[str, Any], **more: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        published_body(found, backend(**more))
    return str(caught.value)


def test_no_extension_is_sent() -> None:
    asked = body(samples=3, prompt=[], prompt_source="marker", run_id="r", node_id="n", position=2)
    assert published_body(asked, backend()) == PLAIN


def test_what_is_not_asked_for_is_not_refused() -> None:
    assert published_body(body(max_cost=None, record_mode="off", fail_fast=False), backend()) == PLAIN


def test_what_cannot_be_had_is_named_all_at_once() -> None:
    assert refusal(body(max_cost=0.5, fail_fast={"min_reward": 1})) == (
        f"max_cost and --synth-fail-fast: the backend at {URL} has no such thing; "
        "leave it out, or use the embedded backend"
    )


def test_a_backend_of_ours_would_take_it_from_its_own_key() -> None:
    assert refusal(body(max_cost=0.5), is_ours=True) == (
        f"max_cost: the backend at {URL} takes it from the key that `pytest-synth serve` prints, only; "
        "leave it out, or use the embedded backend"
    )


def test_the_offline_model_is_refused_where_it_is_not_known() -> None:
    asked = {**body(), "policy": {"provider": "offline", "model": "lexical"}}
    assert refusal(asked) == (
        f"the backend at {URL} does not know the model offline/lexical, which is built into pytest-synth; "
        "name one with --synth-provider and --synth-model, or use the embedded backend"
    )
    assert published_body(asked, backend(is_ours=True))["policy"]["model"] == "lexical"


@pytest.mark.parametrize(
    ("url", "near"),
    [
        ("http://127.0.0.1:8000", True),
        ("http://localhost:8000", True),
        ("https://[::1]:8000", True),
        ("https://api.usesynth.ai", False),
        ("http://127.1:8000", False),
        ("http://backend.example.test", False),
    ],
)
def test_a_backend_is_near_if_its_url_says_so(url: str, near: bool) -> None:
    assert is_near(url) is near


@pytest.mark.parametrize(
    ("is_ours", "near", "wanted"),
    [(True, True, False), (True, False, True), (False, True, True), (False, False, True)],
)
def test_only_a_backend_of_ours_here_needs_no_key_upload(is_ours: bool, near: bool, wanted: bool) -> None:
    found = Backend(SynthClient(URL, "key"), is_ours, takes_extensions=is_ours, is_near=near)
    assert found.wants_key_upload is wanted
