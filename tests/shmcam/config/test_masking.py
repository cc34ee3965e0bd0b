"""Secrets are masked in whatever is made of a configuration."""

import tomllib

from exporter.commands.archive import format_config
from shmcam.config.masking import mask_secrets
from shmcam.config.settings import Settings

CONFIG = """\
[camera]
url = "rtsp://me:hunter2@10.0.0.5/stream"
[http]
token = "hunter2hunter2hunter2"
password = ""
[network]
token = "hunter2hunter2hunter2"
[cameras.cam1]
url = "rtsp://me:hunter2@10.0.0.6/stream"
width = 640
[cameras.cam1.night]
dark_threshold = 30.0
[cameras.cam2.camera]
url = "rtsp://me:hunter2@10.0.0.7/stream"
"""


def test_the_configuration_in_an_archive_holds_no_camera_password(tmp_path):
    """The URL of [cameras.cam1], with its password, was in plain text in every archive."""
    path = tmp_path / "config.toml"
    path.write_text(CONFIG)
    text = format_config(Settings.load(path, environ={}))
    assert "hunter2" not in text
    document = tomllib.loads(text)
    assert document["cameras"]["cam1"] == {"url": "***", "width": 640, "night": {"dark_threshold": 30.0}}
    assert document["http"] == {"token": "***", "password": ""}  # an empty one is no secret


def test_unknown_keys_stay_and_what_is_masked_stays_masked():
    masked = mask_secrets(tomllib.loads(CONFIG))
    assert mask_secrets(masked) == masked
    assert mask_secrets({"camera": {"former_key": 1}, "other": {"token": "x"}}) == {
        "camera": {"former_key": 1},
        "other": {"token": "x"},
    }
