"""The settings that a `pytest` run in the working directory would have, read by pytest itself."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from pytest_synth.errors import ConfigError
from pytest_synth.evals.choices import TUNNELS
from pytest_synth.evals.settings import Settings

_NAMES = ("app", "backend", "tunnel", "provider", "model")


class _Reader:
    """A pytest plugin that notes what is configured, and ends pytest before it collects anything."""

    def __init__(self) -> None:
        self.rootpath: Path | None = None
        self.pythonpath: list[str] = []
        self.values: dict[str, str] = {}
        self.cache: str | None = None

    @pytest.hookimpl(tryfirst=True)
    def pytest_cmdline_main(self, config: pytest.Config) -> int:
        self.rootpath = config.rootpath
        self.pythonpath = [str(path) for path in config.getini("pythonpath")]
        if config.pluginmanager.has_plugin("cacheprovider"):
            self.cache = str(config.getini("cache_dir"))
        for name in _NAMES:
            # The order of the plugin's own options: flag (here: in addopts), environment, ini value.
            value = (
                config.getoption(f"synth_{name}", None)
                or os.environ.get(f"PYTEST_SYNTH_{name.upper()}")
                or config.getini(f"synth_{name}")
            )
            if value:
                self.values[name] = str(value)
        return 0


def read_settings(
    *, app: str | None = None, backend: str | None = None, tunnel: str | None = None
) -> Settings:
    """Read the settings; what is given here comes before what is configured.

    The `pythonpath` of pytest's configuration is put on `sys.path`, as in a run.

    Raises:
        ConfigError: If pytest cannot read its configuration, or a value is not allowed; it names the value.
    """
    reader, rootpath = _read()
    sys.path[:0] = [path for path in reader.pythonpath if path not in sys.path]
    given = {"app": app, "backend": backend, "tunnel": tunnel}
    values = reader.values | {name: value for name, value in given.items() if value is not None}
    settings = Settings(
        app=values.get("app"),
        backend=values.get("backend", Settings.backend),
        tunnel=values.get("tunnel", Settings.tunnel),
        provider=values.get("provider", Settings.provider),
        model=values.get("model", Settings.model),
        rootpath=rootpath,
    )
    _check(settings)
    return settings


def cache_folder() -> Path:
    """Where pytest keeps what the plugin remembers of past runs.

    Raises:
        ConfigError: If pytest cannot read its configuration, or has no cache here.
    """
    from pytest_synth.evals.runs import FOLDER

    reader, rootpath = _read()
    if reader.cache is None:
        raise ConfigError(
            "pytest has no cache here: -p no:cacheprovider is configured, so no run is remembered"
        )
    # As pytest's cache provider reads it; "d" holds what plugins keep.
    return rootpath / os.path.expandvars(os.path.expanduser(reader.cache)) / "d" / FOLDER  # noqa: PTH111


def _read() -> tuple[_Reader, Path]:
    reader = _Reader()
    pytest.main([], plugins=[reader])
    if reader.rootpath is None:
        raise ConfigError("pytest cannot read its configuration here; it says above why")
    return reader, reader.rootpath


def _check(settings: Settings) -> None:
    is_url = settings.backend.startswith(("http://", "https://"))
    if settings.backend not in ("local", "hosted") and not is_url:
        raise ConfigError(f"the backend is {settings.backend!r}; use local, hosted or a URL")
    if settings.tunnel not in TUNNELS:
        raise ConfigError(f"the tunnel is {settings.tunnel!r}; use {', '.join(TUNNELS)}")
    if settings.app is not None and "://" not in settings.app and settings.app.count(":") != 1:
        raise ConfigError(f"the task app is {settings.app!r}; use a URL, or MODULE:ATTR as in my_app:app")
    if settings.provider != Settings.provider and settings.model == Settings.model:
        raise ConfigError(f"the provider is {settings.provider!r}, without a model; set synth_model")
