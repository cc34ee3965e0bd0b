"""Encodes one frame or stack as the bytes of a file: jpg, png, npy, tiff.

8-bit frames go into JPEG from their planes. Stacks keep 16 bits in png, npy and tiff, and become a tone-mapped jpg.
npy is (height, width, 3), blue first, of 8 bits for a frame and 16 for a stack. With export.npy = "planes" it holds
samples as the camera gave them where numpy can show them as one array:

    yuv420p, nv12 of even size   (height * 3 / 2, width): OpenCV's I420 / NV12 layout
    gray                         (height, width)
    anything else                (height, width, 3), blue first
"""

from __future__ import annotations

import io
import struct
from collections.abc import Sequence
from typing import cast

import cv2
import numpy as np

from exporter.settings import ExportSettings
from exporter.stacking import tone_map
from shm_ring.color import to_bgr
from shm_ring.formats import Geometry
from shmcam.imaging import tiff
from shmcam.imaging.accumulate import Payload, Samples16
from shmcam.imaging.jpeg import to_jpeg
from shmcam.imaging.png import encode_chunk
from shmcam.imaging.tiff import Tag

Parts = Sequence[bytes | memoryview]
Samples = Payload | Samples16
Tags = tuple[tiff.Tags, tiff.Tags]
"""The tags of the first directory and of the EXIF directory, as `exif.tags_of` returns them."""

PNG_HEADER_BYTES = 33
"""Signature and IHDR; the EXIF chunk comes right behind (PNG 3rd edition, 11.3.4.5)."""
TIFF_RGB, TIFF_GRAY = 2, 1


def encode_picture(samples: Samples, geometry: Geometry, kind: str, tags: Tags, settings: ExportSettings) -> Parts:
    """Returns the bytes of a file, in pieces to be written one after the other.

    `samples`: a payload, uint8 for a frame or uint16 for a stack. Raises: ValueError for an unknown kind.
    """
    match kind:
        case "jpg":
            payload = (
                _as_payload(samples)
                if samples.dtype == np.uint8
                else tone_map.stretch_to_8_bits(_as_16_bits(samples), geometry)
            )
            jpeg = to_jpeg(payload, geometry, settings.jpg_quality)
            return jpeg[:2], _encode_app1(tags), memoryview(jpeg)[2:]
        case "png":
            return _encode_png(_to_square_pixels(samples, geometry), tags, settings.png_compression)
        case "npy":
            buffer = io.BytesIO()
            np.lib.format.write_array(buffer, to_array(samples, geometry, settings.npy), allow_pickle=False)
            return (buffer.getbuffer(),)
        case "tiff":
            return _encode_tiff(_to_square_pixels(samples, geometry), tags)
    raise ValueError(f"format {kind!r}: must be one of jpg, png, npy, tiff")


def to_array(samples: Samples, geometry: Geometry, form: str) -> Samples:
    """Returns the array of an npy file, see the module."""
    if form == "bgr":
        picture = _to_bgr_or_gray(samples, geometry)
        return picture if picture.ndim == 3 else cast("Samples", np.repeat(picture[..., None], 3, axis=2))
    if array_layout_of(geometry, form) in ("i420", "nv12"):
        rows = [plane.reshape(-1) for plane in tone_map.planes_of(samples, geometry)]
        return np.concatenate(rows).reshape(-1, geometry.width)
    return _to_bgr_or_gray(samples, geometry)


def array_layout_of(geometry: Geometry, form: str) -> str:
    """Returns the layout of that array: i420, nv12, bgr or gray."""
    even = geometry.width % 2 == 0 and geometry.height % 2 == 0
    planar = {"gray": "gray", "yuv420p": "i420" if even else "bgr", "nv12": "nv12" if even else "bgr"}
    return planar.get(geometry.pixel_format, "bgr") if form == "planes" else "bgr"


def _to_bgr_or_gray(samples: Samples, geometry: Geometry) -> Samples:
    """Returns (height, width, 3) with blue first, or (height, width) for grey."""
    if samples.dtype != np.uint8:
        return tone_map.to_bgr(_as_16_bits(samples), geometry)
    if geometry.pixel_format == "gray" and geometry.color_range == "pc":
        return np.ascontiguousarray(tone_map.planes_of(samples, geometry)[0])
    return to_bgr(_as_payload(samples), geometry)


def _to_square_pixels(samples: Samples, geometry: Geometry) -> Samples:
    """Returns BGR or grey as wide as it is shown: a circle is round. Only npy keeps the camera's own pixels."""
    picture, width = _to_bgr_or_gray(samples, geometry), geometry.shown_width
    if width == geometry.width:
        return picture
    how = cv2.INTER_LINEAR if width > geometry.width else cv2.INTER_AREA
    return cast("Samples", cv2.resize(picture, (width, geometry.height), interpolation=how))


def _as_payload(samples: Samples) -> Payload:
    return samples.astype(np.uint8, copy=False)


def _as_16_bits(samples: Samples) -> Samples16:
    return samples.astype(np.uint16, copy=False)


def _encode_app1(tags: Tags) -> bytes:
    block = tiff.EXIF_MARK + tiff.encode_header(*tags)
    return b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block


def _encode_png(picture: Samples, tags: Tags, compression: int) -> Parts:
    is_encoded, data = cv2.imencode(".png", picture, [cv2.IMWRITE_PNG_COMPRESSION, compression])
    if not is_encoded:
        raise ValueError(f"png of {picture.shape}: OpenCV refused")
    png = data.data.cast("B")
    return png[:PNG_HEADER_BYTES], encode_chunk(b"eXIf", tiff.encode_header(*tags)), png[PNG_HEADER_BYTES:]


def _encode_tiff(picture: Samples, tags: Tags) -> Parts:
    """Returns an uncompressed baseline TIFF 6.0: the directories and behind them the samples, both big-endian."""
    channels = 1 if picture.ndim == 2 else 3
    rgb = picture if channels == 1 else picture[..., ::-1]
    samples = np.ascontiguousarray(rgb, rgb.dtype.newbyteorder(">"))
    layout: dict[int, tiff.Value] = {
        Tag.IMAGE_WIDTH: tiff.as_long(picture.shape[1]),
        Tag.IMAGE_LENGTH: tiff.as_long(picture.shape[0]),
        Tag.BITS_PER_SAMPLE: tiff.as_short(*(8 * picture.itemsize,) * channels),
        Tag.COMPRESSION: tiff.as_short(1),
        Tag.PHOTOMETRIC_INTERPRETATION: tiff.as_short(TIFF_GRAY if channels == 1 else TIFF_RGB),
        Tag.SAMPLES_PER_PIXEL: tiff.as_short(channels),
        Tag.ROWS_PER_STRIP: tiff.as_long(picture.shape[0]),
        Tag.STRIP_BYTE_COUNTS: tiff.as_long(samples.nbytes),
        Tag.PLANAR_CONFIGURATION: tiff.as_short(1),
        Tag.STRIP_OFFSETS: tiff.as_long(0),
    }
    first, exif = tags
    layout[Tag.STRIP_OFFSETS] = tiff.as_long(len(tiff.encode_header({**first, **layout}, exif)))
    return tiff.encode_header({**first, **layout}, exif), samples.data.cast("B")
