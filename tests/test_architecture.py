"""The import rules of the packages, checked on the syntax tree."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "pytest_synth"

# What each part may import of the others, beside `errors`, which all may.
ALLOWED = {
    "": {"client", "contracts", "evals", "localapi", "prompts", "tunnels", "backend", "plugin"},  # lazy
    "errors": set(),
    "_serving": set(),
    "prompt_files": set(),
    "prompts": {"prompt_files"},
    "contracts": set(),
    "client": {"contracts", "prompts"},
    "localapi": {"contracts", "prompts"},
    "tunnels": {"_serving", "client"},
    "backend": {"contracts", "prompts", "_serving"},
    "gates": {"contracts", "prompts"},
    "report": {"contracts", "prompts"},
    "evals": {
        "prompt_files", "contracts", "prompts", "_serving", "client", "localapi", "tunnels", "gates",
        "report", "backend",
    },
    "plugin": {
        "evals", "prompt_files", "contracts", "prompts", "_serving", "client", "localapi", "tunnels",
        "gates", "report", "backend",
    },
    "cli": {
        "evals", "prompt_files", "contracts", "prompts", "_serving", "client", "localapi", "tunnels",
        "gates", "report", "backend",
    },
}  # fmt: skip

# Inside `backend` imports go down only; a part may import those to its left.
BACKEND_ORDER = ["store", "gateway", "optimizer", "jobs", "routes", "app", "running"]

# What importing the plugin must not pull in (checked on module-level imports, and by running it).
HEAVY = {"fastapi", "starlette", "uvicorn", "httpx", "aiohttp", "pydantic", "gepa", "syrupy"}


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def part(path: Path) -> str:
    first = path.relative_to(PACKAGE).parts[0]
    return "" if first == "__init__.py" else first.removesuffix(".py")


def imports(path: Path, *, top_level_only: bool = False) -> list[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = tree.body if top_level_only else list(ast.walk(tree))
    found: list[str] = []
    for node in nodes:
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: write imports in full, not relative"
            base = node.module or ""
            found += [f"{base}.{alias.name}" for alias in node.names]
    return found


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_a_part_imports_only_what_the_design_allows(path: Path) -> None:
    own = part(path)
    for name in imports(path):
        pieces = name.split(".")
        if pieces[0] != "pytest_synth" or len(pieces) == 1:
            continue
        other = pieces[1]
        if not (PACKAGE / other).exists() and not (PACKAGE / f"{other}.py").exists():
            continue  # a lazy public name of the package itself
        assert other in ALLOWED[own] | {own, "errors"}, f"{own or '__init__'} must not import {name}"


@pytest.mark.parametrize(
    "path", [p for p in modules() if part(p) != "backend"], ids=lambda p: str(p.relative_to(PACKAGE))
)
def test_only_start_of_the_backend_is_used_from_outside(path: Path) -> None:
    for name in imports(path):
        if name.startswith("pytest_synth.backend."):
            assert name.split(".")[2] in {"start", "BackendSettings", "RunningBackend"}, name


@pytest.mark.parametrize(
    "path", [p for p in modules() if part(p) == "backend"], ids=lambda p: str(p.relative_to(PACKAGE))
)
def test_inside_the_backend_imports_go_down_only(path: Path) -> None:
    inner = path.relative_to(PACKAGE / "backend").parts[0].removesuffix(".py")
    if inner not in BACKEND_ORDER:
        assert inner == "__init__", f"backend/{inner} has no place in the order {BACKEND_ORDER}"
        return
    for name in imports(path):
        if name.startswith("pytest_synth.backend."):
            other = name.split(".")[2]
            assert BACKEND_ORDER.index(other) <= BACKEND_ORDER.index(inner), f"{path.name} imports {name}"


@pytest.mark.parametrize(
    "name",
    [
        "__init__.py",
        "errors.py",
        "evals/__init__.py",
        "evals/settings.py",
        "plugin/__init__.py",
        "plugin/detect.py",
        "plugin/fixtures.py",
        "plugin/options.py",
        "plugin/outputs.py",
    ],
)
def test_what_the_plugin_loads_at_start_up_imports_nothing_heavy(name: str) -> None:
    roots = {n.split(".")[0] for n in imports(PACKAGE / name, top_level_only=True)}
    assert not roots & HEAVY
