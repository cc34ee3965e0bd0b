"""Stores as people have them, each a real one: rclone's local, crypt and sftp back ends, S3 by moto's server."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace

import pytest

from shmcam.config.settings import Settings
from shmcam.library import Catalogue, Entry
from shmcam.runtime.stop import Stop
from shmcam.upload.uploader import Uploader
from tests.machine import until
from tests.pipeline import free_port
from tests.shmcam.library.conftest import on_disk

rclone = pytest.mark.skipif(shutil.which("rclone") is None, reason="rclone is not installed: apt-get install rclone")

PASSWORD = "umbrella-4711"
"""The password of every store."""


@pytest.fixture(autouse=True)
def no_foreign_certificates(monkeypatch):
    monkeypatch.delenv("AWS_CA_BUNDLE", raising=False)  # rclone's S3 back end cannot use it


def obscure(password: str) -> str:
    return subprocess.run(["rclone", "obscure", password], capture_output=True, text=True, check=True).stdout.strip()


def find_commands(begin: str) -> dict[str, int]:
    """Command line → process id of the running processes whose line begins so."""
    found = {}
    for place in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            argv = place.read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
            if argv.startswith(begin):
                found[argv] = int(place.parent.name)
    return found


class Store:
    """One remote of rclone.conf, and what lies in it."""

    def __init__(self, folder: Path, name: str, options: dict[str, object], root: str = "shmcam") -> None:
        self.config = folder / "rclone.conf"
        lines = [f"[{name}]", *(f"{key} = {value}" for key, value in options.items())]
        before = self.config.read_text() if self.config.exists() else ""
        self.config.write_text(before + "\n".join([*lines, ""]))
        self.remote = f"{name}:{root}"

    def run(self, *words: str) -> str:
        done = subprocess.run(["rclone", f"--config={self.config}", *words], capture_output=True, text=True, timeout=60)
        return done.stdout

    def files(self) -> set[str]:
        return set(self.run("lsf", "-R", "--files-only", self.remote).split())

    def read(self, name: str) -> bytes:
        done = subprocess.run(
            ["rclone", f"--config={self.config}", "cat", f"{self.remote}/{name}"], capture_output=True, timeout=60
        )
        return done.stdout


def listening(port: int) -> bool:
    with socket.socket() as connection:
        return connection.connect_ex(("127.0.0.1", port)) == 0


class Server:
    """A server that can go away and come back."""

    def __init__(self, *command: str, port: int, **options: object) -> None:
        self.command, self.port, self.options = command, port, options
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self.process = subprocess.Popen(self.command, **quiet, **self.options)  # type: ignore[call-overload]
        until(lambda: listening(self.port), 30, f"{self.command[0]} to listen")

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()


@contextmanager
def other_disk() -> Iterator[Path]:
    """A folder on another device than the temporary files of tests: where it is the same, nothing is uploaded."""
    with tempfile.TemporaryDirectory(prefix="shmcam-upload-", dir="/dev/shm") as folder:
        (Path(folder) / "shmcam").mkdir()
        yield Path(folder)


@pytest.fixture
def disk() -> Iterator[Path]:
    with other_disk() as folder:
        yield folder


@pytest.fixture
def local(tmp_path, disk) -> Store:
    return Store(tmp_path, "nas", {"type": "alias", "remote": disk})


@pytest.fixture
def crypt(tmp_path, disk) -> Store:
    """A store without checksums."""
    return Store(tmp_path, "dark", {"type": "crypt", "remote": disk, "password": obscure(PASSWORD)})


@pytest.fixture
def sftp(tmp_path) -> Iterator[tuple[Store, Server]]:
    port = free_port()
    (tmp_path / "far").mkdir()
    words = ("serve", "sftp", "--user=ann", f"--pass={PASSWORD}", f"--addr=127.0.0.1:{port}", str(tmp_path / "far"))
    server = Server("rclone", *words, port=port, env={**os.environ, "HOME": str(tmp_path)})
    server.start()
    options = {"type": "sftp", "host": "127.0.0.1", "port": port, "user": "ann", "pass": obscure(PASSWORD)}
    yield Store(tmp_path, "far", options), server
    server.stop()


@pytest.fixture
def openssh(tmp_path) -> Iterator[Store]:
    """A server with SSH, such as a NAS: OpenSSH's own sftp, checksums by its shell."""
    sshd = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin")
    if sshd is None or shutil.which("ssh-keygen") is None:
        pytest.skip("sshd is not installed: apt-get install openssh-server")
    port = free_port()
    for name in ("host", "key"):
        words = ("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / name))
        subprocess.run(words, check=True)
    lines = (
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {tmp_path}/host\nPidFile none\nStrictModes no\nUsePAM no\n"
        f"AuthorizedKeysFile {tmp_path}/key.pub\nPermitRootLogin yes\nSubsystem sftp internal-sftp\n"
    )
    (tmp_path / "sshd_config").write_text(lines)
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # sshd's own, which its package makes at boot
    server = Server(sshd, "-D", "-e", "-f", str(tmp_path / "sshd_config"), port=port)
    server.start()
    options = {"type": "sftp", "host": "127.0.0.1", "port": port, "user": getpass.getuser()}
    yield Store(tmp_path, "ssh", {**options, "key_file": tmp_path / "key"}, root=f"{tmp_path}/far/shmcam")
    server.stop()


@pytest.fixture(scope="module")
def moto() -> Iterator[Server]:
    bin_path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    if (command := shutil.which("moto_server", path=bin_path)) is None:
        pytest.skip("moto is not installed: pip install 'moto[server]'")
    port = free_port()
    server = Server(command, "-H", "127.0.0.1", "-p", str(port), port=port)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def s3(tmp_path, moto) -> Store:
    options = {"type": "s3", "provider": "Other", "endpoint": f"http://127.0.0.1:{moto.port}"}
    keys = {"access_key_id": "AKIAUMBRELLA", "secret_access_key": PASSWORD}
    return Store(tmp_path, "bucket", {**options, **keys}, root=f"b{time.time_ns()}/shmcam")


@pytest.fixture
def make(tmp_path) -> Iterator[Callable[..., SimpleNamespace]]:
    """An uploader without its thread: a test calls `step`."""
    made = []

    def build(store: Store, *overrides: str) -> SimpleNamespace:
        config = tmp_path / "config.toml"
        config.write_text(f'[upload]\nenable = true\nremote = "{store.remote}"\nrclone_config = "rclone.conf"\n')
        settings = Settings.load(config, overrides, environ={})
        catalogue, events, stop = Catalogue.of(settings), [], Stop()
        made.append(catalogue)
        uploader = Uploader(settings, catalogue, events.append, stop)

        def saved(name: str, size: int = 1000, **values: object) -> Entry:
            return catalogue.add(on_disk(settings, name, size, len(catalogue.find()), **values))

        def marks() -> dict[str, str]:
            return {entry.path.name: entry.uploaded for entry in catalogue.find()}

        parts = {"uploader": uploader, "catalogue": catalogue, "events": events, "settings": settings, "stop": stop}
        return SimpleNamespace(saved=saved, marks=marks, **parts)

    yield build
    for catalogue in made:
        catalogue.close()


@pytest.fixture
def in_thread() -> Iterator[Callable[[SimpleNamespace], None]]:
    """Starts the thread of an uploader, and ends it after the test."""
    running = []

    def start(one: SimpleNamespace) -> None:
        running.append((one.stop, threading.Thread(target=one.uploader.run)))
        running[-1][1].start()

    yield start
    for stop, thread in running:
        stop.request()
        thread.join(20)
        assert not thread.is_alive()
