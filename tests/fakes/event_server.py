"""A loopback server with one job: its status, its list of events, and a stream that can be told to fail."""

from __future__ import annotations

import http.server
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit


@dataclass
class Script:
    """What the server has, and how its stream behaves.

    Attributes:
        statuses: Answered one after the other; the last one for ever.
        cuts: Numbers of events after which the connection is cut, one for each stream that is opened.
        replays: Whether a stream starts with the first event whatever cursor is asked for, as the hosted
            service's does.
        end: After its last event a stream is closed, kept open in silence, or kept open with comments.
        stream_status: 200, or the error that opening a stream brings.
        newline: Line ends of the stream.
    """

    events: list[dict[str, Any]]
    statuses: list[dict[str, Any]]
    results: dict[str, Any] = field(default_factory=lambda: {"status": "completed", "results": []})
    cuts: list[int] = field(default_factory=list)
    replays: bool = False
    end: str = "closed"
    stream_status: int = 200
    list_status: int = 200
    newline: bytes = b"\n"
    page: int = 400
    opened: list[str] = field(default_factory=list)
    looked: int = 0
    released: threading.Event = field(default_factory=threading.Event)


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def do_GET(self) -> None:
        script = self.server.script
        url = urlsplit(self.path)
        since = int(parse_qs(url.query).get("since_seq", ["0"])[0])
        if url.path.endswith("/events/stream"):
            script.opened.append(self.path)
            if script.stream_status != 200:
                self._json({"detail": "no stream"}, script.stream_status)
            else:
                self._stream(0 if script.replays else since)
        elif url.path.endswith("/events"):
            page = [e for e in script.events if e.get("seq", 10**9) > since][: script.page]
            self._json({"events": page}, script.list_status)
        elif url.path.endswith("/results"):
            self._json(script.results)
        else:
            document = script.statuses[min(script.looked, len(script.statuses) - 1)]
            script.looked += 1
            self._json(document)

    def _json(self, document: object, status: int = 200) -> None:
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _stream(self, since: int) -> None:
        script = self.server.script
        self.close_connection = True
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        cut = script.cuts.pop(0) if script.cuts else None
        for sent, event in enumerate(e for e in script.events if e.get("seq", 10**9) > since):
            if sent == cut:
                self.connection.shutdown(socket.SHUT_RDWR)  # in the middle of a chunked body
                return
            line = b"data: " + json.dumps(event).encode()
            self._chunk(b"event: x" + script.newline + line + script.newline * 2)
        while script.end != "closed" and not script.released.wait(0.02):
            if script.end == "comments":
                try:
                    self._chunk(b": still here\n\n")
                except OSError:
                    return
        self._chunk(b"")

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


class _Server(http.server.ThreadingHTTPServer):
    script: Script

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is no error here."""


@contextmanager
def serve_events(script: Script) -> Iterator[str]:
    """Serve a script on a loopback port; yields the base URL."""
    server = _Server(("127.0.0.1", 0), _Handler)
    server.script = script
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        script.released.set()
        server.shutdown()
        server.server_close()
        thread.join()


def numbered(count: int, *, end: str | None = "eval.policy.job.completed") -> list[dict[str, Any]]:
    """Make events 1 to `count`, the last one the job's end."""
    events = [
        {"seq": n, "type": "eval.policy.seed.completed", "data": {"seed": n, "text": "ä" * 10}}
        for n in range(1, count + 1)
    ]
    if end is not None:
        events[-1]["type"] = end
    return events
