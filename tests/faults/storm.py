"""The storm: pairs of faults at once in a whole service with two cameras, and after each pair everything must be well.

    python -m tests.faults.storm --minutes 20 --seed 7

It runs in a mount namespace of its own, with a small disk and a small /dev/shm of its own: filling them harms nobody.
The seed is printed; the same seed gives the same faults in the same order (not at the same instant).
"""

from __future__ import annotations

import argparse
import os
import random
import secrets
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from shm_ring import RingError, RingReader
from tests.faults.faulty_disk import ERRORS, FaultyDisk, library
from tests.faults.oracle import Oracle, Wrong
from tests.machine import Load
from tests.pipeline import Pipeline, free_port
from tests.reading import stream_parts

CAMERAS = ("cam0", "cam1")
DISK_MB, SHM_MB = 160, 96
WELL_WITHIN_S = 30.0
"""The promise of docs/faults.md, times the load of the machine meanwhile."""
INSIDE = "SHMCAM_STORM_INSIDE"

Heal = Callable[[], object]


class Storm:
    """One service, its users, and what is done to it."""

    def __init__(self, shmcam: Pipeline, disk: FaultyDisk, rng: random.Random, trigger_port: int) -> None:
        self.shmcam, self.disk, self.rng, self.trigger_port = shmcam, disk, rng, trigger_port
        self.oracle = Oracle(shmcam)
        self.injected: Counter[str] = Counter()
        self.answers: Counter[str] = Counter()
        self.clock_s = 0.0
        self.viewed = [0, 0]
        self.done = threading.Event()

    # ---- the users

    def view(self, number: int) -> None:
        """A viewer that comes back whenever it was thrown out."""
        while not self.done.is_set():
            with suppress(OSError, AssertionError, ValueError, KeyError):
                for _ in stream_parts(f"{self.shmcam.url}/stream?cam={CAMERAS[number]}", 10):
                    self.viewed[number] += 1
                    if self.done.is_set():
                        return
            self.done.wait(0.5)

    def use(self) -> None:
        """Saves, stacks, records, protects, sets; notes what was promised."""
        label = f"s{secrets.token_hex(3)}"
        camera = self.rng.choice(CAMERAS)
        size = self.rng.choice(((320, 240), (256, 192), (352, 288)))
        line = self.rng.choice(
            (
                f"save camera={camera} formats=jpg,npy label={label}",
                f"save camera={camera} label={label}",
                f"snapshot label={label}",
                f"pastStack camera={camera} before_s=1 method=mean label={label}",
                f"record start camera=cam1 label={label} protect=true",
                f"record start camera=cam1 label={label}",
                "record stop camera=cam1",
                f"record trigger camera=cam0 label={label} protect=true",
                f"set camera.width={size[0]} camera.height={size[1]}",
                f"set night.dark_threshold {self.rng.randint(20, 39)}",
                f"set export.save_before_s {self.rng.randint(1, 4)}",
                "protect",
                "status",
                "health",
                "library check",
                "keogram",
                "clips",
            )
        )
        if line == "protect":
            line = f"protect {self.rng.randint(1, 60)}"
        try:
            answer = self.shmcam.text(line, 20)
        except (OSError, subprocess.SubprocessError) as error:
            answer = f"no answer {type(error).__name__}"
        self.answers[
            "ERROR" if answer.startswith(("ERROR", "NOT_SAVED", "NO_", "no answer")) or not answer else "ok"
        ] += 1
        self.oracle.note(line, answer, label)

    # ---- the faults; each returns what ends it

    def kill(self) -> Heal:
        pid = self.pid_of_some()
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        return _nothing

    def stop(self) -> Heal:
        pid, until = self.pid_of_some(), self.rng.choice((2.0, 20.0))
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)

        def go_on() -> None:
            time.sleep(until)  # the fault: it stands so long
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

        return go_on

    def restart(self) -> Heal:
        name = self.rng.choice(list(self.shmcam.states()))
        self.shmcam.supervisorctl("restart", f"{name}:*" if name == "watchdog" else name)
        return _nothing

    def terminate_often(self) -> Heal:
        pid = self.pid_of_some()
        for _ in range(10):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        return _nothing

    def kill_supervisord(self) -> Heal:
        self.shmcam.kill_supervisord()
        return _nothing

    def unlink_ring(self) -> Heal:
        if segments := self.shmcam.segments():
            self.rng.choice(segments).unlink(missing_ok=True)
        return _nothing

    def damage_ring(self) -> Heal:
        """Somebody's program writes into the header of a segment."""
        if segments := self.shmcam.segments():
            segment = self.rng.choice(segments)
            with suppress(OSError), segment.open("r+b") as file:
                file.seek(self.rng.choice((0, 8, 16, 24, 32)))
                file.write(self.rng.randbytes(self.rng.choice((4, 8, 64))))
        return _nothing

    def fill_disk(self) -> Heal:
        filler = self.shmcam.folder / "filler"
        free = shutil.disk_usage(self.shmcam.folder).free
        with suppress(OSError), filler.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, max(1, int(free * self.rng.choice((0.5, 0.9, 1.0)))))
        return lambda: filler.unlink(missing_ok=True)

    def fill_shm(self) -> Heal:
        filler = Path("/dev/shm/storm-filler")
        free = shutil.disk_usage("/dev/shm").free
        with suppress(OSError), filler.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, max(1, free))
        return lambda: filler.unlink(missing_ok=True)

    def fail_calls(self) -> Heal:
        calls = self.rng.choice(("write", "open", "sync", "name", "lock", "size"))
        error = self.rng.choice(sorted(ERRORS))
        first = self.rng.randint(1, 30)
        self.disk.fail(calls, ERRORS[error], first=first, last=first + self.rng.choice((0, 5, 1000)))
        return self.disk.heal

    def read_only(self) -> Heal:
        place = _mount_of(self.shmcam.folder)
        subprocess.run(["mount", "-o", "remount,ro", place], capture_output=True)  # busy where a file is being written
        return lambda: subprocess.run(["mount", "-o", "remount,rw", place], check=True)

    def break_library(self) -> Heal:
        path = self.shmcam.folder / "library.sqlite3"
        how = self.rng.choice(("garbage", "fifo", "folder", "gone", "locked", "column", "torn"))
        if how == "locked":
            connection = sqlite3.connect(path, timeout=1, check_same_thread=False)
            with suppress(sqlite3.Error):
                connection.execute("BEGIN EXCLUSIVE")
            return connection.close
        if how == "column":
            with suppress(sqlite3.Error), sqlite3.connect(path, timeout=1) as connection:
                connection.execute("ALTER TABLE entries RENAME COLUMN label TO labels")
            return _nothing
        if how == "torn":
            with suppress(OSError), path.open("r+b") as file:
                file.seek(4096)
                file.write(self.rng.randbytes(8192))
            return _nothing
        for ending in ("", "-wal", "-shm"):
            with suppress(OSError):
                path.with_name(path.name + ending).unlink()
        if how == "garbage":
            path.write_bytes(self.rng.randbytes(5000))
        elif how == "fifo":
            os.mkfifo(path)
            return lambda: path.unlink(missing_ok=True) if path.is_fifo() else None
        elif how == "folder":
            with suppress(FileExistsError):
                path.mkdir()
            return lambda: path.rmdir() if path.is_dir() else None
        return _nothing

    def put_special_file(self) -> Heal:
        """A FIFO, a socket or 2 GB of nothing in the place of a state file."""
        names = ("run/cam0.marks.json", "run/cam0.recording.json", "library.cam0.frame_id", "run/cam1.recording.json",
                 "run/camera_groups.json", "library.id", "run/changes.json", "logs/stray.log", "captures/stray.jpg",
                 "recordings/stray.mp4")  # fmt: skip
        path = self.shmcam.folder / self.rng.choice(names)
        how = self.rng.choice(("fifo", "socket", "sparse", "link"))
        kept = path.read_bytes() if path.is_file() else None
        with suppress(OSError):
            path.unlink(missing_ok=True)
        with suppress(OSError):
            if how == "fifo":
                os.mkfifo(path)
            elif how == "socket":
                with socket.socket(socket.AF_UNIX) as holder:
                    holder.bind(str(path))
            elif how == "sparse":
                with path.open("wb") as file:
                    file.truncate(2 << 30)
            else:
                path.symlink_to("/nowhere/at/all")

        def put_back() -> None:
            with suppress(OSError):
                path.unlink(missing_ok=True)
            if kept is not None and path.name == "library.id":
                path.write_bytes(kept)

        return put_back

    def step_clock(self) -> Heal:
        self.clock_s = self.rng.choice((0.0, -86_400.0, 6 * 3600.0, 3.0))
        self.disk.step_clock(self.clock_s)
        return _nothing

    def remove_socket(self) -> Heal:
        self.shmcam.socket.unlink(missing_ok=True)
        return _nothing

    def rotate_logs(self) -> Heal:
        logs = self.shmcam.folder / "logs"
        for path in list(logs.glob("*.log")):
            path.rename(path.with_name(f"{path.name}.{time.monotonic_ns()}"))
        return _nothing

    def burn(self) -> Heal:
        hogs = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(4)]

        def end() -> None:
            time.sleep(4)  # the fault: a busy machine for so long
            for hog in hogs:
                hog.kill()
                hog.wait()

        return end

    def send_garbage(self) -> Heal:
        for _ in range(20):
            with suppress(OSError), socket.socket(socket.AF_UNIX) as peer:
                peer.settimeout(1)
                peer.connect(str(self.shmcam.socket))
                peer.sendall(self.rng.randbytes(self.rng.choice((1, 100, 70_000))))
            with suppress(OSError), socket.create_connection(("127.0.0.1", self.shmcam.port), 1) as peer:
                peer.sendall(self.rng.choice((b"GET /", b"POST /api/save HTTP/1.1\r\n", b"")) + self.rng.randbytes(100))
        return _nothing

    def hold_connections(self) -> Heal:
        """Silent peers at every listener: the control socket, HTTP, WebSockets, the trigger port; and wrong tokens."""
        held: list[socket.socket] = []
        upgrade = b"GET /ws HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        upgrade += b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        words = {self.shmcam.port: (b"", b"GET /stream HTTP/1.1\r\nHost: localhost\r\n\r\n", upgrade)}
        words[self.trigger_port] = (b"", b"token", b"token wrong\nping\n")
        end_s = time.monotonic() + 5.0  # a process that is stopped accepts nothing
        for number in range(100):
            if time.monotonic() > end_s:
                break
            with suppress(OSError):
                held.append(socket.socket(socket.AF_UNIX))
                held[-1].settimeout(1)
                held[-1].connect(str(self.shmcam.socket))
            for port, beginnings in words.items():
                with suppress(OSError):
                    held.append(socket.create_connection(("127.0.0.1", port), 1))
                    held[-1].sendall(beginnings[number % len(beginnings)])

        def let_go() -> None:
            for peer in held:
                peer.close()

        return let_go

    def keep_killing_hub(self) -> Heal:
        """Hang clocks go on, events arrive, settings stay."""
        for _ in range(3):
            with suppress(ProcessLookupError):
                os.kill(self.shmcam.pid("hub") or 1 << 30, signal.SIGKILL)
            time.sleep(self.rng.choice((0.1, 1.0)))
        return _nothing

    def start_second_capture(self) -> Heal:
        command = [sys.executable, "-m", "capture", "--config", str(self.shmcam.config), "--camera", "cam0"]
        second = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

        def end() -> None:
            try:
                code = second.wait(30)
            except subprocess.TimeoutExpired:
                second.kill()
                second.wait()
                return  # the first one was dead just then: this one was the camera
            self.injected[f"second capture exit {code}"] += 1

        return end

    def wait(self) -> Heal:
        time.sleep(3)  # a time without a fault
        return _nothing

    # ---- what is well

    def pid_of_some(self) -> int:
        states = self.shmcam.states()
        return self.shmcam.pid(self.rng.choice(sorted(states))) or 1 << 30

    def recover(self) -> None:
        """Waits until all is well, unaided, but for systemd's part: a supervisord that is gone is started again."""
        with Load() as load:
            self._recover(load)

    def _recover(self, load: Load) -> None:
        shmcam, begun_s = self.shmcam, time.monotonic()
        if not shmcam.is_running():
            shmcam.start()
        why = "?"
        heads: dict[str, int] = {}
        while time.monotonic() - begun_s < WELL_WITHIN_S * load.factor:
            time.sleep(0.3)
            try:
                states = shmcam.states()
            except OSError as error:
                why = f"supervisord does not answer: {error}"
                continue
            if sick := {name: state for name, state in states.items() if state != "RUNNING"}:
                why = f"not running: {sick}"
                continue
            now = {camera: _head_of(shmcam, camera) for camera in CAMERAS}
            if any(frame <= heads.get(camera, 1 << 62) for camera, frame in now.items()):
                why = f"frames stand: {heads} {now}"
                heads = now
                continue
            if not (answer := shmcam.text("status", 5)) or "missing" in answer:
                why = f"status: {answer}"
                continue
            try:
                shmcam.http("/snapshot.jpg", 5)
            except OSError as error:
                why = f"/snapshot.jpg: {error}"
                continue
            self.oracle.check_frame_ids(now)
            return
        raise Wrong(f"not well within {WELL_WITHIN_S:.0f} s times the load of {load.factor:.1f}: {why}")


