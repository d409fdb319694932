"""Options of the command line and the ini file, and the settings that follow from them.

One rule for all: flag, then environment (`PYTEST_SYNTH_<NAME>`), then ini file, then default.
Read at every start of pytest, so it imports nothing heavy.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from pytest_synth.evals.choices import RECORD_MODES, TUNNELS

if TYPE_CHECKING:
    from pytest_synth.evals.settings import Settings

_SWITCH = {
    "true": True,
    "1": True,
    "yes": True,
    "on": True,
    "false": False,
    "0": False,
    "no": False,
    "off": False,
}


class Option(NamedTuple):
    """One option: `--synth-<name>`, ini value `synth_<name>`, variable `PYTEST_SYNTH_<NAME>`."""

    name: str
    default: str | None
    metavar: str  # empty: a switch, without a value on the command line
    help: str

    @property
    def flag(self) -> str:
        return "--synth-" + self.name.replace("_", "-")

    @property
    def dest(self) -> str:
        return "synth_" + self.name

    @property
    def variable(self) -> str:
        return "PYTEST_SYNTH_" + self.name.upper()


OPTIONS = (
    Option("app", None, "MODULE:ATTR", "task app, or a function without arguments that makes it"),
    Option(
        "backend",
        "local",
        "local|hosted|URL",
        "backend that runs the jobs: embedded, the hosted service, or a URL",
    ),
    Option("tunnel", "auto", "KIND", "way from the backend to the task app: " + ", ".join(TUNNELS)),
    Option("provider", "offline", "NAME", "model provider of tests that name none"),
    Option("model", "lexical", "NAME", "model of tests that name none"),
    Option("concurrency", "16", "N", "rollouts in flight in the whole run"),
    Option(
        "record_mode",
        None,
        "MODE",
        "cassettes of model calls: off, none (replay only), once, new_episodes, all or rewrite; "
        "without it: none where CI is set and the test's cassette exists, else off",
    ),
    Option("max_cost", None, "USD", "ceiling for the model calls of the whole run, in US dollars"),
    Option("fail_fast", None, "", "end an eval as soon as its gate is certain not to pass"),
)


TABLES = {
    "synth_prices": "prices of models, a line each: PROVIDER/MODEL = INPUT OUTPUT [CACHED_INPUT], in US "
    "dollars for a million tokens",
    "synth_providers": "model providers, a line each: NAME: SETTING=VALUE ... with base_url, url_variable, "
    "key_variable, local, limit_field, stream_usage",
    "synth_redact": "regular expressions of what must not get into a cassette, a line each",
}


def add_options(parser: pytest.Parser) -> None:
    group = parser.getgroup("synth", "pytest-synth: evals of prompts")
    for option in OPTIONS:
        suffix = f" (default: {option.default})" if option.default else ""
        takes: dict[str, Any] = (
            {"metavar": option.metavar} if option.metavar else {"action": "store_const", "const": "true"}
        )
        group.addoption(option.flag, dest=option.dest, default=None, help=option.help + suffix, **takes)
        parser.addini(option.dest, f"{option.help}{suffix}", default=None)
    for name, text in TABLES.items():
        parser.addini(name, text, type="linelist", default=[])
    group.addoption(
        "--synth-dry-run",
        action="store_true",
        dest="synth_dry_run",
        help="print what would be run and what it would cost, as far as that is known; run nothing",
    )
    group.addoption(
        "--synth-optimize",
        action="store_true",
        dest="synth_optimize",
        help="search for a better prompt in the tests marked synth_optimize; --snapshot-update stores it",
    )
    group.addoption(
        "--synth-update-baseline",
        action="store_true",
        dest="synth_update_baseline",
        help="store this run's rewards as the baseline of the tests that have max_regression",
    )


def read_settings(config: pytest.Config, environ: Mapping[str, str] = os.environ) -> Settings:
    """Read and check all settings.

    Raises:
        pytest.UsageError: If a value is not allowed; it names the option, the value and where it came from.
    """
    from pytest_synth.evals.settings import Settings
    from pytest_synth.plugin.tables import price_table, provider_table, redact_patterns

    def value(name: str) -> tuple[str | None, str]:
        option = next(o for o in OPTIONS if o.name == name)
        flag = config.getoption(option.dest)
        if flag is not None:
            return str(flag), option.flag
        if environ.get(option.variable):
            return environ[option.variable], option.variable
        ini = config.getini(option.dest)
        if ini:
            return str(ini), f"ini value {option.dest}"
        return option.default, option.flag

    def checked(name: str, allowed: str, accept: Callable[[str], bool]) -> str:
        text, origin = value(name)
        assert text is not None
        if not accept(text):
            raise pytest.UsageError(f"{origin}: {text!r} is not allowed; use {allowed}")
        return text

    def switch(name: str) -> bool:
        text, origin = value(name)
        word = (text or "false").lower()
        if word not in _SWITCH:
            raise pytest.UsageError(f"{origin}: {text!r} is not allowed; use true or false")
        return _SWITCH[word]

    app, app_origin = value("app")
    if app is not None and not app.replace(":", "", 1).replace(".", "").replace("_", "").isalnum():
        raise pytest.UsageError(f"{app_origin}: {app!r} is not allowed; use MODULE:ATTR, as in my_app:app")
    if app is not None and (app.count(":") != 1 or app.startswith(":") or app.endswith(":")):
        raise pytest.UsageError(f"{app_origin}: {app!r} is not allowed; use MODULE:ATTR, as in my_app:app")
    provider, _ = value("provider")
    model, _ = value("model")
    if provider != "offline" and model == "lexical":
        raise pytest.UsageError(f"provider {provider!r} is named without a model; add --synth-model")
    mode, mode_origin = value("record_mode")
    if mode is not None and mode not in RECORD_MODES:
        raise pytest.UsageError(f"{mode_origin}: {mode!r} is not allowed; use {', '.join(RECORD_MODES)}")
    max_cost, dry_run = _dollars(*value("max_cost")), config.getoption("synth_dry_run")
    if max_cost is not None and value("backend")[0] != "local":
        raise pytest.UsageError("--synth-max-cost is held by the embedded backend only; leave one of the two")
    if dry_run and hasattr(config, "workerinput"):
        raise pytest.UsageError("--synth-dry-run plans in one process; leave -n out")
    return Settings(
        app=app,
        backend=checked(
            "backend",
            "local, hosted or a URL (http:// or https://)",
            lambda text: text in ("local", "hosted") or text.startswith(("http://", "https://")),
        ),
        tunnel=checked("tunnel", ", ".join(TUNNELS), lambda text: text in TUNNELS),
        provider=provider or "offline",
        model=model or "lexical",
        concurrency=int(
            checked(
                "concurrency", "a whole number from 1", lambda t: t.isascii() and t.isdigit() and int(t) > 0
            )
        ),
        rootpath=config.rootpath,
        record_mode=mode,
        redact=redact_patterns(config.getini("synth_redact")),
        max_cost=max_cost,
        prices=price_table(config.getini("synth_prices")),
        providers=provider_table(config.getini("synth_providers")),
        dry_run=dry_run,
        fail_fast=switch("fail_fast"),
        update_baseline=config.getoption("synth_update_baseline"),
        optimize=config.getoption("synth_optimize"),
    )


def _dollars(text: str | None, origin: str) -> float | None:
    if text is None:
        return None
    try:
        usd = float(text)
    except ValueError:
        usd = -1.0
    if not 0 <= usd < float("inf"):
        raise pytest.UsageError(f"{origin}: {text!r} is not allowed; use US dollars, as in 0.25")
    return usd
