"""Asks V4L2 devices what they are and what they offer, by ioctl; no library, nothing is started.

Source: Linux' include/uapi/linux/videodev2.h; sizes and offsets are the same on 32 and 64 bits.
"""

from __future__ import annotations

import fcntl
import os
import re
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

from msgspec import Struct

QUERYCAP, ENUM_FMT, ENUM_FRAMESIZES, ENUM_FRAMEINTERVALS = 0x80685600, 0xC0405602, 0xC02C564A, 0xC034564B
CAPABILITY = struct.Struct("=16s32s32sIII12x")
FORMAT = struct.Struct("=III32sI16x")
SIZE = struct.Struct("=IIIIIIIII8x")
INTERVAL = struct.Struct("=IIIIIIIIIII8x")

CAPTURE_TYPE = 1
CAN_CAPTURE, CAN_STREAM, HAS_DEVICE_CAPS = 0x1, 0x04000000, 0x80000000
DISCRETE = 1

NOT_CAMERAS = ("bcm2835-codec", "bcm2835-isp", "rpivid", "rpi-hevc-dec", "pispbe", "rp1-cfe", "unicam", "bm2835 mmal")
"""Drivers of a Pi's codecs and of sensors that only libcamera can drive; they capture, but nothing a person sees."""

MAX_ENTRIES = 64
"""Formats, sizes or rates asked for at most; a driver that never says "no more" must not hang us."""

Ioctl = Callable[[int, int, bytearray], int]


class V4l2Mode(Struct, frozen=True):
    """One size a device offers in one format."""

    fourcc: str
    width: int
    height: int
    rate: float
    """Highest frames per second; 0 = not told."""

    def __str__(self) -> str:
        return f"{self.width}x{self.height} {self.fourcc} {self.rate:g}/s"


class Device(Struct, frozen=True):
    """One capture device."""

    path: str
    card: str
    driver: str
    bus: str
    modes: tuple[V4l2Mode, ...]


def find_devices(folder: Path = Path("/dev")) -> list[Device]:
    """Returns all webcams and capture cards, by device number; those that cannot be opened are left out."""
    nodes = sorted(folder.glob("video*"), key=lambda node: int(re.sub(r"\D", "", node.name) or 0))
    return [device for node in nodes if (device := _describe_node(node)) is not None]


def choose_device(wanted: str, index: int, known: list[Device]) -> Device | None:
    """Returns the device that `wanted` means: a path, a part of its name, or (empty) the index-th. Pure."""
    if not wanted:
        return known[index] if index < len(known) else None
    real = os.path.realpath(wanted)
    matches = [device for device in known if device.path == real]
    matches = matches or [device for device in known if wanted.lower() in device.card.lower()]
    return matches[0] if matches else None


def describe(descriptor: int, path: str, ioctl: Ioctl = fcntl.ioctl) -> Device | None:
    """Asks an open device; None if it captures no pictures."""
    answer = bytearray(CAPABILITY.size)
    ioctl(descriptor, QUERYCAP, answer)
    driver, card, bus, _, capabilities, of_node = CAPABILITY.unpack(answer)
    able = of_node if capabilities & HAS_DEVICE_CAPS else capabilities
    name = _text_of(driver)
    if not (able & CAN_CAPTURE and able & CAN_STREAM) or name in NOT_CAMERAS:
        return None
    return Device(path, _text_of(card), name, _text_of(bus), tuple(_modes(descriptor, ioctl)))


def _describe_node(node: Path) -> Device | None:
    try:
        descriptor = os.open(node, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        return describe(descriptor, str(node))
    except OSError:  # not a V4L2 device, or gone meanwhile
        return None
    finally:
        os.close(descriptor)


def _modes(descriptor: int, ioctl: Ioctl) -> Iterator[V4l2Mode]:
    for _, _, _, _, code in _enumerate(descriptor, ioctl, ENUM_FMT, FORMAT, CAPTURE_TYPE):
        fourcc = code.to_bytes(4, "little").decode("ascii", "replace").strip()
        for _, _, kind, width, most_wide, _, _low, most_high, _ in _enumerate(
            descriptor, ioctl, ENUM_FRAMESIZES, SIZE, code
        ):
            # discrete: width, height; stepwise: lowest, highest and step of each
            size = (width, most_wide) if kind == DISCRETE else (most_wide, most_high)
            yield V4l2Mode(fourcc, *size, _best_rate(descriptor, ioctl, code, size))
            if kind != DISCRETE:
                break  # stepwise drivers have one entry only


def _best_rate(descriptor: int, ioctl: Ioctl, code: int, size: tuple[int, int]) -> float:
    rates = [0.0]
    for fields in _enumerate(descriptor, ioctl, ENUM_FRAMEINTERVALS, INTERVAL, code, *size):
        numerator, denominator = fields[5:7]  # discrete: the interval; stepwise: the shortest
        rates.append(denominator / numerator if numerator else 0.0)
    return max(rates)


def _enumerate(
    descriptor: int, ioctl: Ioctl, request: int, layout: struct.Struct, *key: int
) -> Iterator[tuple[int, ...]]:
    """Yields all entries of an enumeration, asking with rising index until the driver says EINVAL."""
    for index in range(MAX_ENTRIES):
        question = bytearray(layout.size)
        struct.pack_into(f"={1 + len(key)}I", question, 0, index, *key)
        try:
            ioctl(descriptor, request, question)
        except OSError:
            return
        yield layout.unpack(question)


def _text_of(raw: bytes) -> str:
    return raw.split(b"\0")[0].decode("utf-8", "replace")
