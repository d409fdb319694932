"""Model calls of the worst seeds, read from a job's traces."""

from __future__ import annotations

import io
import json
from typing import Any
from zipfile import ZipFile

import pytest
from fakes.entries import row

from pytest_synth.contracts.evals import EvalRow, PromptMessage
from pytest_synth.evals.model_calls import CHARS, SEEDS, add_model_calls
from pytest_synth.prompts import Prompt
from pytest_synth.report import EvalEntry

SYSTEM = "Answer with one word."
ASKED = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": "which?"}]
TOOL_CALL = {"id": "1", "type": "function", "function": {"name": "answer", "arguments": '{"label": "a"}'}}


def call(request: dict[str, Any], response: dict[str, Any] | None, **fields: Any) -> dict[str, Any]:
    return {
        "provider": "openai", "model": "m", "request": request, "response": response, "latency_ms": 5.0,
        "prompt_tokens": 7, "completion_tokens": 2, "cost_usd": 0.25, "error": None, "replayed": False,
    } | fields  # fmt: skip


def chat(text: str) -> dict[str, Any]:
    return call({"messages": ASKED}, {"choices": [{"message": {"role": "assistant", "content": text}}]})


def archive(traces: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    with ZipFile(buffer, "w") as zipped:
        for name, trace in traces.items():
            zipped.writestr(f"{name}.json", json.dumps(trace))
    return buffer.getvalue()


def entry_of(*rows: EvalRow, **fields: Any) -> EvalEntry:
    return EvalEntry(
        node_id="test_a.py::test_b", outcome="failed", gate_text="gate failed", rows=rows, **fields
    )


def told(entry: EvalEntry) -> list[tuple[int, int, list[str | None]]]:
    return [(one.seed, one.sample, [c.answer for c in one.calls]) for one in entry.calls]


def test_the_lowest_sample_of_each_failing_seed_is_told_and_no_other() -> None:
    entry = entry_of(row(1, 1.0), row(2, 1.0), row(2, 0.0, sample=1), row(3, 0.5))
    traces = archive(
        {
            "seed_1": {"calls": [chat("right")]},
            "seed_2": {"calls": [chat("right")]},
            "seed_2_sample_1": {"calls": [chat("first"), chat("second")]},
            "seed_3": {"calls": [chat("so so")]},
        }
    )
    found = add_model_calls(entry, traces)
    assert told(found) == [(2, 1, ["first", "second"]), (3, 0, ["so so"])]
    (first, _) = found.calls[0].calls
    assert [(m.role, m.pattern) for m in first.messages] == [("system", SYSTEM), ("user", "which?")]
    assert (first.model, first.tokens, first.cost_usd, first.latency_ms) == ("openai/m", 9, 0.25, 5.0)


def test_examples_of_seeds_without_a_reward_are_told_with_the_error_of_the_call() -> None:
    lost = [row(seed, None, error="model answered 500", error_kind="model") for seed in range(9)]
    failed = {"calls": [call({"messages": ASKED}, {"error": "?"}, error="model answered 500")]}
    found = add_model_calls(entry_of(*lost), archive({f"seed_{seed}": failed for seed in range(9)}))
    assert [one.seed for one in found.calls] == [0, 1, 2, 3, 4]
    assert {(c.answer, c.error) for one in found.calls for c in one.calls} == {(None, "model answered 500")}


@pytest.mark.parametrize(
    ("request_", "response", "messages", "answer"),
    [
        pytest.param(
            {"messages": ASKED, "tools": []},
            {"choices": [{"message": {"content": None, "tool_calls": [TOOL_CALL]}}]},
            [("system", SYSTEM), ("user", "which?")],
            json.dumps(TOOL_CALL),
            id="chat with a tool call",
        ),
        pytest.param(
            {
                "messages": [
                    {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "image_url"}]}
                ]
            },
            {"choices": []},
            [("user", 'a\n{"type": "image_url"}')],
            None,
            id="chat with an image and no answer",
        ),
        pytest.param(
            {
                "system": [{"type": "text", "text": SYSTEM}],
                "messages": [{"role": "user", "content": "which?"}],
            },
            {"content": [{"type": "text", "text": "a"}, {"type": "tool_use", "input": {"label": "a"}}]},
            [("system", SYSTEM), ("user", "which?")],
            'a\n{"type": "tool_use", "input": {"label": "a"}}',
            id="messages",
        ),
        pytest.param(
            {"instructions": SYSTEM, "input": "which?"},
            {"output": [{"type": "message", "content": [{"type": "output_text", "text": "a"}]}]},
            [("system", SYSTEM), ("user", "which?")],
            "a",
            id="responses",
        ),
    ],
)
def test_every_api_of_the_gateway_can_be_read(
    request_: dict[str, Any], response: dict[str, Any], messages: list[tuple[str, str]], answer: str | None
) -> None:
    traces = archive({"seed_1": {"calls": [call(request_, response)]}})
    ((found,),) = (one.calls for one in add_model_calls(entry_of(row(1, 0.0)), traces).calls)
    assert [(m.role, m.pattern) for m in found.messages] == messages
    assert found.answer == answer


def test_the_task_apps_own_prompt_is_known_by_its_fingerprint() -> None:
    traces = archive({"seed_1": {"calls": [chat("a")]}})
    fingerprint = Prompt.parse(SYSTEM).fingerprint
    found = add_model_calls(entry_of(row(1, 0.0), prompt_fingerprint=fingerprint), traces)
    assert found.prompt == (PromptMessage(role="system", pattern=SYSTEM),)
    other = add_model_calls(entry_of(row(1, 0.0), prompt_fingerprint="0" * 12), traces)
    assert other.prompt is None


def test_what_is_told_is_bounded() -> None:
    rows = [row(seed, 0.0) for seed in range(SEEDS + 5)]
    traces = archive(
        {f"seed_{seed}": {"calls": [chat("x" * (CHARS + 1000))] * 30} for seed in range(SEEDS + 5)}
    )
    found = add_model_calls(entry_of(*rows), traces)
    assert len(found.calls) == SEEDS
    assert {len(one.calls) for one in found.calls} == {20}
    assert found.calls[0].calls[0].answer == "x" * CHARS + "… +1,000 characters"


@pytest.mark.parametrize(
    "traces",
    [
        pytest.param(b"no archive", id="no archive"),
        pytest.param(archive({"seed_7": {"calls": []}}), id="of another seed"),
        pytest.param(archive({"seed_1": {"seed": 1, "calls": 0}}), id="the row of a rollout that never ran"),
        pytest.param(archive({"seed_1": [1]}), id="another shape"),
    ],
)
def test_traces_that_tell_nothing_change_nothing(traces: bytes) -> None:
    entry = entry_of(row(1, 0.0))
    assert add_model_calls(entry, traces) == entry