def _nothing() -> None:
    pass


def _head_of(shmcam: Pipeline, camera: str) -> int:
    """Returns the newest frame id of a camera, -1 without one."""
    try:
        with RingReader.open(shmcam.ring_name(camera)) as ring:
            return int(ring.meta(ring.head - 1).frame_id) if ring.head else -1
    except (RingError, ValueError, OSError):
        return -1


def _mount_of(folder: Path) -> str:
    while not os.path.ismount(folder):
        folder = folder.parent
    return str(folder)


WEIGHTS: dict[str, int] = {
    "kill": 8, "stop": 4, "restart": 2, "terminate_often": 1, "kill_supervisord": 2, "unlink_ring": 3, "damage_ring": 3,
    "fill_disk": 3, "fill_shm": 2, "fail_calls": 6, "read_only": 2, "break_library": 4, "put_special_file": 4,
    "step_clock": 3, "remove_socket": 2, "rotate_logs": 1, "burn": 1, "send_garbage": 2, "start_second_capture": 2,
    "hold_connections": 2, "keep_killing_hub": 2, "wait": 2,
}  # fmt: skip
"""Each kind of fault, and how often it comes."""


@contextmanager
def users(storm: Storm) -> Iterator[None]:
    """Two viewers, for the length of the block."""
    viewers = [threading.Thread(target=storm.view, args=(number,), daemon=True) for number in range(2)]
    for viewer in viewers:
        viewer.start()
    try:
        yield
    finally:
        storm.done.set()
        for viewer in viewers:
            viewer.join(30)


