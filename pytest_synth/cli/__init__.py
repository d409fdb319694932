"""The command `pytest-synth`: one module for each subcommand."""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Sequence
from importlib import import_module

from pytest_synth.errors import SynthError

_SUBCOMMANDS = ("serve", "evaluate", "optimize", "doctor", "view", "history", "merge")


def build_parser() -> argparse.ArgumentParser:
    """The parser with all subcommands; each sets `run`, a function from the arguments to the exit code."""
    parser = argparse.ArgumentParser(
        prog="pytest-synth", description="Evals of prompts, without pytest: the same jobs from the shell."
    )
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")
    for name in _SUBCOMMANDS:
        import_module(f"pytest_synth.cli.{name}").add_parser(subparsers)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns 0, 1 (a check or gate failed) or 2 (wrong use, as argparse has it)."""
    args = build_parser().parse_args(argv)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal without "…" is no reason to fail
    try:
        code = int(args.run(args))
        sys.stdout.flush()
    except SynthError as error:
        print(f"pytest-synth: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        # The reader, such as `head`, has read enough; Python's own flush at exit must not fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        return 130
    return code
