"""Evals and searches on a backend that knows the published API only, such as the hosted service.

What our own backends take in `extensions` is done here where that can be, or refused by name:

- `samples`: one job for each, as the published API has no field for it. They cost what was asked for.
- `prompt`: put in on its way through this machine (`relaying`).
- `prompt_source` goes into the rows (`joining`); ids and order of the tests help ours only, and are left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pytest_synth.errors import ConfigError

if TYPE_CHECKING:
    from pytest_synth.evals.backends import Backend

_DONE_HERE = frozenset({"samples", "prompt", "prompt_source", "run_id", "node_id", "position"})
_OWN_SECTIONS = ("reflection", "pipeline")  # of `gepa`
_UNASKED = (None, False, "off")
# How a user asked for it, where that is another name.
_OPTIONS = {
    "fail_fast": "--synth-fail-fast",
    "record_mode": "--synth-record-mode",
    "cassette": "--synth-record-mode",
}


def published_body(body: Mapping[str, Any], backend: Backend) -> dict[str, Any]:
    """Make the body of a job of one sample for each seed, without extensions.

    Raises:
        ConfigError: If the backend cannot do what is asked for, and it cannot be done here.
    """
    asked = [
        _OPTIONS.get(name, name)
        for name, value in body["extensions"].items()
        if name not in _DONE_HERE and value not in _UNASKED
    ]
    if asked:
        names = " and ".join(dict.fromkeys(asked))
        raise ConfigError(f"{names}: {_why(backend)}; leave it out, or use the embedded backend")
    _refuse_offline(body["policy"], backend)
    return {name: value for name, value in body.items() if name != "extensions"}


def refuse_own_fields(section: Mapping[str, Any], backend: Backend) -> None:
    """Refuse a search that asks for what the published schema of searches does not have.

    Args:
        section: The `prompt_learning` section, complete.

    Raises:
        ConfigError: It names the field.
    """
    if backend.is_ours:
        return
    _refuse_offline(section["policy"], backend)
    for name in _OWN_SECTIONS:
        if name in section["gepa"]:
            raise ConfigError(
                f"prompt_learning.gepa.{name}: is given, but {_why(backend)}; leave it out, or use the "
                "embedded backend"
            )


def _refuse_offline(policy: Mapping[str, Any], backend: Backend) -> None:
    if policy.get("provider") == "offline" and not backend.is_ours:
        raise ConfigError(
            f"the backend at {backend.url} does not know the model offline/{policy.get('model')}, which is "
            "built into pytest-synth; name one with --synth-provider and --synth-model, or use the embedded "
            "backend"
        )


def _why(backend: Backend) -> str:
    if backend.is_ours:
        return f"the backend at {backend.url} takes it from the key that `pytest-synth serve` prints, only"
    return f"the backend at {backend.url} has no such thing"
