"""V4L2 devices, asked through a kernel that a table plays; and who holds what, from the real /proc."""

import errno
import os
import struct
import subprocess
import sys
import time

import av
import numpy as np
import pytest
from msgspec.structs import replace

from capture.settings import CameraSettings
from capture.sources import detect
from capture.sources.base import CameraBusy, CameraError, CameraRequest
from capture.sources.decoded_frame import FrameWriter, form_of
from capture.sources.select import MAKERS
from capture.sources.stream_address import Address
from capture.sources.v4l2 import device as v4l2
from capture.sources.v4l2 import source as webcam
from capture.sources.v4l2.controls import (
    CONTROL,
    EXPOSURE_ABSOLUTE,
    EXPOSURE_AUTO,
    G_CTRL,
    GAIN,
    QUERY,
    QUERYCTRL,
    S_CTRL,
    Range,
    V4l2Controls,
    values_for,
)
from capture.sources.v4l2.device import Device, V4l2Mode, choose_device, describe
from capture.sources.v4l2.source import WebcamSource
from shm_ring.formats import planes
from shmcam.runtime.procfs import find_holders, name_holders
from shmcam.runtime.stop import Stop


def code(fourcc):
    return int.from_bytes(fourcc.encode(), "little")


class Kernel:
    """Answers the four ioctls as drivers do. `formats`: fourcc → {(width, height): [(numerator, denominator), …]}."""

    def __init__(self, driver="uvcvideo", card="HD Webcam", caps=v4l2.CAN_CAPTURE | v4l2.CAN_STREAM, formats=None):
        self.driver, self.card, self.caps = driver.encode(), card.encode(), caps
        self.formats = formats or {
            "YUYV": {(640, 480): [(1, 30), (1, 15)]},
            "MJPG": {(1280, 720): [(1, 30)], (640, 480): [(1, 60)]},
        }

    def __call__(self, descriptor, request, data):
        if request == v4l2.QUERYCAP:
            data[:] = v4l2.CAPABILITY.pack(self.driver, self.card, b"usb-1", 0x60000, 0x84A00001, self.caps)
            return 0
        try:
            self.enumerate(request, data)
        except (IndexError, KeyError):
            raise OSError(errno.EINVAL, "Invalid argument") from None
        return 0

    def enumerate(self, request, data):
        index, second, third, fourth = struct.unpack_from("=4I", data)
        if request == v4l2.ENUM_FMT:
            assert second == v4l2.CAPTURE_TYPE
            data[:] = v4l2.FORMAT.pack(index, second, 0, b"", code(list(self.formats)[index]))
        elif request == v4l2.ENUM_FRAMESIZES:
            sizes = list(self.formats[second.to_bytes(4, "little").decode()])
            data[:] = v4l2.SIZE.pack(index, second, v4l2.DISCRETE, *sizes[index], 0, 0, 0, 0)
        else:
            rates = self.formats[second.to_bytes(4, "little").decode()][(third, fourth)]
            data[:] = v4l2.INTERVAL.pack(index, second, third, fourth, v4l2.DISCRETE, *rates[index], 0, 0, 0, 0)


def test_structures_have_the_kernel_s_sizes():
    """The size is part of each ioctl's number (bits 16-29)."""
    for request, layout in (
        (v4l2.QUERYCAP, v4l2.CAPABILITY), (v4l2.ENUM_FMT, v4l2.FORMAT),
        (v4l2.ENUM_FRAMESIZES, v4l2.SIZE), (v4l2.ENUM_FRAMEINTERVALS, v4l2.INTERVAL),
    ):  # fmt: skip
        assert (request >> 16) & 0x3FFF == layout.size


def test_a_webcam_tells_its_name_sizes_and_rates():
    device = describe(3, "/dev/video0", Kernel())
    assert (device.card, device.driver, device.path) == ("HD Webcam", "uvcvideo", "/dev/video0")
    assert device.modes == (
        V4l2Mode("YUYV", 640, 480, 30),
        V4l2Mode("MJPG", 1280, 720, 30),
        V4l2Mode("MJPG", 640, 480, 60),
    )


