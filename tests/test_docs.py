"""What README and docs point at is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from shmcam.config.schema import TABLES_GROUP, list_keys

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
LINK = re.compile(r"\]\(([^)#\s]+)")
CODE = re.compile(r"`([\w./-]+)`")
FOLDERS = {
    "analyzer",
    "bench",
    "capture",
    "docs",
    "examples",
    "exporter",
    "packaging",
    "recorder",
    "shm_ring",
    "shmcam",
    "streamer",
    "tests",
}
FORMER = {"control", "imaging", "library", "service"}
"""Folders of before the move: nothing may still name a file in them."""


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_links_lead_somewhere(page):
    links = [link for link in LINK.findall(page.read_text()) if "://" not in link]
    assert not [link for link in links if not (page.parent / link).exists()]


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_files_and_modules_that_are_named_are_there(page):
    if page.name == "CHANGELOG.md":
        return  # it names what was
    no_module = {TABLES_GROUP, *list_keys()}
    gone = []
    for text in CODE.findall(page.read_text()):
        first = re.split(r"[./]", text)[0]
        if "/" in text and first in FOLDERS | FORMER:
            gone += [text] * (not (ROOT / text).exists())
        elif text not in no_module and first in FOLDERS and re.fullmatch(r"[a-z_]+(\.[a-z_0-9]+)+", text):
            module = ROOT / text.replace(".", "/")
            gone += [text] * (module.parent.is_dir() and not (module.is_dir() or module.with_suffix(".py").exists()))
    assert not gone


IMPORT = re.compile(
    r"^(?:from (?:shm_ring|shmcam)[\w.]* import [\w, ]+|import (?:shm_ring|shmcam)[\w.]*)$", re.MULTILINE
)


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_the_imports_of_examples_work(page):
    blocks = re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)
    for line in IMPORT.findall("\n".join(blocks)):
        exec(line, {})
