"""What every run pays for: whether a test has to do with evals, and that stored prompts are left alone.

Nothing of ours is imported here.
"""

from __future__ import annotations

import pytest

MARKER = "synth_eval"
OPTIMIZE_MARKER = "synth_optimize"
COLLECTED = pytest.StashKey[tuple[pytest.Item, ...]]()
"""All tests that were collected, deselected ones too."""

_MARKERS = (MARKER, OPTIMIZE_MARKER)
_NEEDS_APP = frozenset({"synth_result", "synth_eval", "synth_optimize", "synth_tunnel"})


def concerns_us(item: pytest.Item) -> bool:
    """Say whether a test carries one of our markers or uses a fixture that needs the task app."""
    if any(item.get_closest_marker(name) is not None for name in _MARKERS):
        return not isinstance(item, pytest.DoctestItem)  # its module's marker is for the tests in there
    return not _NEEDS_APP.isdisjoint(getattr(item, "fixturenames", ()))


def node_id_of(item: pytest.Item) -> str:
    """The node id of a test as it is without workers: `--dist loadgroup` puts its groups behind it."""
    if not getattr(item.config.option, "loadgroup", False):
        return item.nodeid
    marks = item.iter_markers("xdist_group")
    groups = {str(mark.args[0] if mark.args else mark.kwargs.get("name", "default")) for mark in marks}
    return item.nodeid.removesuffix(f"@{'_'.join(sorted(groups))}")


def name_of(item: pytest.Item) -> str:
    """A test's name within its file, `TestIntents.test_refunds[gpt]`, as its files beside it are called."""
    classes = node_id_of(item).partition("::")[2].removesuffix(item.name).split("::")
    return ".".join([*filter(None, classes), item.name])


def keep_prompts(config: pytest.Config) -> None:
    """Let syrupy leave out stored prompts when it looks for unused snapshots, which it would delete.

    Whatever is in `__snapshots__` counts as unused for it unless a test has asserted it in this run.
    """
    ignored = config.getoption("ignore_file_extensions", ())
    if ignored == ():
        return  # there is no syrupy
    config.option.ignore_file_extensions = [*(ignored or ()), "prompt"]
