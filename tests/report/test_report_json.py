from __future__ import annotations

import json
from typing import Any

import pytest
from fakes.entries import row
from fakes.reports import whole_run

import pytest_synth.report.json as report_json
from pytest_synth.errors import ConfigError
from pytest_synth.report import EvalEntry, RunReport
from pytest_synth.report.json import from_json, schema, to_json


def run_of(details: dict[str, Any]) -> RunReport:
    entry = EvalEntry(node_id="t", outcome="passed", gate_text="", rows=(row(1, 1.0, details=details),))
    return RunReport(evals=(entry,))


def test_what_is_written_is_read_again() -> None:
    assert from_json(to_json(whole_run())) == whole_run()


def test_the_document_has_a_version_and_is_the_same_for_the_same_run() -> None:
    text = to_json(whole_run())
    assert json.loads(text)["version"] == 1
    assert text == to_json(whole_run())


def test_fields_that_a_newer_backend_sends_in_a_row_are_kept() -> None:
    entry = EvalEntry(node_id="t", outcome="passed", gate_text="", rows=(row(1, 1.0, queue_ms=4),))
    document = json.loads(to_json(RunReport(evals=(entry,))))
    assert document["evals"][0]["rows"][0]["queue_ms"] == 4


def test_numbers_and_characters_that_json_lacks_do_not_break_the_document() -> None:
    text = to_json(run_of({"a": float("nan"), "b": [float("inf"), 1.5], "c": "\ud800x", "d": "😀"}))
    assert "NaN" not in text
    assert json.loads(text.encode())["evals"][0]["rows"][0]["details"] == {
        "a": None, "b": [None, 1.5], "c": "\ufffdx", "d": "😀",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("{", "part.json is not JSON: ", id="cut off"),
        pytest.param("[]", "part.json is not a pytest-synth report; it has no version", id="list"),
        pytest.param("{}", "part.json is not a pytest-synth report; it has no version", id="no version"),
        pytest.param(
            '{"version": 9}',
            "part.json has version 9; this pytest-synth reads version 1; make the report anew",
            id="newer",
        ),
        pytest.param(
            '{"version": 1, "evals": [{"outcome": "passed", "gate_text": ""}]}',
            "part.json cannot be read: evals.0.node_id: Field required",
            id="field missing",
        ),
        pytest.param(
            '{"version": 1, "surprise": 1}',
            "part.json cannot be read: surprise: Extra inputs",
            id="unknown field",
        ),
    ],
)
def test_a_text_that_is_no_report_is_refused_with_the_place(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        from_json(text, name="part.json")
    assert str(caught.value).startswith(message)


def fields(described: dict[str, Any]) -> dict[str, tuple[set[str], set[str]]]:
    """Names and required names of the document and of each part."""
    parts = {"": described, **described["$defs"]}
    return {
        name: (set(part.get("properties", {})), set(part.get("required", []))) for name, part in parts.items()
    }


def test_the_published_schema_describes_what_is_written() -> None:
    # Not compared as text: the wording of generated parts differs between versions of pydantic.
    published = json.loads(report_json.schema_file().read_text(encoding="utf-8"))
    assert fields(published) == fields(schema())
    document = json.loads(to_json(whole_run()))
    assert set(document) == set(published["properties"])
    assert set(document["evals"][0]) == set(published["$defs"]["EvalEntry"]["properties"])


def test_the_schema_says_what_the_fields_mean() -> None:
    entry = schema()["$defs"]["EvalEntry"]["properties"]
    assert entry["seeds_done"]["description"] == "Seeds that have a reward."
