"""The brightness of night frames: what the analyzer exposes for, and what startrails therefore have to cope with.

One place for both, so that frames exposed as asked are never too bright for the pictures that are made of them.
"""

from __future__ import annotations

TARGET_LIGHT = 0.2
"""Mean relative light aimed at, about luma 124 with sRGB: mid grey (18 %) plus what lamps leave."""
DIM_LIGHT = TARGET_LIGHT / 2.5
GLARING_LIGHT = TARGET_LIGHT * 2.5
"""Outside these the exposure changes; 2.6 stops apart, so that a step never calls for the opposite step."""
VERY_SATURATED = 0.75
"""With so much of a frame at full scale it shows nothing but white."""


def luma_of(light: float) -> float:
    """Returns the full-range luma, 0-255, of a relative light 0..1 (sRGB, IEC 61966-2-1)."""
    return 255.0 * (12.92 * light if light <= 0.0031308 else 1.055 * light ** (1 / 2.4) - 0.055)


TRAIL_SKY = luma_of(TARGET_LIGHT) / 3
"""Luma to which a brighter sky behind startrails is lowered; a white star is then six times as bright."""
