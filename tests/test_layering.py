"""design.md §1: who may import whom. A package this table does not name is a process and gets a process's rights."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SHARED = {
    "imaging": set(),
    "service": set(),
    "shm_ring": {"imaging"},
    "control": {"service"},
    "library": {"service"},
}
LAZY = {"control": {"shm_ring", "imaging", "library", "exporter", "streamer", "capture"}}
"""The command line starts tools of other packages, importing them only when asked to."""
TOOLS = {"bench", "tests", "docs", "examples"}
PACKAGES = sorted(path.parent.name for path in ROOT.glob("*/__init__.py") if path.parent.name not in TOOLS)


def imports(path: Path):
    """(imported top-level package, whether only when a function runs), for our packages."""
    tree = ast.parse(path.read_text())
    lazy = {
        id(node)
        for outer in ast.walk(tree)
        if isinstance(outer, ast.FunctionDef | ast.AsyncFunctionDef)
        for node in ast.walk(outer)
    }
    for node in ast.walk(tree):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
        for name in names:
            if name.split(".")[0] in PACKAGES:
                yield name.split(".")[0], id(node) in lazy


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_keep_to_the_table(package):
    allowed = SHARED.get(package, set(SHARED)) | {package}
    wrong = []
    for path in sorted((ROOT / package).rglob("*.py")):
        for name, lazy in imports(path):
            if name not in allowed and not (lazy and name in LAZY.get(package, ())):
                wrong.append(f"{path.relative_to(ROOT)} imports {name}")
    assert not wrong


def test_processes_never_import_each_other():
    processes = set(PACKAGES) - set(SHARED)
    assert processes >= {"capture", "analyzer", "exporter", "recorder", "streamer"}


@pytest.mark.parametrize("heavy", ["numpy", "cv2", "av", "aiohttp"])
def test_settings_and_the_hub_are_light(heavy):
    """Every process loads every table of settings, and the hub runs on a 512 MB Pi (design.md §2)."""
    for path in [*ROOT.glob("*/settings.py"), *(ROOT / "service").glob("*.py")]:
        names = {
            alias.name
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Import)
            for alias in node.names
        }
        assert heavy not in names, path


def test_the_analyzer_does_without_opencv():
    for path in (ROOT / "analyzer").rglob("*.py"):
        assert "cv2" not in path.read_text(), path
