"""Counts the pixels of a saved picture by its header alone, before anything is decoded."""

from __future__ import annotations

import struct

import simplejpeg

from shmcam.imaging import tiff
from shmcam.imaging.tiff import Tag


def count_pixels(data: bytes) -> int | None:
    """Returns width times height of a JPEG, PNG or TIFF; None where the header is no such."""
    try:
        if data.startswith(tiff.JPEG_SIGNATURE):
            height, width = simplejpeg.decode_jpeg_header(data)[:2]
            return int(height) * int(width)
        if data.startswith(tiff.PNG_SIGNATURE):
            width, height = struct.unpack_from(">II", data, 16)
            return int(width * height)
        tags = tiff.decode_tags(data)
        return tiff.number_of(tags[Tag.IMAGE_WIDTH]) * tiff.number_of(tags[Tag.IMAGE_LENGTH])
    except (ValueError, KeyError, struct.error):  # cut short, or no header of this kind after all
        return None
