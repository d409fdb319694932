"""The report as JSON: one document with a version, described by `schema.json` beside this module."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any, Final, Literal

from pydantic import ValidationError

from pytest_synth.errors import ConfigError
from pytest_synth.report.entries import RunReport

VERSION: Final = 1
"""Rises when a field changes its meaning or goes; the reader refuses other versions by number."""

SCHEMA_ID = "urn:pytest-synth:report:1"


class ReportDocument(RunReport):
    """Report of one pytest-synth run."""

    version: Literal[1] = VERSION
    """Version of this format."""


def to_json(report: RunReport) -> str:
    """Write a report.

    A task app's notes may hold what JSON and UTF-8 do not have: NaN and infinity become null, a lone
    surrogate becomes the replacement character.
    """
    document = ReportDocument(**dict(report)).model_dump()
    return json.dumps(writable(document), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def from_json(text: str, *, name: str = "the report") -> RunReport:
    """Read what `to_json` has written.

    Args:
        name: What the text is called in errors, such as its file's path.

    Raises:
        ConfigError: If it is not JSON, has another version, or a field is wrong; it names the field.
    """
    try:
        document = json.loads(text)
    except json.JSONDecodeError as error:
        raise ConfigError(f"{name} is not JSON: {error}") from error
    if not isinstance(document, dict) or "version" not in document:
        raise ConfigError(f"{name} is not a pytest-synth report; it has no version")
    if document["version"] != VERSION:
        raise ConfigError(
            f"{name} has version {document['version']!r}; this pytest-synth reads version {VERSION}; "
            "make the report anew"
        )
    try:
        read = ReportDocument.model_validate(document)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise ConfigError(f"{name} cannot be read: {place}: {first['msg']}") from error
    return RunReport(**{field: getattr(read, field) for field in RunReport.model_fields})


def writable(value: Any) -> Any:
    """A value as JSON and UTF-8 can hold it; see `to_json`."""
    if isinstance(value, Mapping):
        return {writable(str(key)): writable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [writable(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return value


def schema() -> dict[str, Any]:
    """JSON Schema of the document."""
    made = ReportDocument.model_json_schema(mode="serialization")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": SCHEMA_ID} | made


def schema_file() -> Traversable:
    """The published schema, `schema.json` of this package: `schema()` as text."""
    return files("pytest_synth.report").joinpath("schema.json")
