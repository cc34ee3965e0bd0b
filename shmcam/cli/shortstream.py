"""`shmcam shortstream N --out DIR`: saves the binary answer of `shortstream` as JPEG files."""

from __future__ import annotations

import struct
import sys
from collections.abc import Callable
from pathlib import Path

from shmcam.cli.options import EXIT_FAILED, Options, UsageError
from shmcam.cli.send import print_reply
from shmcam.control.call import call
from shmcam.control.messages import ShortStream, build

FRAME_BYTES_MAX = 64 * 1024 * 1024
"""Longest JPEG of a camera; a length above it means that the decoder has lost the beginning of a frame."""


class ShortStreamDecoder:
    """Splits n × (u32 big-endian length, JPEG) and a length of 0, which come in any pieces, into JPEGs."""

    def __init__(self, on_jpeg: Callable[[bytes], None]) -> None:
        self._on_jpeg = on_jpeg
        self._data = bytearray()
        self.is_at_end = False

    def feed(self, data: bytes) -> None:
        """Takes bytes and hands on each JPEG that is whole. Raises: ValueError if this cannot be a shortstream."""
        self._data += data
        while len(self._data) >= 4 and not self.is_at_end:
            (length,) = struct.unpack(">I", self._data[:4])
            if length > FRAME_BYTES_MAX:
                raise ValueError(f"frame of {length} bytes, limit {FRAME_BYTES_MAX}: out of step")
            if length == 0:
                self.is_at_end = True
            elif len(self._data) < 4 + length:
                return
            else:
                self._on_jpeg(bytes(self._data[4 : 4 + length]))
            del self._data[: 4 + length]


def main(options: Options) -> int:
    """Saves N frames as DIR/frame_0001.jpg …; prints the service's STREAM_DONE."""
    command, folder = _read_options(options.rest)
    folder.mkdir(parents=True, exist_ok=True)
    count = 0

    def save(jpeg: bytes) -> None:
        nonlocal count
        count += 1
        (folder / f"frame_{count:04}.jpg").write_bytes(jpeg)

    decoder = ShortStreamDecoder(save)
    try:
        reply = call(options.socket_path, command, options.timeout, decoder.feed)
    except ValueError as problem:
        print(f"shmcam: {problem}", file=sys.stderr)
        return EXIT_FAILED
    code = print_reply(reply, as_json=options.json)
    if reply.ok and not options.json:
        print(f"{count} files in {folder}")
    return code


def _read_options(words: list[str]) -> tuple[ShortStream, Path]:
    fields: dict[str, str] = {}
    rest = iter(words)
    for word in rest:
        name, equals, value = word.removeprefix("--").partition("=")
        if word.isdigit():
            fields["count"] = word
        elif word in {"last", "live"}:
            fields["when"] = word
        elif name in {"out", "camera", "quality", "count"}:
            fields[name] = value if equals else next(rest, "")
        else:
            raise UsageError(
                f"shortstream: unknown option {word}; usage: shortstream [N] [live] --out DIR [--camera NAME]"
            )
    if not fields.get("out"):
        raise UsageError("shortstream: --out DIR is missing; the frames are written there")
    folder = Path(fields.pop("out"))
    try:
        return build(ShortStream, dict(fields), text=True), folder
    except ValueError as problem:
        raise UsageError(str(problem)) from problem
