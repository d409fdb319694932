"""`pytest-synth optimize`: a search for a better prompt without pytest, from a TOML file."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from pytest_synth.cli.targets import read_app
from pytest_synth.errors import ConfigError

EXAMPLE = """\
example of a file (the published schema; `app` is ours):
  [prompt_learning]
  algorithm = "gepa"
  app = "my_app:app"                  # or: task_app_url = "http://127.0.0.1:8001"
  env_config = { split = "train" }
  policy = { provider = "offline", model = "lexical" }
  initial_prompt.messages = [{ role = "system", pattern = "..." }]
  [prompt_learning.gepa]
  evaluation = { seeds = { start = 0, end = 40 }, validation_seeds = { start = 40, end = 60 } }
  rollout = { budget = 200 }
"""


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "optimize",
        help="search for a better prompt, from a TOML file",
        description="Search for a better prompt and print it; exit code 1 when the search fails.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("file", type=Path, help="TOML file with a section [prompt_learning]")
    parser.add_argument(
        "--output", type=Path, metavar="FILE", help="write the best prompt with its record, for load_prompt"
    )
    parser.add_argument(
        "--backend",
        default="local",
        metavar="local|hosted|URL",
        help="backend that runs the job (default: %(default)s, the embedded one)",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the search; 0 when it has succeeded, whether it found something better or not."""
    from pytest_synth.evals.left_over import left_over_text
    from pytest_synth.evals.optimizations import OptimizationJobs
    from pytest_synth.evals.optimize_spec import read_optimize_file
    from pytest_synth.evals.resources import Resources
    from pytest_synth.evals.settings import Settings
    from pytest_synth.report.optimizations import optimization_text

    spec = read_optimize_file(args.file)
    if args.output is not None and args.output.is_dir():
        raise ConfigError(f"--output {str(args.output)!r} is a folder; give the name of a file")
    if spec.app is None:
        raise ConfigError(
            f"{str(args.file)!r}: [prompt_learning] needs either app = 'module:attribute' or task_app_url"
        )
    is_url = spec.app.startswith(("http://", "https://"))
    app = spec.app if is_url else read_app(args.file, "prompt_learning", spec.app)
    settings = Settings(backend=args.backend)
    resources = Resources(settings)
    jobs = OptimizationJobs(resources, settings)
    name = str(args.file)
    try:
        plan = jobs.submit(name, spec, app)
        if plan is not None:
            print(f"plan: {plan}", flush=True)
        found = jobs.wait(name, _show)
    finally:
        left = jobs.cancel_all()
        resources.close()
        if left:
            print(left_over_text(left), file=sys.stderr)
    print(optimization_text(found.to_entry(name)))
    if args.output is not None:
        _write(args.output, found.snapshot.to_text())
    return 0


def _show(parts: list[str]) -> None:
    if parts and sys.stderr.isatty():
        print(f"\r{', '.join(parts)}\x1b[K", end="", file=sys.stderr, flush=True)


def _write(file: Path, text: str) -> None:
    from pytest_synth.evals.files import write_whole

    try:
        write_whole(file, text)
    except OSError as error:
        raise ConfigError(f"cannot write {str(file)!r}: {error.strerror or error}") from error
    print(f"wrote {file}")