@pytest.mark.parametrize(
    "kernel", [Kernel(caps=v4l2.CAN_STREAM), Kernel(driver="bcm2835-codec"), Kernel(driver="rp1-cfe")],
    ids=["metadata node", "a Pi's codec", "a Pi's sensor"],
)  # fmt: skip
def test_nodes_that_are_no_cameras_are_left_out(kernel):
    assert describe(3, "/dev/video9", kernel) is None


def test_a_driver_that_never_says_no_more_does_not_hang_us():
    class Endless(Kernel):
        def enumerate(self, request, data):
            index = min(struct.unpack_from("=I", data)[0], 0)
            struct.pack_into("=I", data, 0, index)
            super().enumerate(request, data)

    assert len(describe(3, "/dev/video0", Endless()).modes) <= v4l2.MAX_ENTRIES**2


KNOWN = [
    Device("/dev/video0", "HD Webcam", "uvcvideo", "usb-1", ()),
    Device("/dev/video2", "Cam Link 4K", "uvcvideo", "usb-2", ()),
]


@pytest.mark.parametrize(
    ("wanted", "index", "path"),
    [
        ("", 0, "/dev/video0"),
        ("", 1, "/dev/video2"),
        ("", 2, None),
        ("/dev/video2", 0, "/dev/video2"),
        ("cam link", 0, "/dev/video2"),
        ("zoom", 0, None),
    ],
)
def test_devices_are_found_by_node_name_or_number(wanted, index, path):
    found = choose_device(wanted, index, KNOWN)
    assert (found.path if found else None) == path


MODES = [
    V4l2Mode("YUYV", 640, 480, 30), V4l2Mode("YUYV", 1280, 720, 10), V4l2Mode("MJPG", 1280, 720, 30),
    V4l2Mode("MJPG", 1920, 1080, 30), V4l2Mode("H264", 1920, 1080, 60), V4l2Mode("NV12", 640, 480, 30),
]  # fmt: skip


@pytest.mark.parametrize(
    ("asked", "codec", "chosen"),
    [
        ((640, 480, 30), "auto", "640x480 NV12 30/s"),
        ((1280, 720, 30), "auto", "1280x720 MJPG 30/s"),
        ((1280, 720, 10), "auto", "1280x720 YUYV 10/s"),
        ((1280, 720, 30), "yuyv", "640x480 YUYV 30/s"),
        ((1280, 720, 0), "auto", "1280x720 MJPG 30/s"),
        ((1920, 1080, 60), "auto", "1920x1080 MJPG 30/s"),
        ((1900, 1000, 30), "auto", "1920x1080 MJPG 30/s"),
        ((640, 480, 30), "rgb888", "None"),
    ],
)
def test_the_rate_counts_first_then_the_size_then_the_least_work(asked, codec, chosen):
    assert str(webcam.choose_mode(MODES, *asked, codec)) == chosen


@pytest.mark.parametrize(
    ("offered", "asked", "chosen"),
    [
        (["YUYV 640x480 25", "MJPG 320x240 30"], (640, 480, 30), "YUYV 640x480 25"),
        (["YUYV 640x480 25", "MJPG 640x480 30"], (640, 480, 30), "MJPG 640x480 30"),
        (["YUYV 640x480 29.97", "MJPG 640x480 30"], (640, 480, 30), "YUYV 640x480 29.97"),
        (["GREY 1280x720 60", "UYVY 640x480 10"], (1280, 720, 60), "UYVY 640x480 10"),
        (["RGGB 1280x720 30", "GREY 1280x720 30"], (1280, 720, 30), "RGGB 1280x720 30"),
        (["UYVY 1280x720 0", "MJPG 1280x720 30"], (1280, 720, 30), "UYVY 1280x720 0"),
        (["YVYU 1280x720 30", "NV21 1280x720 30", "Y16 160x120 9"], (1280, 720, 30), "Y16 160x120 9"),
    ],
)
def test_modes_as_webcams_capture_cards_and_thermal_cameras_offer_them(offered, asked, chosen):
    def mode(text):
        fourcc, size, rate = text.split()
        return V4l2Mode(fourcc, *map(int, size.split("x")), float(rate))

    assert webcam.choose_mode([mode(text) for text in offered], *asked) == mode(chosen)


