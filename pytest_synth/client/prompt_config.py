"""What a prompt-learning job is asked to do: `PromptLearningJobConfig`, and the body made of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pytest_synth.client import credentials
from pytest_synth.client.eval_toml import read_toml
from pytest_synth.client.flows import Json
from pytest_synth.errors import ConfigError

SECTION = "prompt_learning"
_OTHER_SECTION = "policy_optimization"
_OTHER_URL_NAMES = ("local_api_url", "localapi_url")


@dataclass
class PromptLearningJobConfig:
    """What a prompt-learning job is asked to do. Nothing is uploaded or minted by making one.

    Attributes:
        backend_url, api_key: Default: SYNTH_BACKEND_URL and SYNTH_API_KEY.
        config_path, config_dict: A TOML file, or the same as a mapping; one of the two. It has a section
            `prompt_learning`.
        task_app_api_key: Key that the task app expects. Default: ENVIRONMENT_API_KEY and its fallbacks;
            with none of them the backend uses the one that was uploaded.
        overrides: Values by dotted path, as `{"prompt_learning.gepa.rollout.budget": 40}`.

    Raises:
        ConfigError: If not exactly one of the two configurations is given, or there is no key.
    """

    backend_url: str | None = None
    api_key: str | None = field(default=None, repr=False)
    config_path: str | Path | None = None
    config_dict: Mapping[str, Any] | None = field(default=None, repr=False)
    task_app_api_key: str | None = field(default=None, repr=False)
    overrides: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        if (self.config_path is None) == (self.config_dict is None):
            raise ConfigError("give config_path or config_dict: one of the two")
        self.backend_url = credentials.backend_url(self.backend_url)
        self.api_key = credentials.synth_api_key(self.api_key)
        self.task_app_api_key = credentials.environment_api_key(self.task_app_api_key)

    def section(self) -> Json:
        """Return the configuration's section, overrides applied; it shares nothing with this object.

        Raises:
            ConfigError: If the file cannot be read, the section is missing, or it lacks `algorithm` or
                `task_app_url`; whatever else it holds is for the backend to judge.
        """
        if self.config_path is not None:
            document: Json = read_toml(Path(self.config_path))
            source = repr(str(self.config_path))
        else:
            document, source = deepcopy(dict(self.config_dict or {})), "config_dict"
        if SECTION not in document and _OTHER_SECTION in document:
            document[SECTION] = document.pop(_OTHER_SECTION)
        for path, value in _flat(self.overrides or {}):
            _put(document, path, deepcopy(value))
        section = document.get(SECTION)
        if not isinstance(section, dict):
            raise ConfigError(f"{source} has no section {SECTION!r}")
        for name in _OTHER_URL_NAMES:
            url = section.pop(name, None)
            if url is not None:
                section.setdefault("task_app_url", url)
        if not isinstance(section.get("algorithm"), str):
            raise ConfigError(
                f"{SECTION}.algorithm in {source} is {section.get('algorithm')!r}; give 'gepa' or another"
            )
        url = section.get("task_app_url")
        if not isinstance(url, str) or not url.startswith(("http://", "https://")):
            raise ConfigError(
                f"{SECTION}.task_app_url in {source} is {url!r}; it starts with http:// or https://"
            )
        return section

    def to_wire(self) -> Json:
        """Make the body of the submission; it shares nothing with this object."""
        section = self.section()
        if self.task_app_api_key is not None:
            section.setdefault("task_app_api_key", self.task_app_api_key)
        return {
            "algorithm": section["algorithm"],
            "config_body": {SECTION: section},
            # Flat, so that a backend that applies them once more changes nothing.
            "overrides": deepcopy(dict(_flat(self.overrides or {}))),
            "metadata": {"backend_base_url": f"{self.backend_url}/api"},
            "auto_start": True,
        }


def _flat(overrides: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Take tables among the overrides apart, so that each path leads to one value."""
    for name, value in overrides.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _put(document: Json, path: str, value: object) -> None:
    """Set the value at a dotted path."""
    *steps, last = path.split(".")
    if [*steps, last][0] != SECTION:
        raise ConfigError(f"the override {path!r} does not start with {SECTION!r}")
    place = document
    for step in steps:
        inner = place.setdefault(step, {})
        if not isinstance(inner, dict):
            raise ConfigError(f"the override {path!r} goes through {step!r}, which is {inner!r} and no table")
        place = inner
    place[last] = value
