"""Server-sent events: bytes in any pieces go in, the data of whole events comes out (WHATWG HTML, 9.2)."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator

from pytest_synth.client.flows import Json

_LINE_END = re.compile(r"\r\n|\n|\r")


class EventParser:
    """Reads the JSON objects out of a stream of server-sent events.

    Line ends may be LF, CRLF or CR, and chunks may end anywhere, inside a character too. Comments, the
    fields `event`, `id` and `retry`, and data that is no JSON object (`[DONE]`, keep-alives) are left out:
    what this API says stands in the data.
    """

    def __init__(self) -> None:
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        self._text = ""
        self._data: list[str] = []

    def feed(self, chunk: bytes) -> Iterator[Json]:
        """Take in the next chunk and yield the events that it completes."""
        self._text += self._decode(chunk)
        held = ""
        if self._text.endswith("\r"):  # perhaps the first half of CRLF
            self._text, held = self._text[:-1], "\r"
        *lines, rest = _LINE_END.split(self._text)
        self._text = rest + held
        for line in lines:
            if line:
                name, _, value = line.partition(":")
                if name == "data":
                    self._data.append(value.removeprefix(" "))
                continue
            data, self._data = "\n".join(self._data), []
            event = _object(data)
            if event is not None:
                yield event


def _object(data: str) -> Json | None:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
