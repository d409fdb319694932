"""`pytest-synth serve`: the embedded backend in the foreground."""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from importlib.util import find_spec
from pathlib import Path
from typing import Any


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "serve",
        help="run the embedded backend",
        description=(
            "Run the embedded backend in the foreground and print its URL and its key. With --db its jobs "
            "outlive the process: after a restart unfinished ones go on where they stopped."
        ),
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=_port, default=0, help="port (default: a free one)")
    parser.add_argument("--db", type=Path, help="database file (default: a temporary one, gone at the end)")
    parser.add_argument(
        "--concurrency", type=int, default=16, metavar="N", help="rollouts in flight (default: %(default)s)"
    )
    parser.set_defaults(run=run)


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) < 2**16):
        raise argparse.ArgumentTypeError(f"{text!r} is no port; use 0 to 65535")
    return int(text)


def restart_note(database: Path | None) -> str | None:
    """Say which jobs do not go on after a restart, if any do not."""
    if database is None or find_spec("nacl") is not None:
        return None
    return (
        "note: without PyNaCl keys that come with a job are kept in memory only, and such a job cannot go on "
        "after a restart; pip install 'pytest-synth[hosted]'"
    )


def run(args: argparse.Namespace) -> int:
    """Serve until SIGINT or SIGTERM."""
    from pytest_synth.backend import BackendSettings, start
    from pytest_synth.evals.certainty import is_certain

    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    settings = BackendSettings(
        host=args.host,
        port=args.port,
        db=args.db,
        concurrency=args.concurrency,
        resume=args.db is not None,
        is_certain=is_certain,
    )
    note = restart_note(args.db)
    if note is not None:
        print(note, file=sys.stderr)
    with start(settings) as backend:
        print(f"backend: {backend.url}")
        print(f"key: {backend.key}", flush=True)
        while not stop.wait(0.2) and backend.is_alive:
            pass
        return 0 if stop.is_set() else 1
