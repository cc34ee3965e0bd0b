"""Finds which folders of [paths] cannot be used: one on a disk that is away stops only what needs it."""

from __future__ import annotations

import os
import pwd
import shlex
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from msgspec import Struct

from shmcam.config.settings import Settings
from shmcam.runtime.atomic_files import existing_parent_of

RUN_MODE = 0o750
"""Mode of a run folder that we make; one that is there keeps its own, it may be anybody's."""

DEPTH = 2
"""Levels below a folder where files of another user are looked for: sessions of recordings, days of captures."""


class FolderProblem(Struct, frozen=True):
    """A folder or file of [paths] that this process cannot use."""

    name: str
    """The key of [paths]; captures for export.base_dir."""
    path: Path
    reason: str
    type_this: str = ""
    """A line for the shell; empty: the disk has to come back."""

    def __str__(self) -> str:
        return f"{self.name}: {self.path} {self.reason}"


def make_folders(settings: Settings) -> list[FolderProblem]:
    """Makes the folders of [paths] as far as possible. Returns: what cannot be used, that of `run` first."""
    for name, folder in _folders_of(settings).items():
        with suppress(OSError):
            folder.parent.mkdir(parents=True, exist_ok=True)
            folder.mkdir(mode=RUN_MODE if name == "run" else 0o777, exist_ok=True)
    return find_folder_problems(settings)


def find_folder_problems(settings: Settings, *, look_inside: bool = True) -> list[FolderProblem]:
    """Returns the folders that cannot be written, or in which another user's files are in the way."""
    problems = []
    for name, folder in _folders_of(settings).items():
        if reason := explain_unusable(folder):
            problems.append(FolderProblem(name, folder, reason, _line_for(folder)))
        elif look_inside and (foreign := next(_find_foreign(folder, DEPTH), None)):
            reason = f"has files of {user_name(foreign.lstat().st_uid)}, such as {foreign.name}"
            problems.append(FolderProblem(name, folder, reason, _line_for(folder)))
    library = settings.paths.library
    if reason := explain_unusable(library.parent):
        problems.append(FolderProblem("library", library.parent, reason))
    elif foreign_files := [path for path in sorted(library.parent.glob(f"{library.stem}.*")) if _is_foreign(path)]:
        reason = f"belongs to {user_name(foreign_files[0].lstat().st_uid)}"
        line = f"sudo chown {user_name(os.getuid())} {shlex.join(map(str, foreign_files))}"
        problems.append(FolderProblem("library", foreign_files[0], reason, line))
    return problems


def explain_unusable(folder: Path) -> str:
    """Returns the reason why nothing can be written in a folder, or why it cannot be made; empty: it can."""
    if folder.is_symlink() and not folder.exists():
        return f"is a link to {folder.readlink()}, which is not there"
    there = existing_parent_of(folder)
    subject = "" if there == folder else f"cannot be made, because {there} "
    if not there.is_dir():
        return f"{subject}is no folder"
    if os.access(there, os.W_OK | os.X_OK):
        return ""
    if os.statvfs(there).f_flag & os.ST_RDONLY:
        return f"{subject}is mounted read-only"
    return f"{subject}belongs to {user_name(there.stat().st_uid)}, and {user_name(os.getuid())} may not write there"


def _folders_of(settings: Settings) -> dict[str, Path]:
    """Returns the folders under the names that the file gives them: a link whose disk is away is told, never made."""
    paths = settings.paths
    names = ("run", "logs", "captures", "recordings", "archives")
    return {name: paths.links.get(name, getattr(paths, name)) for name in names}


def _find_foreign(folder: Path, depth: int) -> Iterator[Path]:
    """Yields what lies in a folder and cannot be written because it is another user's."""
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError:
        return
    for entry in entries:
        path = Path(entry.path)
        if _is_foreign(path):
            yield path
        elif depth > 1 and entry.is_dir(follow_symlinks=False):
            yield from _find_foreign(path, depth - 1)


def _is_foreign(path: Path) -> bool:
    try:
        status = path.lstat()
    except OSError:  # removed since
        return False
    return status.st_uid != os.getuid() and not path.is_symlink() and not os.access(path, os.W_OK)


def _line_for(folder: Path) -> str:
    """Returns the line that gives a folder to this user; empty where its owner is not what is wrong."""
    there, user = existing_parent_of(folder), user_name(os.getuid())
    if folder.is_symlink() or not there.is_dir() or os.statvfs(there).f_flag & os.ST_RDONLY:
        return ""
    line = f"chown -R {user}" if folder.exists() else f"install -d -o {user}"
    return f"sudo {line} {shlex.quote(str(folder))}"


def user_name(uid: int) -> str:
    """Returns the name of a user, or the number where /etc/passwd has none, as in many containers."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
