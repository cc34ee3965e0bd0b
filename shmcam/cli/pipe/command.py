"""`shmcam pipe CAMERA`: the wiring of options, ring and pipe."""

from __future__ import annotations

import argparse
import os
import re
import sys
from contextlib import closing, suppress
from fractions import Fraction
from pathlib import Path

from shm_ring import LiveRing
from shm_ring.formats import MAX_SIDE
from shmcam.cli.options import EXIT_FAILED, Options, UsageError, whole_number
from shmcam.cli.pipe.pictures import PictureStream, send_pictures
from shmcam.cli.pipe.pipe_output import Fifo, PipeOutput, ReaderGone
from shmcam.cli.pipe.pixels import encode_bgr24, encode_gray, encode_y4m, encode_yuv420p, jpeg_encoder
from shmcam.cli.pipe.video import StreamChanged, asking_recorder, send_video
from shmcam.config.errors import explain_unknown_camera
from shmcam.config.settings import Settings
from shmcam.runtime.stop import Stop

VIDEO = ("h264", "mp4")
"""Formats that come from the recorder, as it encoded them."""

FORMATS = ("y4m", "rawvideo", "bgr24", "gray", "mjpeg", *VIDEO)
FPS_MAX = 1000


def main(options: Options) -> int:
    """Writes until the reader goes or a signal comes; both are a good end."""
    own = build_parser().parse_args([*["--help"] * options.help, *options.rest])
    settings = options.settings() if own.config is None else Options(config=own.config).settings()
    camera = own.camera or settings.cameras[0]
    if camera not in settings.cameras:
        raise UsageError(explain_unknown_camera(camera, settings.cameras))
    if own.format in VIDEO and (own.fps or own.size or own.ring != "main"):
        raise UsageError(f"{own.format} is the recorder's video as it is: --fps, --size and --from do not go with it")
    if own.ring == "lores" and not settings.value(f"cameras.{camera}.ring.downscale.enable"):
        raise UsageError(f"{camera} has no small ring: set [ring.downscale] enable = true, or use --size")
    if own.write_fifo is None and os.isatty(1):
        raise UsageError("stdout is a terminal; put a program behind it, such as: shmcam pipe cam0 | ffplay -")
    stop = Stop()
    stop.catch_signals()
    try:
        if own.write_fifo is None:
            _tell(_serve(own, settings, camera, 1, stop))
            return 0
        with Fifo(own.write_fifo) as fifo:
            while (descriptor := fifo.wait_for_reader(stop)) is not None:
                try:
                    summary = _serve(own, settings, camera, descriptor, stop)
                finally:
                    os.close(descriptor)
                _tell(summary)
    except StreamChanged as problem:
        _tell(f"{problem}")
        return EXIT_FAILED
    return 0


def _serve(own: argparse.Namespace, settings: Settings, camera: str, descriptor: int, stop: Stop) -> str:
    """Writes to one reader until it goes or stop is requested. Returns: what came of it, in words."""
    name = settings.ring_name(camera, "h264" if own.format in VIDEO else own.ring)
    with closing(LiveRing(name, stop, waits_for_repair=True)) as ring, PipeOutput(descriptor, stop) as output:
        with suppress(ReaderGone):
            if own.format in VIDEO:
                with asking_recorder(settings.socket_path, camera):
                    send_video(ring, output, is_mp4=own.format == "mp4", tell=_tell)
            else:
                send_pictures(_stream_of(own, settings, camera, ring), output, stop)
        damaged = f", {output.damaged} damaged while this program was stopped" if output.damaged else ""
        return f"the end: {output.sent_bytes} bytes, {ring.skipped + ring.lost} frames passed over{damaged}"


def _stream_of(own: argparse.Namespace, settings: Settings, camera: str, ring: LiveRing) -> PictureStream:
    encoders = {"y4m": encode_y4m, "rawvideo": encode_yuv420p, "bgr24": encode_bgr24, "gray": encode_gray}
    return PictureStream(
        ring=ring,
        encode=encoders.get(own.format) or jpeg_encoder(own.quality),
        size=own.size,
        fps=own.fps,
        nominal_fps=Fraction(settings.value(f"cameras.{camera}.camera.framerate")).limit_denominator(1001),
        has_header=own.format == "y4m",
        tell=_tell,
    )


def _tell(text: str) -> None:
    """Says something to a person; the stream has stdout for itself."""
    with suppress(OSError):
        print(f"shmcam pipe: {text}", file=sys.stderr, flush=True)


def build_parser() -> argparse.ArgumentParser:
    """Builds the parser of what stands behind `shmcam pipe`."""
    parser = argparse.ArgumentParser(
        prog="shmcam pipe",
        description="Write the pictures or the video of a camera to stdout until the reader goes (docs/bridges.md).",
    )
    add = parser.add_argument
    add("camera", nargs="?", default="", metavar="CAMERA", help="camera, such as cam0 (default: the first)")
    add("--format", choices=FORMATS, default="y4m", help="rawvideo: planes of yuv420p; h264, mp4: from the recorder")
    add("--fps", type=_rate, metavar="RATE", help="steady rate, frames repeated or left out (default: as they come)")
    add("--size", type=_size, metavar="WxH", help="scaled to so many pixels (default: as they are)")
    add("--from", dest="ring", choices=("main", "lores"), default="main", help="ring to read (default: %(default)s)")
    add("--quality", type=_quality, default=85, metavar="1-100", help="of mjpeg (default: %(default)s)")
    add("--write-fifo", type=Path, metavar="PATH", help="write into this named pipe, for one reader after the other")
    add("--config", type=Path, metavar="FILE", help="config.toml to use")
    return parser


def _rate(text: str) -> Fraction:
    try:
        rate = Fraction(text).limit_denominator(1001)
    except (ValueError, ZeroDivisionError):
        rate = Fraction(0)
    if not 0 < rate <= FPS_MAX:
        raise argparse.ArgumentTypeError(f"expected frames a second, 25 or 30000/1001, got {text!r}")
    return rate


def _size(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"(\d{1,5})x(\d{1,5})", text)
    size = (int(found[1]), int(found[2])) if found else (0, 0)
    if not all(1 <= side <= MAX_SIDE for side in size):
        raise argparse.ArgumentTypeError(f"expected WIDTHxHEIGHT in pixels, such as 640x480, got {text!r}")
    return size


def _quality(text: str) -> int:
    quality = whole_number(text)
    if not 1 <= quality <= 100:
        raise argparse.ArgumentTypeError(f"expected 1 to 100, got {text!r}")
    return quality
