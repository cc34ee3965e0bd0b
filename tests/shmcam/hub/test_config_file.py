"""`overwrite_config` on the config.toml that people really have: a link, a BOM, Windows line ends, a mount."""

import os
import resource
import shlex
import signal
import subprocess
import sys

import pytest

from shmcam.config.settings import Settings
from shmcam.hub.config_file import write_back
from shmcam.hub.live_settings import LiveSettings

BODY = "# mine\n[night]\ndark_threshold = 40.0   # evening\nbright_threshold = 80.0\n\n[camera]\nwidth = 640\n"
BOM = "\ufeff"


def save(path):
    live = LiveSettings(Settings.load(path, environ={}), path.parent / "journal.json", "run1")
    live.change({"night.dark_threshold": "35"})
    return live.overwrite()


@pytest.mark.parametrize(
    "text",
    [
        BODY, BOM + BODY, BODY.replace("\n", "\r\n"), BOM + BODY.replace("\n", "\r\n"), BODY.rstrip("\n"),
        "night.dark_threshold = 40.0 # x\r\n", "night = { dark_threshold = 40.0, bright_threshold = 80.0 } # x\n",
    ],
)  # fmt: skip
def test_everything_but_the_value_stays_byte_for_byte(tmp_path, text):
    path = tmp_path / "config.toml"
    path.write_bytes(text.encode())
    assert save(path) == 1
    assert path.read_bytes().decode() in {text.replace("40.0", value) for value in ("35", "35.0")}


@pytest.mark.parametrize("text", ["[camera]\r\nwidth = 640", "[night]\r\nenable = true\r\n", BOM + "# mine\r\n"])
def test_a_line_that_is_added_ends_as_the_others_do(tmp_path, text):
    path = tmp_path / "config.toml"
    path.write_bytes(text.encode())
    save(path)
    after = path.read_bytes()
    assert after.count(b"\n") == after.count(b"\r\n") > 1 and after.startswith(text.rstrip().encode())
    assert Settings.load(path, environ={}).value("night.dark_threshold") == 35


def test_links_stay_links_and_the_file_behind_them_changes(tmp_path):
    real = tmp_path / "dotfiles" / "shmcam.toml"
    real.parent.mkdir()
    real.write_text(BODY)
    real.chmod(0o664)
    (tmp_path / "config.toml").symlink_to("dotfiles/shmcam.toml")
    umask = os.umask(0o077)
    try:
        save(tmp_path / "config.toml")
    finally:
        os.umask(umask)
    assert (tmp_path / "config.toml").is_symlink() and "35" in real.read_text()
    assert real.stat().st_mode & 0o777 == 0o664 and len(list(real.parent.iterdir())) == 1


def test_a_hard_link_stays_one(tmp_path):
    path, other = tmp_path / "config.toml", tmp_path / "other.toml"
    path.write_text(BODY)
    other.hardlink_to(path)
    save(path)
    assert path.samefile(other) and "dark_threshold = 35" in other.read_text()


def test_a_write_in_place_that_finds_no_room_leaves_the_text_that_was_there(tmp_path):
    """A limit of the file's size stands for a full disk: the call writes a part and says so."""
    path, limits = tmp_path / "config.toml", resource.getrlimit(resource.RLIMIT_FSIZE)
    path.write_text(BODY)
    (tmp_path / "other.toml").hardlink_to(path)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(BODY) + 10, limits[1]))
    try:
        with pytest.raises(OSError, match="No space left"):
            write_back(path, "# longer\n" * 40)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert path.read_text() == BODY


def test_a_write_in_place_of_a_shorter_text_leaves_nothing_of_the_old_one(tmp_path):
    path = tmp_path / "config.toml"
    path.write_text(BODY * 3)
    (tmp_path / "other.toml").hardlink_to(path)
    write_back(path, BODY)
    assert path.read_text() == BODY


@pytest.mark.skipif(os.getuid() != 0, reason="needs root, to mount")
def test_a_file_that_is_a_mount_of_its_own_is_written_in_place(tmp_path):
    """`docker run -v config.toml:/data/config.toml`: Device or resource busy."""
    folder = tmp_path / "my data"
    folder.mkdir()
    path, host = folder / "config.toml", tmp_path / "host.toml"
    path.touch()
    host.write_text(BODY)
    code = "import sys; from pathlib import Path; "
    code += "from tests.shmcam.hub.test_config_file import save; save(Path(sys.argv[1]))"
    run = shlex.join([sys.executable, "-c", code, str(path)])
    script = f"mount --bind {shlex.quote(str(host))} {shlex.quote(str(path))} || exit 77; {run}"
    done = subprocess.run(["unshare", "--mount", "sh", "-c", script], capture_output=True, text=True, check=False)
    if done.returncode == 77:
        pytest.skip(f"cannot mount: {done.stderr}")
    assert done.returncode == 0, done.stderr
    assert "dark_threshold = 35" in host.read_text()
