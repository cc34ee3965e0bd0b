"""What must be true after the storm: description, row, CSV, protection and frames of every clip agree."""

from __future__ import annotations

import json
import re
import time
from collections import defaultdict
from contextlib import suppress
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import av
import cv2
import numpy as np
import psutil

from shmcam.config.settings import Settings
from shmcam.library import Catalogue, Entry, LibraryError
from tests.machine import Deadline, anonymous_bytes
from tests.pipeline import Pipeline
from tests.reading import numbers_in_clip
from tests.recorder.rig import rows, timing_of

DELETED = re.compile(r"deleted path=(.+?) bytes=\d+ reason=(.+?) trigger=(\S+)")
MEDIA = (".jpg", ".png", ".tiff", ".npy", ".mp4")
MAX_NEW_DESCRIPTORS = 8
"""More open files than in the first half of its life: a connection more of hub or streamer."""
MAX_NEW_THREADS = 4
"""Threads of a pool that nobody needed before."""
MAX_NEW_BYTES = 40_000_000
"""More than any buffer that is filled late: a larger picture, a longer recording's index."""
SETTLE_S = 60.0
KEOGRAM_STATE = ".columns"
"""The suffix of the day so far, from which the keogram is made in the evening."""


class Wrong(AssertionError):
    """A promise that was broken."""


