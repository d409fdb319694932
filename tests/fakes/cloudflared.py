"""An executable that behaves like cloudflared as far as a tunnel's owner can see.

Run as a program it prints what cloudflared prints (text or JSON log), serves `/ready` and `/quicktunnel` on
`--metrics`, and is an edge as well: HTTPS on loopback, with the certificate beside this file, which really
forwards to the local service. A `Run` tells each start what to do; tests make one with `FakeCloudflared`.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import json
import os
import signal
import ssl
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from http.client import HTTPConnection, HTTPException
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

HERE = Path(__file__).parent
CA_FILE = HERE / "cloudflared_ca.pem"
EDGE_FILE = HERE / "cloudflared_edge.pem"


@dataclass(frozen=True)
class Run:
    """What one start of the fake does.

    Attributes:
        fault: `no_network`, `rate_limited`, `bad_token` and `crash` end it at its start with cloudflared's
            own words; with `unauthorised` the edge refuses the token and it goes on trying; with
            `unreachable` it never gets a connection; with `silent` it never even gets a name; `hang`
            ignores SIGTERM.
        host: Public name; `{edge}` becomes the port of the edge.
        log: Format of the log.
        has_quicktunnel: Whether `/quicktunnel` is served, as newer versions do.
        connect_after_s: Seconds until there is a connection.
        noise: Number of lines printed before anything else.
        edge_faults: Status codes that the edge answers first, before it forwards.
    """

    fault: (
        Literal[
            "no_network",
            "rate_limited",
            "bad_token",
            "crash",
            "unauthorised",
            "unreachable",
            "silent",
            "hang",
        ]
        | None
    ) = None
    host: str = "calm-words-fit-well.trycloudflare.com"
    log: Literal["text", "json"] = "text"
    has_quicktunnel: bool = True
    connect_after_s: float = 0.0
    noise: int = 0
    edge_faults: tuple[int, ...] = ()


@dataclass(frozen=True)
class Start:
    """One start, as the fake has written it down itself."""

    pid: int
    parent: int
    arguments: tuple[str, ...]
    token: str | None
    metrics: int
    edge: int

    def post(self, path: str) -> None:
        """Tell the running fake something: `/fake/disconnect`, `/fake/connect` or `/fake/die`."""
        connection = HTTPConnection("127.0.0.1", self.metrics, timeout=5)
        with contextlib.closing(connection), contextlib.suppress(HTTPException, ConnectionError):
            connection.request("POST", path)
            connection.getresponse().read()


class FakeCloudflared:
    """The fake as a file that can be executed, with what its starts are to do.

    Args:
        folder: Where the executable, its orders and its notes go.
        runs: What the first, second, ... start does; the last one counts for all further starts.
    """

    def __init__(self, folder: Path, *runs: Run) -> None:
        self.folder = folder
        self.path = folder / "cloudflared"
        self.order(*(runs or (Run(),)))
        self.path.write_text(
            f'#!/bin/sh\nexec "{sys.executable}" -I -S "{Path(__file__).resolve()}" --fake "{folder}" "$@"\n'
        )
        self.path.chmod(0o755)

    def order(self, *runs: Run) -> None:
        write(self.folder / "runs.json", [asdict(run) for run in runs])

    def starts(self) -> list[Start]:
        files = sorted(self.folder.glob("start-*.json"))
        return [
            Start(**{**(d := json.loads(f.read_text())), "arguments": tuple(d["arguments"])}) for f in files
        ]

    def resolve(self, host: str, port: int) -> list[tuple[str, int]]:
        """Name resolution under which every public name leads to the edge of the last start."""
        return [("127.0.0.1", self.starts()[-1].edge)]

    def left_behind(self) -> list[int]:
        """Pids of its processes that are still there."""
        return [start.pid for start in self.starts() if is_running(start.pid)]


def make_token(target: str, host: str = "task-1.usesynth.test") -> str:
    """A tunnel token; like the real ones it is base64, here with what the edge is to know."""
    return base64.b64encode(json.dumps({"target": target, "host": host}).encode()).decode()


def is_running(pid: int) -> bool:
    """Whether a process is there; one that only waits to be reaped is not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return not Path("/proc").exists()


def write(path: Path, document: object) -> None:
    """Write JSON so that a reader sees all of it or nothing."""
    partial = path.with_suffix(".part")
    partial.write_text(json.dumps(document))
    partial.replace(path)


# ---- the program ----


class State:
    def __init__(self, run: Run, target: str, token: str | None) -> None:
        self.run = run
        self.token = f" with {token}" if token else ""
        self.target = target
        self.is_connected = False
        self.host: str | None = None
        self._faults: Iterator[int] = iter(run.edge_faults)
        self._lock = threading.Lock()

    def next_fault(self) -> int | None:
        with self._lock:
            return next(self._faults, None)


def say(state: State, level: str, message: str, error: str | None = None) -> None:
    stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    if state.run.log == "json":
        entry = {"level": {"INF": "info", "ERR": "error"}[level], "time": stamp, "message": message}
        text = json.dumps(entry | ({"error": error} if error else {}))
    else:
        text = f"{stamp} {level} {message}" + (f' error="{error}"' if error else "")
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def edge_handler(state: State) -> type[BaseHTTPRequestHandler]:
    class Edge(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            fault = state.next_fault()
            if fault is not None or not state.is_connected:
                self.answer(fault or 530, b"error code: 1033")
                return
            at = urlsplit(state.target)
            connection = HTTPConnection(at.hostname or "", at.port, timeout=30)
            headers = {k: v for k, v in self.headers.items() if k.lower() not in ("connection", "host")}
            try:
                connection.request(self.command, self.path, body=body, headers=headers)
                answer = connection.getresponse()
                self.answer(answer.status, answer.read(), answer.getheader("Content-Type"))
            except (OSError, HTTPException):
                self.answer(502, b"Bad gateway")
            finally:
                connection.close()

        do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = handle_any  # noqa: N815

        def answer(self, status: int, body: bytes, kind: str | None = "text/plain") -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind or "text/plain")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            pass

    return Edge


