"""Writes small text into RGB pictures with nothing but numpy, since the analyzer loads no imaging library."""

from __future__ import annotations

import base64
import zlib
from functools import cache

import numpy as np
from numpy.typing import NDArray

LETTER_WIDTH, LETTER_HEIGHT = 8, 14
FIRST_LETTER, LETTERS = 32, 95
"""Printable ASCII; any other letter is shown as a question mark."""
# DejaVu Sans Mono (Bitstream Vera licence) drawn once at 13 px, all letters side by side, a bit per pixel.
_PACKED = (
    "c-p1ZL2KJE6aZk^F_}6-c$6^2Fvd}R$gylNyx<Bw*=^&)pgZ&u%19H?WtaQ_W0U@Z{h}TBv${RWX-eBMD0>ITk>yYJdrxMpkI^Z6ZNw~hKbnPX"
    "#58cdeRduEz_B}Ucr_1<yMyE1kydzi9cTb%$9xq72kwT#I9F=eCY>t$lsw^W(sW&dO>Fe$Hg4lq-6QTccO7W%R(Q$76aJn0kpl4AjYg7}_*PFt"
    "T>B~2#|ci2)>DM2B3_oVyan9sWHo@4&-Tgr7vI&MSDr^61n;#D5rqhtj;0gTsI?}3p|8Ipg$9(n$!th`MHy~lRW#~mn^(}?&{<Km#_X(V_k6Zk"
    "pAsKCo)bSfZoWm1A9p#weB`h8{EGNxJd5a_UyMmBtp&RVzJPjdt^HuY*j*;W6^z`QWO-aO;NR~ZU-K}QgH5D1jBVK)sAa3M>&gzIt-h|Y#8x?;"
    "Y6ZSrq0xpw1N;hVLy>AQ*-~V*JbWhper&%GPj$+fKt39n0Qu(Zf%i|3J~{O{wrB=`ljVeN7LHfMx1Qhb`J(3q&A6Zmv!kPP;(bK`xd^%d1qO^!"
    "a#*bne5LW6{$N17{RF4<M0AHCUVDDA=R+{XQcTi5_iRxgtzF-PU;-ph%dk9wTjNU$mz#&qsfaJ7KEcxQ5>`EbLAhUpCB7n_a-SNw5LqVl1Fwc>"
    "ep?Zr#;Q|ck))~+!o5w3uJ1MVeQr7|W1Z-qptwb#YB+xGItS*a;bvT$qM4_~crG%_`_6IobRC)ceode3N{ScXis9p?kMhHL*elfh;eLd(5v&fp"
    "i`4Cr$M8!f&-w7Lr}704hwb$r@%!+3W80^E|Jr{54||ti"
)


def draw_text(picture: NDArray[np.uint8], text: str, x: int, y: int, color: tuple[int, int, int]) -> None:
    """Writes one line into `picture` (height, width, 3), upper left corner at x, y; what does not fit is cut off."""
    codes = [ord(letter) - FIRST_LETTER for letter in text]
    unknown = ord("?") - FIRST_LETTER
    glyphs = [_load_glyphs()[code if 0 <= code < LETTERS else unknown] for code in codes]
    if not glyphs:
        return
    left, top = max(0, -x), max(0, -y)
    mask = np.concatenate(glyphs, axis=1)[top:, left:]
    target = picture[max(0, y) : max(0, y + LETTER_HEIGHT), max(0, x) : max(0, x + text_width_of(text))]
    target[mask[: target.shape[0], : target.shape[1]]] = color


def text_width_of(text: str) -> int:
    """Returns the width of a line in pixels."""
    return LETTER_WIDTH * len(text)


@cache
def _load_glyphs() -> NDArray[np.bool_]:
    """Returns (LETTERS, LETTER_HEIGHT, LETTER_WIDTH)."""
    bits = np.unpackbits(np.frombuffer(zlib.decompress(base64.b85decode(_PACKED)), np.uint8))
    rows = bits.astype(bool).reshape(LETTER_HEIGHT, LETTERS, LETTER_WIDTH)
    return rows.transpose(1, 0, 2)
