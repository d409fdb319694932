from __future__ import annotations

from pathlib import Path

import pytest

VARIABLES = (
    "SYNTH_API_KEY", "SYNTH_BACKEND_URL", "ENVIRONMENT_API_KEY", "DEV_ENVIRONMENT_API_KEY",
    "dev_environment_api_key", "ENVIRONMENT_API_KEY_ALIASES",
    "SYNTH_USER_ID", "X_USER_ID", "SYNTH_ORG_ID", "X_ORG_ID",
)  # fmt: skip


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No key and no address from outside, and a home that shows whether something is written to it."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(tmp_path)
