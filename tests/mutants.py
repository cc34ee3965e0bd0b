"""`make mutants`: changes pure modules in small ways (mutmut), and counts the changes that no test of theirs notices.

Each module is judged by its own file of tests alone. ARGS="parser triggers" takes some of them. Exits 1 where fewer
than KILLED_MIN of the changes are noticed; `cd build/mutants/NAME && mutmut show MUTANT` shows one that lived.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "build/mutants"
KILLED_MIN = 0.95
TREE = ("shmcam", "shm_ring", "capture", "analyzer", "exporter", "recorder", "streamer", "tests", "bench")

MODULES = {
    "shmcam/watchdog/hang_detector.py": "tests/shmcam/watchdog/test_hang_detector.py",
    "shmcam/watchdog/restart_policy.py": "tests/shmcam/watchdog/test_hang_detector.py",
    "shmcam/watchdog/supervisord_events.py": "tests/shmcam/watchdog/test_hang_detector.py",
    "shmcam/control/parser.py": "tests/shmcam/control/test_parse.py",
    "shmcam/control/codec.py": "tests/shmcam/control/test_codec.py",
    "shmcam/library/retention.py": "tests/shmcam/library/test_retention.py",
    "analyzer/night/decision.py": "tests/analyzer/night/test_decision.py",
    "recorder/triggers.py": "tests/recorder/test_triggers.py",
}
"""Each module, and the tests that should notice a change in it. Not shm_ring/layout.py: most of it runs at the import,
before mutmut changes anything; tests/shm_ring/test_layout.py pins its numbers."""

# A run of pytest for each mutant: what it does at its start and end takes longer than the tests. Without plugins and
# without the collections of garbage that look for unraisable exceptions, all of it takes a third of the time.
CONFIG = """
[tool.mutmut]
source_paths = ["{module}"]
also_copy = {tree}
pytest_add_cli_args = ["-m", "not slow", "-p", "no:cacheprovider", "-p", "no:unraisableexception"]
pytest_add_cli_args_test_selection = ["{tests}"]
"""


def run_module(module: str, tests: str) -> tuple[int, int]:
    """Runs the tests on each mutant of a module, in a copy of the tree. Returns: mutants killed, and all of them."""
    folder = FOLDER / Path(module).stem
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name in TREE:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for path in (*ROOT.glob("*.toml"), *ROOT.glob("*.conf"), ROOT / "README.md"):
        shutil.copy(path, folder)
    with (folder / "pyproject.toml").open("a") as file:
        file.write(CONFIG.format(module=module, tests=tests, tree=json.dumps(TREE)))
    program, environ = [sys.executable, "-m", "mutmut"], os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    with (folder / "out.txt").open("w") as out:
        run = [*program, "run", "--max-children", str(os.cpu_count())]
        subprocess.run(run, cwd=folder, stdout=out, stderr=out, env=environ)
    subprocess.run([*program, "export-cicd-stats"], cwd=folder, stdout=subprocess.DEVNULL)
    stats = json.loads((folder / "mutants/mutmut-cicd-stats.json").read_text())
    return stats["killed"] + stats["timeout"], stats["total"] - stats["skipped"]


def main(words: list[str]) -> int:
    """Runs all modules or those named; prints the share of killed mutants of each."""
    bad = 0
    for module, tests in MODULES.items():
        if words and Path(module).stem not in words:
            continue
        killed, total = run_module(module, tests)
        share = killed / max(1, total)
        bad += share < KILLED_MIN
        print(f"{module:42} {killed:5} of {total:5} killed  {share:6.1%}  by {tests}", flush=True)
    return min(1, bad)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
