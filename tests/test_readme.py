"""The README says what is true: its code runs, and its tables name what there is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pytest_synth.cli import build_parser
from pytest_synth.evals.optimize_spec import ARGUMENTS as SEARCH_ARGUMENTS
from pytest_synth.evals.spec import ARGUMENTS
from pytest_synth.plugin.options import OPTIONS

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def python_files() -> dict[str, str]:
    """Code blocks whose first line names a file."""
    blocks = re.findall(r"```python\n# (\w+\.py)\n(.*?)```", README, re.DOTALL)
    return {name.removesuffix(".py"): code for name, code in blocks}


def section(title: str) -> str:
    return README.split(f"\n## {title}\n", 1)[1].split("\n## ", 1)[0]


def test_every_python_block_is_a_file_that_is_run() -> None:
    assert README.count("```python") == len(python_files())


def test_code_blocks_run_as_they_stand(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ENVIRONMENT_API_KEY", raising=False)
    pytester.makepyfile(**python_files())
    result = pytester.runpytest_subprocess(
        "--synth-app", "intents_app:app", "-p", "no:randomly", "-p", "no:asyncio"
    )
    result.assert_outcomes(passed=3)


def test_marker_table_names_every_argument() -> None:
    rows = re.findall(r"^\| (`[^|]*`) \|", section("The marker"), re.MULTILINE)
    named = [name for row in rows for name in re.findall(r"`(\w+)`", row)]
    assert sorted(named) == sorted(ARGUMENTS)


def test_table_of_the_search_names_every_argument() -> None:
    named = re.findall(r"^\| `(\w+)` \|", section("A better prompt"), re.MULTILINE)
    assert sorted(named) == sorted(SEARCH_ARGUMENTS)


def test_search_and_snapshot_are_those_of_the_example() -> None:
    blocks = re.findall(r"```\n(.*?)```", section("A better prompt"), re.DOTALL)
    example = ROOT / "examples" / "support_intents"
    test = (example / "test_support_intents.py").read_text(encoding="utf-8")
    assert blocks[0] in test
    (stored,) = (example / "__snapshots__").rglob("*.prompt")
    assert stored.read_text(encoding="utf-8").startswith(blocks[3])


def test_option_table_names_every_option_with_its_default() -> None:
    rows = re.findall(
        r"^\| `(--synth-[\w-]+)[^`]*` \| `(\w+)` \| `(\w+)` \| (?:`(\w+)`)? ?\|$",
        section("Options"),
        re.MULTILINE,
    )
    assert rows == [(o.flag, o.variable, o.dest, o.default or "") for o in OPTIONS]


def test_fixture_table_names_every_public_fixture(pytester: pytest.Pytester) -> None:
    result = pytester.runpytest("--fixtures", "-p", "no:randomly", "-p", "no:asyncio")
    public = {name for line in result.outlines for name in re.findall(r"^(synth_\w+)", line)}
    assert public == set(re.findall(r"^\| `(synth_\w+)`", section("Fixtures"), re.MULTILINE))


def test_commands_named_are_those_of_the_parser() -> None:
    named = set(re.findall(r"`pytest-synth (\w+)", README))
    choices = build_parser()._subparsers._group_actions[0].choices  # type: ignore[union-attr]
    assert named == set(choices or ())
