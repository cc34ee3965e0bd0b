"""`make setup` and `make test-oldest` install from lock.txt and oldest.txt, which agree with pyproject.toml."""

import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
RUN = PROJECT["dependencies"]


def pins_of(name: str) -> dict[str, list[Requirement]]:
    pins: dict[str, list[Requirement]] = {}
    for line in (ROOT / "packaging" / name).read_text().splitlines():
        if line[:1].isalnum():
            pin = Requirement(line)
            pins.setdefault(canonicalize_name(pin.name), []).append(pin)
    return pins


@pytest.mark.parametrize(
    ("name", "wanted"), [("lock.txt", [*RUN, *PROJECT["optional-dependencies"]["test"]]), ("oldest.txt", RUN)]
)
def test_each_dependency_has_a_pin_that_pyproject_allows(name, wanted):
    pins = pins_of(name)
    for requirement in map(Requirement, wanted):
        found = pins.get(canonicalize_name(requirement.name), [])
        versions = [next(iter(pin.specifier)).version for pin in found]
        assert versions and all(requirement.specifier.contains(version) for version in versions), (
            f"packaging/{name} has {requirement.name} {versions}, pyproject.toml wants {requirement}: type `make lock`"
        )


@pytest.mark.parametrize("name", ["lock.txt", "oldest.txt"])
def test_nothing_is_pinned_that_no_dependency_needs(name):
    """uv names for each pin what it is there for; a dependency that left pyproject.toml must leave the lock, too."""
    wanted = {canonicalize_name(Requirement(line).name) for line in [*RUN, *PROJECT["optional-dependencies"]["test"]]}
    text = (ROOT / "packaging" / name).read_text()
    direct = [block for block in text.split("\n") if block[:1].isalnum()]
    for line, why in zip(direct, _reasons(text), strict=True):
        if "shmcam (pyproject.toml)" in why:
            assert canonicalize_name(Requirement(line).name) in wanted, f"{line}: type `make lock`"


def _reasons(text: str) -> list[str]:
    reasons: list[str] = []
    for line in text.splitlines():
        if line[:1].isalnum():
            reasons.append("")
        elif reasons:
            reasons[-1] += line
    return reasons


def test_each_dependency_of_the_service_has_an_upper_bound():
    """OpenCV 5 came under `>=4.8`."""
    open_ended = [line for line in RUN if "<" not in str(Requirement(line).specifier)]
    assert not open_ended


def test_pip_is_not_asked_for_hashes():
    """A constraints file with hashes refuses the editable install of the clone itself."""
    assert "--hash" not in (ROOT / "packaging/lock.txt").read_text()
    assert subprocess.run(["sh", "-n", ROOT / "packaging/setup.sh"], check=False).returncode == 0
