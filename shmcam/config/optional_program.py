"""The base of the tables of optional programs ([hooks], [mqtt] …), which supervisord has only if `enable = true`.

The program is the package of the settings module that declares the table: `python -m shmcam.hooks`. It may need
software that `pip install shmcam` does not bring; the line to type for that is made here, for every place that says it.
"""

from __future__ import annotations

import importlib.util
import shlex
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, ClassVar

from msgspec import Struct

from shmcam.config.schema import Section, load_tables, setting
from shmcam.config.settings import Settings


class Need(Struct, frozen=True):
    """Software that a program cannot run without."""

    name: str
    """A Python package's import name or a command's name."""
    type_this: str
    """The line that installs it."""
    is_command: bool = False

    @classmethod
    def of_extra(cls, module: str, extra: str) -> Need:
        """Returns the need of a module that an extra of pyproject.toml brings."""
        pip = Path(sys.prefix) / "bin/pip"
        return cls(module, f"{shlex.quote(str(pip))} install 'shmcam[{extra}]'")

    @classmethod
    def of_command(cls, command: str, apt_package: str) -> Need:
        """Returns the need of a command that a Debian package brings."""
        return cls(command, f"sudo apt-get install {apt_package}", is_command=True)

    @property
    def is_met(self) -> bool:
        """True if it is installed."""
        if self.is_command:
            return shutil.which(self.name) is not None
        return importlib.util.find_spec(self.name) is not None

    def __str__(self) -> str:
        return f"needs {self.name}; type: {self.type_this}"


class OptionalProgram(Section, frozen=True):
    """The base of the table of a program that runs only if it is enabled."""

    is_of_program: ClassVar[bool] = True

    enable: Annotated[bool, setting("run this program; after a change here type `shmcam update`", apply="file")] = False

    def list_needs(self) -> tuple[Need, ...]:
        """Returns what a program with this table needs besides what shmcam itself brings."""
        return ()

    @classmethod
    def is_wanted(cls, settings: Settings) -> bool:
        """Returns whether supervisord has this program."""
        return settings.table(cls).enable


def optional_programs() -> Mapping[str, type[OptionalProgram]]:
    """Returns the tables of all optional programs; a table and its program have one name."""
    return {name: section for name, section in load_tables().items() if issubclass(section, OptionalProgram)}


def list_enabled(settings: Settings) -> list[str]:
    """Returns the names of the optional programs that a configuration wants."""
    return [name for name, section in optional_programs().items() if section.is_wanted(settings)]


def find_missing(settings: Settings, name: str) -> Need | None:
    """Returns what the program of this name needs and is not installed; None: it has all, or is not optional."""
    section = optional_programs().get(name)
    needs = settings.table(section).list_needs() if section else ()
    return next((need for need in needs if not need.is_met), None)