def metrics_handler(state: State) -> type[BaseHTTPRequestHandler]:
    class Metrics(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/ready":
                status = 200 if state.is_connected else 503
                self.answer(status, {"status": status, "readyConnections": int(state.is_connected)})
            elif self.path == "/quicktunnel" and state.run.has_quicktunnel:
                self.answer(200, {"hostname": state.host or ""})
            else:
                self.answer(404, {})

        def do_POST(self) -> None:
            if self.path == "/fake/die":
                say(state, "ERR", "Serve tunnel error", "connection with edge closed")
                os._exit(1)
            state.is_connected = self.path == "/fake/connect"
            self.answer(200, {})

        def answer(self, status: int, document: object) -> None:
            body = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            pass

    return Metrics


def serve(port: int, handler: type[BaseHTTPRequestHandler], *, tls: bool = False) -> int:
    server = ThreadingHTTPServer(("127.0.0.1", port), handler)
    server.daemon_threads = True
    if tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(EDGE_FILE)
        # The handshake belongs to the connection's own thread, not to the one that accepts.
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return int(server.server_address[1])


def end(code: int, last_line: str) -> None:
    sys.stderr.write(last_line + "\n")
    sys.stderr.flush()
    os._exit(code)


FAULTS: dict[str, Callable[[State], None]] = {
    "no_network": lambda state: end(
        1,
        'failed to request quick Tunnel: Post "https://api.trycloudflare.com/tunnel": '
        "dial tcp: lookup api.trycloudflare.com: no such host",
    ),
    "crash": lambda state: end(
        2, f"panic: runtime error: invalid memory address or nil pointer dereference{state.token}"
    ),
    "bad_token": lambda state: end(255, "Provided Tunnel token is not valid."),
}


def rate_limited(state: State) -> None:
    say(state, "ERR", "Error unmarshaling QuickTunnel response: error code: 1015", "invalid character 'e'")
    end(1, "failed to unmarshal quick Tunnel: invalid character 'e' looking for beginning of value")


FAULTS["rate_limited"] = rate_limited


def announce(state: State, host: str) -> None:
    url = f"https://{host}"
    first = "Your quick Tunnel has been created! Visit it at (it may take some time to be reachable):"
    for line in (f"+{'-' * (len(first) + 4)}+", f"|  {first}  |", f"|  {url.ljust(len(first))}  |"):
        say(state, "INF", line)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--fake", type=Path, required=True)
    parser.add_argument("command", choices=["tunnel"])
    parser.add_argument("--no-autoupdate", action="store_true", required=True)
    parser.add_argument("--metrics", required=True)
    parser.add_argument("--config")
    parser.add_argument("--url")
    options, rest = parser.parse_known_args()
    if rest not in ([], ["run"]):
        parser.error(f"unknown arguments {rest}")
    folder: Path = options.fake

    number = len(list(folder.glob("start-*.json")))
    plans = json.loads((folder / "runs.json").read_text())
    plan = plans[min(number, len(plans) - 1)]
    run = Run(**{**plan, "edge_faults": tuple(plan["edge_faults"])})

    token = os.environ.get("TUNNEL_TOKEN")
    target, host = options.url or "", run.host
    is_managed = rest == ["run"]
    if is_managed:
        with contextlib.suppress(ValueError, KeyError):
            knowledge = json.loads(base64.b64decode(token or ""))
            target, host = knowledge["target"], knowledge["host"]
        if not target:
            end(255, "Provided Tunnel token is not valid.")

    state = State(run, target, token)
    if run.fault == "hang":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    edge = serve(0, edge_handler(state), tls=True)
    metrics = serve(int(options.metrics.rpartition(":")[2]), metrics_handler(state))
    note = {
        "pid": os.getpid(),
        "parent": os.getppid(),
        "arguments": sys.argv[3:],
        "token": token,
        "metrics": metrics,
        "edge": edge,
    }
    write(folder / f"start-{number}.json", note)

    for line in range(run.noise):
        say(state, "INF", f"noise {line} " + "x" * 100)
    if not is_managed:
        say(state, "INF", "Requesting new quick Tunnel on trycloudflare.com...")
    if run.fault in FAULTS:
        FAULTS[run.fault](state)
    if not is_managed and run.fault != "silent":
        host = host.replace("{edge}", str(edge))
        announce(state, host)
        state.host = host
    say(state, "INF", f"Starting metrics server on 127.0.0.1:{metrics}/metrics")
    if run.fault == "unauthorised":
        say(state, "ERR", "Register tunnel error from server side", "Unauthorized: Invalid tunnel secret")
    elif run.fault == "unreachable":
        say(state, "ERR", "Unable to establish connection with Cloudflare edge", "failed to dial to edge")
    elif run.fault != "silent":
        time.sleep(run.connect_after_s)
        state.is_connected = True
        say(state, "INF", "Registered tunnel connection connIndex=0")
    threading.Event().wait()


if __name__ == "__main__":
    main()
