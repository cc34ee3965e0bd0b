"""docs/faults.md names a test for each fault, and each of them exists; what the source itself must not hold."""

from __future__ import annotations

import ast
import configparser
import re
from pathlib import Path

HOME = Path(__file__).parents[2]
PAGE = HOME / "docs/faults.md"
PACKAGES = ("shm_ring", "shmcam", "capture", "analyzer", "exporter", "recorder", "streamer")
ROW = re.compile(r"^\| (S?\d+) \| .+ \| .+ \| (.+) \| (.*) ?\|$", re.MULTILINE)
NAMED = re.compile(r"`([\w/]+\.py)::(\w+)`")


def is_test(reference: str) -> bool:
    """Tells whether a test exists that is named as `file.py::test_name`, below tests/."""
    file, _, name = reference.partition("::")
    path = HOME / "tests" / file
    tree = ast.parse(path.read_text() if path.exists() else "")
    return name in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


def test_each_row_of_the_matrix_is_there_and_names_tests_that_exist():
    rows = {number: tests for number, tests, _ in ROW.findall(PAGE.read_text())}
    assert list(rows) == [*map(str, range(1, 48)), *(f"S{number}" for number in range(1, 23))]
    missing = []
    for number, tests in rows.items():
        named = NAMED.findall(tests)
        assert named, f"row {number} names no test"
        missing += [f"{number}: {file}::{name}" for file, name in named if not is_test(f"{file}::{name}")]
    assert not missing, missing


def test_no_data_becomes_code():
    """No pickle, marshal, shelve or yaml, no eval or exec, no shell."""
    found = []
    for path in (path for package in PACKAGES for path in (HOME / package).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            elif isinstance(node, ast.Call):
                names = [f"{ast.unparse(node.func)}()"]
                names += ["shell"] if any(word.arg == "shell" for word in node.keywords) else []
            banned = {"pickle", "marshal", "shelve", "dill", "yaml", "eval()", "exec()", "compile()", "shell"}
            banned |= {"os.system()", "os.popen()", "subprocess.getoutput()"}
            found += [f"{path.relative_to(HOME)}:{node.lineno} {name}" for name in names if name in banned]
    assert not found, found


def test_supervisord_listens_for_its_owner_only():
    conf = configparser.RawConfigParser(inline_comment_prefixes=(";",))
    conf.read(HOME / "supervisord.conf")
    assert conf["unix_http_server"]["chmod"] == "0700"
    assert "inet_http_server" not in conf
    assert all(not section.get("user") for section in conf.values())
