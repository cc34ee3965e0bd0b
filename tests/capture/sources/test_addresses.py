"""Addresses of cameras: any character in a password works, or is refused by name; none of it is ever shown."""

import pytest

from capture.settings import CameraSettings
from capture.sources.base import CameraError
from capture.sources.select import MAKERS
from capture.sources.stream_address import parse_url

WORKING = [
    ("http://cam/stream", "", "", "cam", None, "/stream"),
    ("http://cam", "", "", "cam", None, "/"),
    ("http://cam?action=stream", "", "", "cam", None, "/?action=stream"),
    ("HTTP://viewer:secret@10.0.0.7:8080/a?b=c&d=/e", "viewer", "secret", "10.0.0.7", 8080, "/a?b=c&d=/e"),
    ("rtsp://admin:P@ssw0rd9@127.0.0.1:554/s", "admin", "P@ssw0rd9", "127.0.0.1", 554, "/s"),
    ("http://admin:[Secret6]@127.0.0.1:9999/v", "admin", "[Secret6]", "127.0.0.1", 9999, "/v"),
    ("http://admin:a:b:c@cam/v", "admin", "a:b:c", "cam", None, "/v"),
    ("http://admin:50%25off%@cam/v", "admin", "50%off%", "cam", None, "/v"),
    ("http://admin:%23%2F%3F%40@cam/v", "admin", "#/?@", "cam", None, "/v"),
    ("http://admin:gr ün\\&+;=!$'()*,~^`{}|<>\"@cam/v", "admin", "gr ün\\&+;=!$'()*,~^`{}|<>\"", "cam", None, "/v"),
    ("http://token@cam/v", "token", "", "cam", None, "/v"),
    ("http://u:secret@[fe80::1]:81/v w", "u", "secret", "fe80::1", 81, "/v%20w"),
    ("http://[fe80::1%25eth0]/v", "", "", "fe80::1%eth0", None, "/v"),
    ("rtsp://cam/user=admin&password=secret&channel=1?stream=0", "", "", "cam", None,
     "/user=admin&password=secret&channel=1?stream=0"),
    ("http://cam:80/x?u=a@b", "", "", "cam", 80, "/x?u=a@b"),
    ("http://u:secret@cam:80/x?u=a@b.example", "u", "secret", "cam", 80, "/x?u=a@b.example"),
    ("rtsp://[fe80::1]:554/?u=a@b", "", "", "fe80::1", 554, "/?u=a@b"),
]  # fmt: skip


@pytest.mark.parametrize(("url", "user", "password", "host", "port", "target"), WORKING)
def test_an_address_is_understood_and_shown_without_its_secrets(url, user, password, host, port, target):
    address = parse_url(url)
    assert (address.user, address.password, address.host, address.port) == (user, password, host, port)
    assert address.target == target
    for shown in (address.shown, repr(address), address.for_ffmpeg().shown):
        assert password not in shown or not password
    assert "secret" not in address.shown
    again = parse_url(address.url)
    assert (again.user, again.password, again.host, again.target) == (user, password, host, target), "as FFmpeg gets it"
    said = f"could not open '{address.url}': {url.replace('HTTP', 'http')}"
    assert "secret" not in address.hide_secrets(said)


REFUSED = [
    ("http://admin:12#Geheim9@127.0.0.1:9999/v", "%23"),
    ("rtsp://admin:Secr#Geheim1@127.0.0.1:554/s", "%23"),
    ("rtsp://admin:abq/Geheim9@127.0.0.1:554/s", "%2F"),
    ("http://admin:77/Geheim@127.0.0.1/s", "%2F"),
    ("http://admin:why7?Geheim5@127.0.0.1:9999/v", "%3F"),
    ("http://admin:a@b/Geheim@127.0.0.1/v", "%2F"),
    ("http://admin:a/why?Geheim@127.0.0.1/v", "%2F"),
    ("http://cam:80/x@y?u=Geheim@b", "%40"),
    ("http://cam:Geheim/v", "host"),
    ("http://user:Geheim@:80/v", "host"),
    ("http://user:Geheim@ca m/v", "host"),
    ("http://[Geheim]/v", "host"),
    ("http://cam:99999/v", "65535"),
    ("http://user:Gehe\nim@cam/v", "control character"),
    ("ftp://user:Geheim@cam/v", "must begin with rtsp://"),
    ("Geheim@cam", "must begin with rtsp://"),
    ("", "must begin with rtsp://"),
]


@pytest.mark.parametrize(("url", "words"), REFUSED)
def test_an_address_that_cannot_be_right_is_refused_by_name_and_not_shown(url, words, tmp_path):
    """A # in a password made capture begin again and again, and the log showed what followed it."""
    with pytest.raises(CameraError, match=words) as error:
        MAKERS["url"](CameraSettings(source="url", url=url), 0, tmp_path)
    assert "Geheim" not in str(error.value)
    assert "camera.url" in str(error.value)