def rage(storm: Storm, seconds: float, pairs: int) -> None:
    """Pairs of faults until the time is over, and at least so many. Raises: Wrong."""
    end, number = time.monotonic() + seconds, 0
    while time.monotonic() < end or number < pairs:
        number += 1
        kinds = storm.rng.choices(list(WEIGHTS), list(WEIGHTS.values()), k=2)
        print(f"[{number}] {' + '.join(kinds)}", flush=True)
        storm.injected.update(kinds)
        heals = []
        for kind in kinds:
            with suppress(OSError, IndexError):  # what the other fault took away
                heals.append(getattr(storm, kind)())
        for _ in range(storm.rng.randint(1, 3)):
            storm.use()
        for heal in heals:
            heal()
        begun = time.monotonic()
        storm.recover()
        took = time.monotonic() - begun
        storm.oracle.recovered_s.append(took)
        storm.oracle.check_new_entries()
        for _ in range(storm.rng.randint(1, 2)):
            storm.use()
        storm.oracle.sample()
        print(f"    well after {took:.1f} s", flush=True)


def run(seed: int, minutes: float, pairs: int) -> int:
    """The storm in this mount namespace. Returns: 0 if all was well, 1 if not."""
    rng = random.Random(seed)
    print(f"storm seed={seed} minutes={minutes} pairs>={pairs}", flush=True)
    place = tempfile.mkdtemp(prefix="shmcam-storm-", dir="/tmp")
    try:
        if os.environ.get(INSIDE):
            subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m", "tmpfs", place], check=True)
            subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SHM_MB}m", "tmpfs", "/dev/shm"], check=True)
        with FaultyDisk(Path(place)) as disk:
            return _run_on(place, disk, rng, minutes, pairs)
    finally:
        if os.environ.get(INSIDE):
            subprocess.run(["umount", "-l", place], capture_output=True)
        shutil.rmtree(place, ignore_errors=True)


