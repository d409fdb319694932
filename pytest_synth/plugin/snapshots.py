"""Stored prompts of tests: where they are, which prompt a test runs, and which files belong to no test."""

from __future__ import annotations

from collections.abc import Container, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_synth.evals.baselines import file_name
from pytest_synth.plugin.detect import COLLECTED, name_of
from pytest_synth.prompt_files import SUFFIX
from pytest_synth.prompts import Prompt, StoredPrompt, load_stored_prompt

if TYPE_CHECKING:
    from _pytest.terminal import TerminalReporter

    from pytest_synth.client import EvalResult
    from pytest_synth.contracts.evals import EvalRow, PromptSource
    from pytest_synth.report import EvalEntry

UNUSED_PROMPTS = "synth_unused_prompts"  # what a worker of pytest-xdist hands to the controller
_REMEDY = "optimise it again with --synth-optimize --snapshot-update, or delete {file}"


@dataclass(frozen=True)
class PromptChoice:
    """Which prompt a test runs, and why.

    Attributes:
        prompt: None: the task app's own.
        source: Whose prompt it is.
        code: The prompt that the code names; None: the task app's own.
        stored: What the snapshot holds, if there is one.
        file: Of the snapshot, whether it is there or not.
    """

    prompt: Prompt | None
    source: PromptSource
    code: Prompt | None
    stored: StoredPrompt | None
    file: Path

    @property
    def stale(self) -> str | None:
        """Why the stored prompt is stale, as far as the code alone tells."""
        return None if self.code is None else self.stale_text(self.code.fingerprint)

    def stale_text(self, code: str) -> str | None:
        """Say why the stored prompt is stale, if it is.

        Args:
            code: Fingerprint of the code's prompt as it is now.
        """
        if self.stored is None:
            return None
        origin = self.stored.record.baseline_fingerprint
        if origin is None or code in (origin, self.stored.prompt.fingerprint):
            return None
        return (
            f"stored prompt is stale: the code's prompt has changed since it was optimised "
            f"(fingerprint {origin} then, {code} now); {_REMEDY.format(file=self.file.name)}"
        )


def choose_prompt(item: pytest.Item, code: Prompt | None) -> PromptChoice:
    """Choose the prompt of a test: the stored one if there is one, else the one that the code names.

    Args:
        code: Of the test's markers; None: the task app's own.

    Raises:
        ConfigError: If there is a stored one that cannot be read.
    """
    file = prompt_file(item)
    if file.is_file():
        stored = load_stored_prompt(file)
        return PromptChoice(stored.prompt, "snapshot", code, stored, file)
    return PromptChoice(code, "app" if code is None else "marker", code, None, file)


def stale_in_rows(choice: PromptChoice, rows: Iterable[EvalRow]) -> str | None:
    """Say that the stored prompt is stale, if the task app's own prompt is not the one it came from.

    An app whose prompt differs from rollout to rollout has none that could be compared.
    """
    replaced = {row.replaced_fingerprint for row in rows if row.replaced_fingerprint is not None}
    if choice.code is not None or len(replaced) != 1:
        return None
    return choice.stale_text(replaced.pop())


def with_code_prompt(entry: EvalEntry, choice: PromptChoice) -> EvalEntry:
    """An entry that shows what the stored prompt has changed of the code's."""
    from pytest_synth.evals.entries import prompt_messages  # a run without evals must not load pydantic

    if choice.stored is None or choice.code is None:
        return entry
    return entry.model_copy(update={"code_prompt": prompt_messages(choice.code)})


def not_submitted(reason: str) -> EvalResult:
    """The result of an eval that was not run at all."""
    from pytest_synth.client import EvalResult

    return EvalResult.from_response("", {"status": "failed", "error": reason, "results": []})


def as_stale(entry: EvalEntry, reason: str) -> EvalEntry:
    """An entry whose gate is not decided, as the prompt that ran is not the one that ships."""
    return entry.model_copy(
        update={"outcome": "incomplete", "gate_text": f"gate incomplete: {reason}", "gate_details": ()}
    )


def prompt_file(item: pytest.Item) -> Path:
    """Where the prompt of a test is stored: `__snapshots__/<module>/<test>.prompt` beside the test's file."""
    return _folder(item) / item.path.stem / (snapshot_name(item) + SUFFIX)


def snapshot_name(item: pytest.Item, index: str = "") -> str:
    """Name a test within its module as a file can be called, one to one.

    See `file_name`: `x/y` and `xy` are two files.

    Args:
        index: Stands after the name where a test has several snapshots.
    """
    return file_name(name_of(item) + index)


def updates_snapshots(config: pytest.Config, file: Path) -> bool:
    """Say whether syrupy's options allow a snapshot to be written."""
    if config.getoption("update_snapshots", False):
        return True
    return bool(config.getoption("update_new_snapshots_only", False)) and not file.exists()


def unused_prompts(config: pytest.Config) -> list[str]:
    """List stored prompts that belong to no test, by their paths below the root folder.

    Returns:
        Nothing where only some tests of a module were collected: those of the others are not unused.
    """
    if any("::" in str(argument) for argument in config.args) or config.getoption("lf", False):
        return []
    files = {prompt_file(item) for item in config.stash[COLLECTED]}
    stems = {(file.parent, file.name.removesuffix(SUFFIX)) for file in files}
    modules = {file.parent for file in files}
    found = [file for folder in {m.parent for m in modules} for file in folder.glob(f"*/*{SUFFIX}")]
    return sorted(
        _shown(file, config.rootpath)
        for file in found
        if (file.parent in modules or not _has_module(file)) and not _belongs_to_a_test(file, stems)
    )


def write_unused(reporter: TerminalReporter, files: Iterable[str]) -> None:
    """Name stored prompts that belong to no test; they are kept."""
    for file in files:
        reporter.write_line(
            f"warning: the stored prompt {file} belongs to no test; it is kept until you delete it",
            yellow=True,
        )


def _belongs_to_a_test(file: Path, stems: Container[tuple[Path, str]]) -> bool:
    """Whether a file is a test's, or one of its further snapshots (`test.1`, `test[name]`)."""
    stem = file.name.removesuffix(SUFFIX)
    ends = [place for place, letter in enumerate(stem) if letter in ".["]
    return any((file.parent, stem[:end]) in stems for end in [*ends, len(stem)])


def _folder(item: pytest.Item) -> Path:
    return item.path.parent / str(item.config.getoption("snapshot_dirname", "__snapshots__"))


def _has_module(file: Path) -> bool:
    """Whether the module of a stored prompt is there, collected or not."""
    return (file.parent.parent.parent / f"{file.parent.name}.py").is_file()


def _shown(file: Path, root: Path) -> str:
    return str(file.relative_to(root) if file.is_relative_to(root) else file)