def test_every_format_that_ffmpeg_s_device_reads_is_chosen_and_can_be_converted():
    """Capture cards with UYVY only (TC358743), thermal and Bayer cameras were `no format for codec = auto`."""
    for fourcc, name in webcam.FFMPEG_NAMES.items():
        device = Device("/dev/video0", "Card", "uvcvideo", "usb-1", (V4l2Mode(fourcc, 64, 48, 30),))
        assert webcam.address_of(device, asked()).options["input_format"] == name
        if name != "mjpeg":
            frame = av.VideoFrame(64, 48, name)
            for plane in frame.planes:
                plane.update(bytes([128]) * plane.buffer_size)
            writer = FrameWriter(form_of(frame))
            shape = writer.form.shown
            payload = np.zeros(shape.payload_bytes, np.uint8)
            writer.write(frame, payload)
            assert planes(payload, shape)[0].any(), name


def test_options_ask_the_device_for_exactly_that():
    asked = webcam.options_of(V4l2Mode("MJPG", 1280, 720, 30), 60)
    assert asked == {"video_size": "1280x720", "input_format": "mjpeg", "framerate": "30"}


def test_a_device_that_another_process_holds_is_reported_with_its_name_and_pid(tmp_path, monkeypatch):
    """A regular file stands in for the device node: /proc looks the same."""
    node = tmp_path / "video0"
    node.touch()
    holder = subprocess.Popen(
        [sys.executable, "-c", "import sys, time; f = open(sys.argv[1]); time.sleep(60)", str(node)]
    )
    try:
        deadline = time.monotonic() + 30
        while not name_holders([str(node)]) and time.monotonic() < deadline:
            time.sleep(0.02)
        device = Device(str(node), "HD Webcam", "uvcvideo", "usb-1", tuple(MODES))
        monkeypatch.setattr(v4l2, "find_devices", lambda: [device])
        with pytest.raises(CameraBusy, match=f"pid {holder.pid}"):
            MAKERS["v4l2"](CameraSettings(), 0, tmp_path)
        assert f"pid {holder.pid}" in detect.detect_v4l2()[0].line()
    finally:
        holder.kill()
        holder.wait()
    assert name_holders([str(node)]) == ""


def test_this_process_does_not_count_as_a_stranger(tmp_path):
    with (tmp_path / "x").open("w") as own:
        assert os.path.realpath(own.name)
        assert find_holders([own.name]) == []


def test_a_missing_device_is_named_with_those_there_are(monkeypatch, tmp_path):
    monkeypatch.setattr(v4l2, "find_devices", lambda: KNOWN)
    with pytest.raises(CameraError, match="no V4L2 device 'zoom'; there are: /dev/video0 HD Webcam, /dev/video2"):
        MAKERS["v4l2"](CameraSettings(device="zoom"), 0, tmp_path)


def test_every_camera_is_listed_and_the_list_fits_json(monkeypatch):
    device = Device("/dev/video0", "HD Webcam", "uvcvideo", "usb-1", tuple(MODES))
    monkeypatch.setattr(v4l2, "find_devices", lambda: [device])
    found = detect.detect_cameras()
    assert [one.source for one in found] == ["v4l2", "synthetic"]
    rows = detect.rows_of(found)
    assert rows[0]["modes"][2] == "1280x720 MJPG 30/s"
    assert "no Picamera2" in detect.picamera2_problem(0)
    assert detect.v4l2_problem(0) == "" and "number 1" in detect.v4l2_problem(1)


# ---- controls

WEBCAM = {
    EXPOSURE_AUTO: Range(0, 3, 3),
    EXPOSURE_ABSOLUTE: Range(3, 2047, 250),
    GAIN: Range(0, 150, 0),
    0x00980900: Range(-64, 64, 0),
    0x00980901: Range(0, 64, 32),
    0x0098090C: Range(0, 1, 1),
}