def _run_on(place: str, disk: FaultyDisk, rng: random.Random, minutes: float, pairs: int) -> int:
    trigger_port = free_port()
    shmcam = Pipeline(
        place=place,
        environ=disk.environ() if library() else None,
        cameras={
            "cam0": {"recorder": {"mode": "rolling", "auto_start": True}},
            "cam1": {"recorder": {"mode": "session"}},
        },
        camera={"width": 320, "height": 240, "framerate": 10},
        ring={"size": 40},
        motion={"enable": False},
        night={"enable": False},
        control={"hang_kill_s": 15.0},
        network={"trigger_port": trigger_port, "token": "0123456789abcdef"},
        recorder={
            "recording_duration_minutes": 0.1,
            "rolling_clips_count": 6,
            "preset": "ultrafast",
            "threads": 1,
            "post_roll_s": 2.0,
            "pre_roll_s": 1.0,
        },
        library={"free_reserve_mb": 20, "free_reserve_percent": 0},
        mjpeg_server={"enable": True, "port": free_port()},
    )
    storm = Storm(shmcam, disk, rng, trigger_port)
    failed = 0
    try:
        shmcam.start()
        storm.recover()
        storm.oracle.sample()
        try:
            with users(storm):
                rage(storm, minutes * 60, pairs)
        finally:
            disk.heal()
            print(f"injected: {dict(sorted(storm.injected.items()))}")
        disk.step_clock(0)
        storm.oracle.settle()
        storm.oracle.check_states()
        storm.oracle.check_all()
        print(f"answers: {dict(storm.answers)} frames seen by viewers: {storm.viewed}")
        print(storm.oracle.report())
    except Exception as problem:  # noqa: BLE001 - reported, with what an inquiry needs
        failed = 1
        print(f"FAILED: {problem}")
        if not isinstance(problem, Wrong):
            traceback.print_exc()
        _keep(shmcam)
    finally:
        try:
            shmcam.stop()
        except AssertionError as problem:
            failed = 1
            print(f"FAILED at the end: {problem}")
            _keep(shmcam)
    print("FAILED" if failed else "all well", flush=True)
    return failed


