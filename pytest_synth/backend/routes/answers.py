"""Answers of the API: JSON in ASCII, and errors in FastAPI's shape, `{"detail": ...}`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.responses import JSONResponse

from pytest_synth.backend.store.encoding import encode


class Json(JSONResponse):
    """JSON in ASCII; what users send may hold half surrogates and numbers that JSON has no word for."""

    def render(self, content: object) -> bytes:
        return encode(content).encode("ascii")


class Refused(Exception):
    """A request body that is well formed and cannot be served (422).

    Attributes:
        problems: (path of the field, such as `extensions.prompt`; what is wrong with it).
    """

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}")
        self.problems: Sequence[tuple[str, str]] = ((field, message),)

    @classmethod
    def all(cls, problems: Sequence[tuple[str, str]]) -> Refused:
        """Make one refusal of several problems."""
        refused = cls(*problems[0])
        refused.problems = tuple(problems)
        return refused


class ErrorText(BaseModel):
    detail: str


class FieldError(BaseModel):
    type: str
    loc: list[str | int]
    msg: str


class FieldErrors(BaseModel):
    """What is wrong with a request; `loc` is the path of the field, starting at `body`, `query` or `path`."""

    detail: list[FieldError]


def error_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Describe error answers for the OpenAPI document."""
    return {
        status: {"model": FieldErrors if status == 422 else ErrorText, "description": _WORDS[status]}
        for status in statuses
    }


_WORDS = {
    400: "the request cannot be read",
    401: "missing or unknown API key",
    403: "not for this key",
    404: "unknown job",
    422: "a field of the request is wrong",
    501: "not available here",
}


def install(app: FastAPI) -> None:
    """Make an app answer errors in one shape, never with the values that were sent: they may be keys."""

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Json:
        found = [{"type": e["type"], "loc": list(e["loc"]), "msg": _said(e)} for e in error.errors()]
        return Json({"detail": found}, status_code=422)

    @app.exception_handler(Refused)
    async def refused(_: Request, error: Refused) -> Json:
        found = [
            {"type": "refused", "loc": ["body", *field.split(".")], "msg": f"{field}: {text}"}
            for field, text in error.problems
        ]
        return Json({"detail": found}, status_code=422)

    @app.exception_handler(Exception)
    async def failed(_: Request, error: Exception) -> Json:
        return Json({"detail": f"the backend failed: {type(error).__name__}"}, status_code=500)


def _said(error: dict[str, Any]) -> str:
    """Say what is wrong, with the field's path, since not every client shows `loc`."""
    if error["type"] == "json_invalid":
        return f"body: is not JSON ({error['ctx']['error']} at character {error['loc'][-1]})"
    path = ".".join(str(piece) for piece in error["loc"][1:])
    if not path and error["type"] == "model_attributes_type":
        return "body: is not a JSON object sent with 'Content-Type: application/json'"
    return f"{path or 'body'}: {error['msg']}"
