"""Where code may lie and who may import whom (docs/architecture.md, CONTRIBUTING.md).

A package that the table does not name is a process and gets a process's rights: a new consumer changes nothing here.
"""

from __future__ import annotations

import ast
from collections import Counter, defaultdict
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SHARED = {
    "shm_ring": set(),
    "shmcam": {"shmcam.client"},
    "shmcam.client": {"shmcam.config", "shmcam.control", "shmcam.cli"},
    "shmcam.imaging": {"shm_ring"},
    "shmcam.config": set(),
    "shmcam.runtime": {"shmcam.config"},
    "shmcam.network": set(),
    "shmcam.video": {"shm_ring", "shmcam.imaging", "shmcam.config", "shmcam.runtime"},
    "shmcam.control": {"shmcam.config", "shmcam.network", "shmcam.runtime"},
    "shmcam.library": {"shmcam.imaging", "shmcam.config", "shmcam.runtime", "shmcam.video"},
    "shmcam.hub": {"shmcam.config", "shmcam.control", "shmcam.network", "shmcam.runtime"},
    "shmcam.watchdog": {"shmcam.config", "shmcam.control", "shmcam.runtime"},
    "shmcam.cli": {"shmcam.config", "shmcam.control", "shmcam.runtime"},
}
FOR_ALL = {
    "shm_ring",
    *(f"shmcam.{name}" for name in ("imaging", "network", "runtime", "config", "video", "control", "library")),
}
"""What a process may import beside itself."""
COMMAND_LINE = "shmcam.cli.main"
"""Each word's code is imported when the word is typed, and may then import anything."""
TOOLS = {"bench", "tests", "docs", "examples", ".venv", "build"}
FILES = sorted(path for path in ROOT.glob("*/**/*.py") if path.relative_to(ROOT).parts[0] not in TOOLS)
MODULES = {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in FILES}


def package_of(module: str) -> str:
    """capture.sources.base → capture, shmcam.hub.router → shmcam.hub."""
    return ".".join(module.split(".")[: 2 if module.startswith("shmcam.") else 1])


PACKAGES = sorted({package_of(module) for module in MODULES})


@cache
def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


@cache
def imports(path: Path) -> list[tuple[str, bool]]:
    """(imported module of ours, whether only when a function runs)."""
    return list(find_imports(parse(path), lazy=False))


def find_imports(tree: ast.AST, *, lazy: bool):
    for node in ast.iter_child_nodes(tree):
        yield from find_imports(node, lazy=lazy or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            below = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if name in MODULES else node.module for name in below]
        for name in names:
            if name in MODULES:
                yield name, lazy


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_keep_to_the_table(package):
    allowed = {package} | SHARED.get(package, FOR_ALL)
    wrong = [
        f"{module} imports {name}"
        for module, path in MODULES.items()
        if package_of(module) == package and package != package_of(COMMAND_LINE)
        for name, _ in imports(path)
        if package_of(name) not in allowed
    ]
    assert not wrong


def test_the_command_line_is_light_until_it_knows_the_word():
    allowed = {package_of(COMMAND_LINE)} | SHARED[package_of(COMMAND_LINE)]
    seen, reached = set(), {COMMAND_LINE}
    while reached - seen:
        module = (reached - seen).pop()
        seen.add(module)
        if package_of(module) == package_of(COMMAND_LINE):
            reached |= {name for name, lazy in imports(MODULES[module]) if not lazy}
    assert {package_of(module) for module in seen} <= allowed


def test_processes_never_import_each_other():
    assert set(PACKAGES) - set(SHARED) >= {"capture", "analyzer", "exporter", "recorder", "streamer"}


@pytest.mark.parametrize("heavy", ["numpy", "cv2", "av", "aiohttp"])
def test_settings_and_the_hub_are_light(heavy):
    """Every process loads every table of settings, and the hub runs on a 512 MB Pi (design.md §2)."""
    for module, path in MODULES.items():
        if not (module.endswith(".settings") or package_of(module) in {"shmcam.config", "shmcam.runtime"}):
            continue
        names = {alias.name for node in ast.walk(parse(path)) if isinstance(node, ast.Import) for alias in node.names}
        assert heavy not in names, path


def test_the_analyzer_does_without_opencv():
    for path in (ROOT / "analyzer").rglob("*.py"):
        assert "cv2" not in path.read_text(), path


def test_there_is_no_circle_of_imports():
    """Not even one that an import inside a function opens."""
    graph = {module: {name for name, _ in imports(path)} - {module} for module, path in MODULES.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as circle:
        raise AssertionError(" → ".join(circle.args[1])) from None


MODULES_MAX = 16
"""In one folder, `__init__` and `__main__` counted: what a reader can take in at a glance (style.md R2)."""


def test_a_folder_has_at_most_16_modules():
    crowded = {folder: count for folder, count in Counter(path.parent for path in FILES).items() if count > MODULES_MAX}
    assert not crowded, "make sub-packages by subject"


SEEN_BY_USERS = {"Cameras", "Health", "Settings", "Viewers"}
"""Messages on the wire (Settings: of config.toml) that are schemas of /openapi.json too; both stay. Only shrinks."""


def test_no_class_is_called_as_another_one():
    places = defaultdict(set)
    for module, path in MODULES.items():
        for node in ast.walk(parse(path)):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places[node.name].add(module)
    twice = {name: sorted(modules) for name, modules in places.items() if len(modules) > 1}
    assert twice.keys() == SEEN_BY_USERS, twice


def test_modules_are_imported_under_their_own_names():
    """Two of one name in one file excepted: `device as v4l2_device`. `c` is the messages, in tables of them."""
    wrong = []
    for module, path in MODULES.items():
        for node in ast.walk(parse(path)):
            for alias in node.names if isinstance(node, ast.ImportFrom) else []:
                plain = alias.asname in (None, alias.name, "c") or str(alias.asname).endswith(f"_{alias.name}")
                if f"{node.module}.{alias.name}" in MODULES and not plain:
                    wrong.append(f"{module}: {node.module}.{alias.name} as {alias.asname}")
    assert not wrong


SLEEPS = {"time", "asyncio"}
PLACES_OF_A_PACE = ast.While | ast.For | ast.AsyncFor | ast.Lambda


def find_sleeps(node: ast.AST, *, in_loop: bool = False):
    """(line, whether in a loop) of each time.sleep and asyncio.sleep."""
    for inner in ast.iter_child_nodes(node):
        match inner:
            case ast.Call(func=ast.Attribute(value=ast.Name(id=module), attr="sleep")) if module in SLEEPS:
                yield inner.lineno, in_loop
        is_function = isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef)
        yield from find_sleeps(inner, in_loop=(in_loop or isinstance(inner, PLACES_OF_A_PACE)) and not is_function)


def test_a_test_that_sleeps_says_why():
    """A wait has a condition (tests.machine.until). A sleep in a loop is a poll or a pace; others have a comment."""
    wrong = []
    for path in sorted((ROOT / "tests").rglob("*.py")):
        text = path.read_text()
        if "sleep(" in text:
            lines = text.splitlines()
            for number, in_loop in find_sleeps(ast.parse(text)):
                if not in_loop and "#" not in lines[number - 1] and "sleep(0)" not in lines[number - 1]:
                    wrong.append(f"{path.relative_to(ROOT)}:{number}: {lines[number - 1].strip()}")
    assert not wrong, "\n".join(wrong)
