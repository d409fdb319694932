"""`pytest-synth eval`: an eval job without pytest, from a TOML file."""

from __future__ import annotations

import argparse
import sys
import tomllib
from pathlib import Path
from typing import Any

from pytest_synth.cli.targets import read_app
from pytest_synth.errors import ConfigError

EXAMPLE = """\
example of a file:
  [eval]
  app = "my_app:app"                  # or: task_app_url = "http://127.0.0.1:8001"
  seeds = { start = 0, end = 50 }     # or a list; a seed is a row of the split
  split = "test"
  policy = { provider = "offline", model = "lexical" }
  min_reward = 0.8                    # optional: exit code 1 below it
"""

# The published client's words for our arguments.
_SYNONYMS = {"policy_config": "policy", "concurrency": "max_concurrent"}
_URLS = ("task_app_url", "local_api_url", "url")


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "eval",
        help="run an eval job from a TOML file",
        description="Run an eval job and print its rewards; exit code 1 when its gate fails.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("file", type=Path, help="TOML file with a section [eval]")
    parser.add_argument(
        "--backend",
        default="local",
        metavar="local|hosted|URL",
        help="backend that runs the job (default: %(default)s, the embedded one)",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the job; 0 when its gate passes, 1 when it fails or is incomplete."""
    from pytest_synth.evals.entries import make_entry
    from pytest_synth.evals.jobs import EvalJobs, Request
    from pytest_synth.evals.left_over import left_over_text
    from pytest_synth.evals.progress import Look
    from pytest_synth.evals.resources import Resources
    from pytest_synth.evals.settings import Settings
    from pytest_synth.evals.spec import parse_eval
    from pytest_synth.report import failure_text, terminal_lines

    section = read_section(args.file)
    folder = args.file.resolve().parent
    target = section.pop("app", None)
    urls = [section.pop(name) for name in _URLS if name in section]
    if (target is None) == (not urls):
        raise ConfigError(f"{str(args.file)!r}: [eval] needs either app = 'module:attribute' or task_app_url")
    app = urls[0] if urls else read_app(args.file, "eval", target)
    spec = parse_eval((), section, base=folder)
    settings = Settings(backend=args.backend, concurrency=spec.max_concurrent or Settings.concurrency)
    resources = Resources(settings)
    request = Request(str(args.file), spec, 0, "app" if spec.prompt is None else "call")

    def show(look: Look) -> None:
        if sys.stderr.isatty():
            progress = look()
            print(f"\r{progress.completed}/{progress.total} rollouts", end="", file=sys.stderr, flush=True)

    jobs = EvalJobs(resources, settings, run_id=None)
    try:
        jobs.submit(request, app)
        result = jobs.wait(request, show)
    finally:
        left = jobs.cancel_all()
        resources.close()
        if left:
            print(left_over_text(left), file=sys.stderr)
    verdict, entry = make_entry(str(args.file), request, result, settings)
    print("\n".join(terminal_lines([entry], width=100)))
    if not verdict.passed:
        print(failure_text(entry))
    return 0 if verdict.passed else 1


def read_section(path: Path) -> dict[str, Any]:
    """Read `[eval]` of a TOML file, in our words.

    Raises:
        ConfigError: If the file cannot be read, is not TOML or has no such section.
    """
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read {str(path)!r}: {error.strerror or error}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{str(path)!r} is not a TOML file: {error}") from error
    section = document.get("eval")
    if not isinstance(section, dict):
        raise ConfigError(f"{str(path)!r} has no section [eval]; see pytest-synth eval --help")
    seeds = section.get("seeds")
    if isinstance(seeds, dict):
        try:
            section["seeds"] = range(seeds["start"], seeds["end"], seeds.get("step", 1))
        except (KeyError, TypeError, ValueError) as error:
            raise ConfigError(f"seeds is {seeds!r}; a range is {{start, end, step}}") from error
    return {_SYNONYMS.get(str(name), str(name)): value for name, value in section.items()}