def asked(mode="video", exposure_us=0, gain=0.0, **controls):
    return CameraRequest(64, 48, 30, mode=mode, exposure_us=exposure_us, gain=gain, controls=controls)


@pytest.mark.parametrize(
    ("request_", "values"),
    [
        (asked(), {EXPOSURE_AUTO: 3}),
        (asked("still", 20_000, 4.0), {EXPOSURE_AUTO: 1, EXPOSURE_ABSOLUTE: 200, GAIN: 30}),
        (asked("still", 2_000_000, 100.0), {EXPOSURE_AUTO: 1, EXPOSURE_ABSOLUTE: 2047, GAIN: 150}),
        (asked(AeEnable=False), {EXPOSURE_AUTO: 1}),
        (asked(Brightness=-0.5, Contrast=2.0), {EXPOSURE_AUTO: 3, 0x00980900: -32, 0x00980901: 64}),
        (asked(AwbEnable=False), {EXPOSURE_AUTO: 3, 0x0098090C: 0}),
    ],
)
def test_libcamera_s_names_become_the_webcam_s_own_numbers(request_, values):
    assert values_for(request_, WEBCAM) == (values, {})


def test_what_a_webcam_does_not_have_is_refused_by_name():
    values, refused = values_for(asked("still", 9000, 2.0, LensPosition=1.0, Saturation=1.5), {})
    assert values == {}
    assert set(refused) == {"ExposureTime", "AnalogueGain", "LensPosition", "Saturation"}


class ControlKernel:
    """A device's controls, as the driver keeps them."""

    def __init__(self, known):
        self.known, self.values = known, {code: span.default for code, span in known.items()}

    def __call__(self, descriptor, request, data):
        (code,) = struct.unpack_from("=I", data)
        if code not in self.known:
            raise OSError(errno.EINVAL, "Invalid argument")
        span = self.known[code]
        if request == QUERYCTRL:
            data[:] = QUERY.pack(code, 1, b"name", span.lowest, span.highest, 1, span.default, 0)
        elif request == S_CTRL:
            self.values[code] = CONTROL.unpack(data)[1]
        elif request == G_CTRL:
            data[:] = CONTROL.pack(code, self.values[code])
        return 0


def test_a_webcam_is_exposed_as_asked_and_tells_so_in_every_frame(tmp_path):
    """FFmpeg's test device for the pictures, a table for the driver's controls."""
    assert [(code >> 16) & 0x3FFF for code in (QUERYCTRL, G_CTRL, S_CTRL)] == [QUERY.size, CONTROL.size, CONTROL.size]
    node, kernel = tmp_path / "video0", ControlKernel(WEBCAM)
    node.touch()
    address = Address("testsrc=size=64x48:rate=50,realtime", "test device", "lavfi")
    source = WebcamSource(lambda _: address, V4l2Controls(str(node), kernel))
    try:
        opened = source.open(asked(LensPosition=1.0), Stop())
        assert opened.refused == {"LensPosition": "not offered by V4L2"}
        payload = np.zeros(opened.geometry.payload_bytes, np.uint8)
        assert source.wait(5) and source.write(payload).exposure_us == 25_000
        assert source.apply(asked("still", 40_000, 1.0))
        assert source.wait(5) and source.write(payload).exposure_us == 40_000
        assert kernel.values[EXPOSURE_AUTO] == 1
        assert not source.apply(replace(asked(), framerate=10)), "another rate needs the stream begun anew"
    finally:
        source.close()


def test_a_webcam_without_a_readable_format_says_what_it_offers():
    device = Device("/dev/video0", "Odd", "uvcvideo", "usb-1", (V4l2Mode("H264", 64, 48, 30),))
    with pytest.raises(CameraError, match="it offers 64x48 H264 30/s"):
        webcam.address_of(device, asked())
    device = replace(device, modes=tuple(MODES))
    address = webcam.address_of(device, replace(asked(), width=1280, height=720))
    assert (address.url, address.format, address.options["input_format"]) == ("/dev/video0", "v4l2", "mjpeg")
