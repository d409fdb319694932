"""Small projects with evals in them, run by pytester."""

from __future__ import annotations

from importlib import import_module
from pkgutil import walk_packages

import pytest

import pytest_synth

# pytester forgets what an in-process run has imported. Loaded here, all of it is loaded once for all runs,
# and they run one state of the package, also where somebody edits the checkout meanwhile.
for module in walk_packages(pytest_synth.__path__, "pytest_synth."):
    if not module.name.endswith("__main__"):
        import_module(module.name)

# 20 rows; "yes" is right for all but every fifth: a mean reward of exactly 0.80.
APP = """
from pytest_synth import task_app

ROWS = {"test": [{"label": "no" if i % 5 == 0 else "yes"} for i in range(20)]}

def run(row, llm):
    return "yes"

def score(row, answer):
    return answer == row["label"]

app = task_app(rows=ROWS, run=run, score=score)
"""

INI = """
[pytest]
synth_app = my_app:app
filterwarnings =
    error
    ignore:Module already imported so cannot be rewritten:pytest.PytestAssertRewriteWarning
asyncio_default_fixture_loop_scope = function
"""

PLAIN = ("-p", "no:randomly", "-p", "no:cacheprovider")


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """A project with a task app whose 20 seeds have a mean reward of 0.80."""
    for name in ("SYNTH_API_KEY", "SYNTH_BACKEND_URL", "ENVIRONMENT_API_KEY", "CI", "GITHUB_STEP_SUMMARY"):
        monkeypatch.delenv(name, raising=False)
    pytester.makepyfile(my_app=APP)
    pytester.makefile(".ini", pytest=INI)
    return pytester
