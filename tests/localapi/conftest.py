from __future__ import annotations

import pytest
from fakes.task_caller import KEY


@pytest.fixture(autouse=True)
def environment_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """The app's key, and no other task-app key of the machine that runs the tests."""
    for name in ("DEV_ENVIRONMENT_API_KEY", "dev_environment_api_key", "ENVIRONMENT_API_KEY_ALIASES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ENVIRONMENT_API_KEY", KEY)