def _keep(shmcam: Pipeline) -> None:
    """Copies what an inquiry needs."""
    target = Path(os.environ.get("SHMCAM_STORM_KEEP", "/tmp")) / f"storm-kept-{os.getpid()}"
    with suppress(OSError):
        shutil.copytree(shmcam.folder / "logs", target / "logs", dirs_exist_ok=True)
        listing = subprocess.run(["ls", "-lR", shmcam.folder, "/dev/shm"], capture_output=True, text=True).stdout
        (target / "files.txt").write_text(listing)
        for path in shmcam.folder.glob("library.sqlite3*"):
            if path.is_file():
                shutil.copy(path, target)
        for path in shmcam.folder.rglob("*.json"):
            if path.is_file() and not path.is_symlink():
                (target / "json").mkdir(exist_ok=True)
                shutil.copy(path, target / "json")
    print(f"kept in {target}")


def main() -> int:
    """Reads the arguments, and begins again in a mount namespace where that is possible."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=int(os.environ.get("SHMCAM_SEED") or secrets.randbelow(1 << 32)))
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--pairs", type=int, default=1, help="at least so many pairs of faults")
    options = parser.parse_args()
    if not os.environ.get(INSIDE):
        from tests.mounts import can_mount

        if not can_mount():
            print("no mount namespace here: disks are neither filled nor made read-only")
            for kind in ("fill_disk", "fill_shm", "read_only"):
                del WEIGHTS[kind]
        else:
            arguments = [f"--seed={options.seed}", f"--minutes={options.minutes}", f"--pairs={options.pairs}"]
            command = ["unshare", "-Urm", sys.executable, "-m", "tests.faults.storm", *arguments]
            return subprocess.run(command, env={**os.environ, INSIDE: "1"}).returncode
    return run(options.seed, options.minutes, options.pairs)


if __name__ == "__main__":
    sys.exit(main())
