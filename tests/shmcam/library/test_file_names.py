"""Names of pictures and videos: what is made is known again, and by nobody else's description."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from shmcam.config.settings import LABEL
from shmcam.library import file_names

NAMES = st.from_regex(re.compile(LABEL, re.ASCII), fullmatch=True)
LABELS = st.just("") | NAMES
TIMES = st.integers(0, 4_000_000_000_000_000_000)


@given(NAMES, LABELS, TIMES, st.integers(0, 2**32), st.integers(2, 999), st.sampled_from(["", "_2", "_31"]))
def test_every_picture_is_known_by_the_description_in_it(camera, label, utc_ns, frame, count, number):
    about = {"camera": camera, "label": label, "last_frame": frame}
    names = [
        file_names.name_picture(prefix, label, utc_ns, frame)
        for prefix in ("", camera)  # the only camera is not named
    ]
    names.append(file_names.name_stack(camera, label, utc_ns, frame, count=count))
    names.append(file_names.name_snapshot(camera, label, utc_ns))
    for name in names:
        stem = name + number
        assert file_names.is_picture_name(stem, about)
        assert file_names.has_date(stem)
        assert not file_names.is_picture_name(f"{stem}x", about)
        assert not file_names.is_picture_name(f"wedding_{stem}x", about)


@given(NAMES, LABELS, TIMES, st.integers(16, 9999), st.floats(0.01, 1000), st.sampled_from(["", "_2", "_31"]))
def test_every_clip_is_known_by_its_camera_and_description(camera, label, utc_ns, width, fps, number):
    stem = file_names.name_clip(camera, label, utc_ns, width=width, height=480, fps=fps) + number
    about = {"camera": camera, "label": label}
    assert file_names.is_video_name(stem, about)
    assert file_names.clip_camera_of(f"{stem}.mp4.part") == camera
    assert file_names.is_clip_of(stem + file_names.TIMING, camera)
    assert not file_names.is_clip_of(stem, f"{camera}x")
    assert not file_names.is_video_name(f"copy_{stem}", about)


@given(NAMES, LABELS, TIMES)
def test_every_session_folder_is_known(prefix, label, utc_ns):
    name = file_names.name_session(prefix, label, utc_ns)
    assert file_names.is_session_name(name)
    assert not file_names.is_session_name(prefix[:8]) and not file_names.is_session_name(name.removeprefix(prefix))


@given(NAMES, TIMES, st.sampled_from(["timelapse", "startrails"]), st.sampled_from(["", "_2"]))
def test_every_film_is_known_by_its_camera(camera, utc_ns, what, number):
    stem = file_names.name_film(what, camera, "", utc_ns)
    name = f"{stem}{number}.mp4"
    assert file_names.is_film_of(name, what, camera)
    assert not file_names.is_film_of(name, what, f"{camera}x")
    assert file_names.film_camera_of(f"{name}.part", what) == camera
    assert file_names.is_video_name(stem + number, {"camera": camera, "label": ""})


def test_numbers_in_a_clip_name_stay_short():
    name = file_names.name_clip("cam0", "trial7", 0, width=1280, height=720, fps=29.970029)
    assert re.fullmatch(r"cam0_1280x720_29\.97fps_\d{8}_\d{6}_trial7", name)