class Oracle:
    """Notes what was promised during the storm, and compares in the end."""

    def __init__(self, shmcam: Pipeline, cameras: tuple[str, ...] = ("cam0", "cam1")) -> None:
        self.shmcam, self.cameras = shmcam, cameras
        self.recovered_s: list[float] = []
        self.promised: dict[Path, str] = {}
        """Files that an answer named, and the command."""
        self.protected_labels: dict[str, str] = {}
        """Labels of recordings that had begun, with the time and the answer."""
        self.protected_numbers: set[int] = set()
        self.protected_paths: set[Path] = set()
        self._frame_ids: dict[str, int] = {}
        self._samples: dict[tuple[str, int], list[tuple[float, int, int, int]]] = defaultdict(list)
        self._whole: set[Path] = set()
        """Files that agreed with their rows when they were new."""
        self.checked = 0

    # ---- during the storm

    def note(self, line: str, answer: str, label: str) -> None:
        """Remembers what an answer promised."""
        if answer.startswith("Saved"):
            for path in re.findall(rf"{re.escape(str(self.shmcam.folder))}\S+?\.(?:jpg|npy|png)\b", answer):
                self.promised[Path(path)] = line
        # "recording begins with the first frame; none has come yet" promises no file to whoever stops it before.
        if line.startswith("record start") and "protect=true" in line and re.match(r"recording \S+ from frame", answer):
            self.protected_labels[label] = f"{datetime.now(UTC):%H:%M:%S} {answer}"
        if match := re.match(r"protect (\d+)", line):
            number = int(match[1])
            if not answer.startswith(("ERROR", "no answer")) and answer:
                with self.catalogue() as library:
                    entries = library.select("id = ?", (number,))
                if entries and entries[0].protected:
                    self.protected_paths.add(entries[0].path)

    def check_frame_ids(self, now: dict[str, int]) -> None:
        """Frame ids never go back: files and CSVs are named by them."""
        for camera, frame in now.items():
            if frame < self._frame_ids.get(camera, -1):
                raise Wrong(f"{camera}: frame id {frame} after {self._frame_ids[camera]}")
            self._frame_ids[camera] = frame

    def check_new_entries(self) -> None:
        """What has come into the library since the last call is whole, at the latest after a while. Raises: Wrong."""
        wrong: list[str] = []

        def is_whole() -> bool:
            wrong.clear()
            try:
                with self.catalogue() as library:
                    entries = [entry for entry in library.find() if entry.path not in self._whole]
            except (LibraryError, OSError) as problem:
                wrong.append(f"library: {problem}")
                return False
            for entry in entries:
                found = self._check_entry(entry)
                wrong.extend(found)
                self._whole |= set() if found else {entry.path}
            return not wrong

        self._until(is_whole, lambda: f"{len(wrong)} promises broken: {wrong[:5]}")

    def sample(self) -> None:
        """Descriptors, threads and private memory of each process."""
        for name, pid in ((name, self.shmcam.pid(name)) for name in self.shmcam.states()):
            try:
                process = psutil.Process(pid)
                sizes = process.num_fds(), process.num_threads(), anonymous_bytes(pid)
                self._samples[name, pid].append((time.monotonic(), *sizes))
            except (psutil.Error, OSError):
                continue

    # ---- in the end

    def catalogue(self) -> Catalogue:
        return Catalogue.of(Settings.load(self.shmcam.config, environ={}))

    def settle(self) -> None:
        """Ends the recordings, and waits until nothing grows and the library has a row for each file."""
        self._until(self._is_stopped, lambda: f"record stop: {self.shmcam.text('record status', 30)}")
        self._until(lambda: not self._parts(), lambda: f"growing files: {self._parts()}")
        self._until(lambda: not self._unfiled(), lambda: f"not in the library: {self._unfiled()}")

    def check_states(self) -> None:
        """Every cause has ended: nothing is shown as wrong any more. Raises: Wrong."""
        shown: list[str] = []

        def is_well() -> bool:
            data = self.shmcam.json({"command": "get_status"}, 30)["data"]
            shown[:] = [
                f"{row['program']} {row['state']}: {row['reason']}" for row in data["processes"] if row["reason"]
            ]
            shown.extend(f"{row['camera']} {row['state']}" for row in data["cameras"] if row["state"] != "found")
            shown.extend(f"{row['camera']} records" for row in data["cameras"] if row["recording"])
            return not shown

        self._until(is_well, lambda: f"still shown: {shown}")

    def check_all(self) -> None:
        """Raises Wrong with everything that is not as promised."""
        wrong: list[str] = []
        self.checked = 0
        with self.catalogue() as library:
            entries = library.find()
        deletions = {Path(match[1]): match for match in self._deletions()}
        for entry in entries:
            wrong += self._check_entry(entry)
        wrong += self._check_deletions(entries, deletions)
        with suppress(Wrong):  # the day that ended with a step of the clock may just be filed
            self._until(lambda: not (self._find_leftovers() or self._find_undeleted()), "")
        wrong += [f"deleted and there: {path.name}" for path in self._find_undeleted()]
        wrong += [f"left over: {path.relative_to(self.shmcam.folder)}" for path in self._find_leftovers()]
        names = {segment.name.partition(".")[2] for segment in self.shmcam.segments()}
        expected = {f"{camera}.{stream}" for camera in self.cameras for stream in ("main", "scores", "h264")}
        wrong += [f"left in /dev/shm: {name}" for name in names - expected]
        wrong += self._check_logs()
        wrong += self._check_resources()
        if wrong:
            raise Wrong("\n  ".join([f"{len(wrong)} promises broken", *wrong]))

    def report(self) -> str:
        """Returns the figures of this storm."""
        times = sorted(self.recovered_s) or [0.0]
        lines = [
            f"pairs={len(self.recovered_s)} well again: median {times[len(times) // 2]:.1f} s, "
            f"p95 {times[int(len(times) * 0.95)]:.1f} s, longest {times[-1]:.1f} s",
            f"files checked: {self.checked}, promised {len(self.promised)}, protected {len(self.protected_paths)}",
        ]
        for (name, pid), samples in sorted(self._samples.items()):
            hours = (samples[-1][0] - samples[0][0]) / 3600
            if hours > 1 / 12:
                slope = (samples[-1][3] - samples[len(samples) // 3][3]) / 1e6 / (hours * 2 / 3)
                lines.append(
                    f"{name} {pid}: {hours * 60:.0f} min, descriptors {samples[0][1]} → {samples[-1][1]}, "
                    f"threads {samples[0][2]} → {samples[-1][2]}, memory {slope:+.1f} MB/h"
                )
        return "\n".join(lines)

    # ---- inside

    def _until(self, condition, what) -> None:
        deadline = Deadline(SETTLE_S)
        while not condition():
            if deadline.has_passed():
                raise Wrong(f"{deadline}: {what() if callable(what) else what}")
            time.sleep(0.5)

    def _is_stopped(self) -> bool:
        self.shmcam.text("record stop", 30)
        status = self.shmcam.text("record status", 30)
        return all(camera in status for camera in self.cameras) and "RECORDING" not in status

    def _files(self) -> set[Path]:
        folders = (self.shmcam.folder / "captures", self.shmcam.folder / "recordings")
        return {path for folder in folders for path in folder.rglob("*") if path.is_file()}

    def _parts(self) -> list[str]:
        return sorted(path.name for path in self._files() if path.name.endswith(".part"))

    def _unfiled(self) -> list[str]:
        with self.catalogue() as library:
            known = {entry.path for entry in library.find()}
        return sorted(path.name for path in self._files() if path.suffix in MEDIA and path not in known)

    def _check_entry(self, entry: Entry) -> list[str]:
        path = entry.path
        if not path.exists():
            return [f"row {entry.id} without its file {path.name}"]
        self.checked += 1
        wrong = []
        beside = path.with_name(path.name + ".json")
        description = json.loads(beside.read_text()) if beside.exists() else {}
        if bool(description.get("protected", False)) != entry.protected:
            wrong.append(f"{path.name}: row protected={entry.protected}, file {description.get('protected')}")
        if path.suffix != ".mp4":
            picture = np.load(path) if path.suffix == ".npy" else cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
            return wrong + ([] if picture is not None and picture.size else [f"{path.name} does not open"])
        try:
            ids = numbers_in_clip(path)
        except (OSError, ValueError, IndexError, av.FFmpegError) as problem:
            return [*wrong, f"{path.name} does not open: {problem}"]
        if not beside.exists():
            wrong.append(f"{path.name} has no description")
        if not ids or None in ids or ids != sorted(set(ids)):
            wrong.append(f"{path.name}: frames {ids[:5]}…")
        elif (ids[0], len(ids)) != (entry.first_frame, entry.frames):
            wrong.append(
                f"{path.name}: begins at {ids[0]} with {len(ids)} frames, row {entry.first_frame} {entry.frames}"
            )
        elif description.get("frames") != len(ids) or description.get("first_frame") != ids[0]:
            wrong.append(f"{path.name}: {len(ids)} frames from {ids[0]}, description {description}")
        csv = timing_of(path)
        if not csv.exists():
            return [*wrong, f"{path.name} has no CSV"]
        lines = [(int(line["frame_number"]), int(line["dropped_since_last"])) for line in rows(csv)]
        if [number for number, _ in lines] != ids:
            wrong.append(f"{path.name}: CSV {lines[:3]} frames {ids[:3]}")
        uncounted = [after for (before, _), (after, lost) in pairwise(lines) if lost < after - before - 1]
        if uncounted:
            wrong.append(f"{path.name}: frames are missing before {uncounted[:3]} and were not counted")
        return wrong

    def _deletions(self) -> list[re.Match[str]]:
        text = "\n".join(path.read_text(errors="replace") for path in (self.shmcam.folder / "logs").glob("*.log*"))
        return list(DELETED.finditer(text))

    def _check_deletions(self, entries: list[Entry], deletions: dict[Path, re.Match[str]]) -> list[str]:
        wrong = [
            f"answered as saved and gone without a word: {path.name} ({line})"
            for path, line in self.promised.items()
            if not path.exists() and path not in deletions
        ]
        wrong += [f"protected and gone: {path.name}" for path in self.protected_paths if not path.exists()]
        there = {entry.label for entry in entries if entry.protected}
        wrong += [
            f"recorded with protect=true and not there: {label} ({answer})"
            for label, answer in self.protected_labels.items()
            if label not in there
        ]
        rolling = [entry for entry in entries if entry.trigger == "rolling" and not entry.protected]
        if len(rolling) > 6 + 2:
            wrong.append(f"{len(rolling)} rolling clips are kept, 6 should be")
        return wrong

    def _find_undeleted(self) -> list[Path]:
        """Files that were deleted and are there without a row; a day that begins again has its old name."""
        there = [path for path in {Path(match[1]) for match in self._deletions()} if path.exists()]
        with self.catalogue() as library:
            known = {entry.path for entry in library.find()}
        return [path for path in there if path not in known]

    def _find_leftovers(self) -> list[Path]:
        with self.catalogue() as library:
            entries = library.find()
        known = {entry.path for entry in entries}
        known |= {path.with_name(f"{path.name}.json") for path in known}
        known |= {entry.path.with_name(name) for entry in entries for name in entry.companions}
        left = sorted(self._files() - known)
        return [path for path in left if path.name != "session.log" and path.suffix != KEOGRAM_STATE]

    def _check_logs(self) -> list[str]:
        wrong = []
        for path in (self.shmcam.folder / "logs").glob("*.log*"):
            text = path.read_text(errors="replace")
            if path.name.startswith("supervisord"):
                continue
            for found in re.finditer(r"Traceback|unexpected error|met a bug", text):
                begin = text.rfind("\n", 0, max(0, found.start() - 300))
                wrong.append(f"{path.name}: {text[begin : found.start() + 1500]}")
                break
        return wrong

    def _check_resources(self) -> list[str]:
        wrong = []
        for (name, pid), samples in self._samples.items():
            if len(samples) < 8:
                continue
            first = max(sample[1] for sample in samples[: len(samples) // 2])  # rings and library open at first use
            if min(sample[1] for sample in samples[-3:]) > first + MAX_NEW_DESCRIPTORS:
                wrong.append(f"{name} {pid}: descriptors {[sample[1] for sample in samples]}")
            for part, what, most in ((2, "threads", MAX_NEW_THREADS), (3, "bytes", MAX_NEW_BYTES)):
                before = max(sample[part] for sample in samples[: len(samples) // 2])
                if min(sample[part] for sample in samples[-3:]) > before + most:
                    wrong.append(f"{name} {pid}: {what} {[sample[part] for sample in samples]}")
        return wrong
