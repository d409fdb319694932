"""Reads the TOML file of an eval job."""

from __future__ import annotations

import tomllib
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pytest_synth.client.flows import Json
from pytest_synth.errors import ConfigError

_URL_NAMES = ("task_app_url", "local_api_url", "url")
_FIELDS = (
    "app_id", "env_name", "seeds", "policy_config", "env_config", "verifier_config", "concurrency",
    "timeout", "save_trace", "extensions",
)  # fmt: skip


def read_toml(path: Path) -> Json:
    """Read a TOML file.

    Raises:
        ConfigError: If it cannot be read or is not TOML; it names the file and the place.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read {str(path)!r}: {error.strerror or error}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{str(path)!r} is not a TOML file: {error}") from error


def read_eval_toml(path: Path) -> Json:
    """Read the arguments of an `EvalJobConfig` from `[eval]`, else from `[prompt_learning]`.

    Unknown keys are ignored with a warning that names them: files made for the published client may
    hold more.

    Raises:
        ConfigError: If the file cannot be read, or has neither section.
    """
    document = read_toml(path)
    section = document.get("eval")
    if isinstance(section, dict):
        unknown = sorted(set(section) - {*_URL_NAMES, *_FIELDS})
        if unknown:
            warnings.warn(
                f"{path}: unknown keys in [eval] are ignored: {', '.join(unknown)}", UserWarning, stacklevel=3
            )
        values = {name: section[name] for name in _FIELDS if name in section}
        url = next((section[name] for name in _URL_NAMES if section.get(name)), "")
    else:
        section = document.get("prompt_learning")
        if not isinstance(section, dict):
            raise ConfigError(f"{str(path)!r} has no section [eval]")
        values = _from_prompt_learning(section)
        url = section.get("task_app_url") or section.get("local_api_url") or ""
    if "seeds" in values:
        values["seeds"] = seeds_of(values["seeds"], f"seeds in {str(path)!r}")
    return {**values, "task_app_url": url}


def seeds_of(value: object, name: str) -> list[int]:
    """Read seeds: a list, or a table `{start, end, step}` whose end is left out."""
    if isinstance(value, Mapping):
        try:
            return list(range(value["start"], value["end"], value.get("step", 1)))
        except (KeyError, TypeError, ValueError) as error:
            raise ConfigError(f"{name} is {dict(value)!r}; a range is {{start, end, step}}") from error
    if isinstance(value, list):
        return value
    raise ConfigError(f"{name} is {value!r}, neither a list nor a table {{start, end, step}}")


def _from_prompt_learning(section: Mapping[str, Any]) -> Json:
    gepa = _table(section.get("gepa"))
    evaluation = _table(gepa.get("evaluation"))
    verifier = section.get("verifier")
    return {
        "app_id": section.get("task_app_id"),
        "env_name": gepa.get("env_name") or section.get("env_name"),
        "seeds": evaluation.get("seeds") or evaluation.get("train_seeds") or [],
        "policy_config": _table(gepa.get("policy")) or _table(section.get("policy")),
        "env_config": _table(section.get("env_config")),
        "verifier_config": verifier if isinstance(verifier, dict) else None,
    }


def _table(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
