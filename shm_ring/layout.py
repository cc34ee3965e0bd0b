"""CONTRACT 1: the bytes of a ring, and the order in which they are written and read. Nothing else knows them.

One writer that never waits; any number of readers that never write (they map the segment PROT_READ). A segment is

    0             SEGMENT_HEADER, one page: magic, sizes, state │ head (futex word) │ heartbeat, writer │ names
    4096          SLOT_HEADER × slots, 256 bytes each: sequence word │ metadata of the frame │ its geometry
    payload_offset   slot 0: payload … │ trailer │ padding to a page
                     slot 1: payload … │ trailer │ padding to a page
                     …        each slot_stride bytes, page aligned; trailer = the last 64 bytes of the stride

Frame number n of a generation (its *sequence*: 0, 1, 2 …) lives in slot n % slots. `head` is the number of frames
published so far, so the newest is head - 1. The words on which processes race (head, sequence word, trailer, state,
heartbeat, magic) are aligned 32-bit words: one store on every CPU, never torn. All other bytes are only believed
after the sequence word has been read twice. Byte order is the machine's own; the magic reads differently on another.

WRITING frame n into slot n % slots                   READING frame n < head
  W1  sequence word = 2n + 1   (odd: being written)     R1  sequence word == 2n + 2 ?   else it is gone
      release fence            SYNC POINT A                 acquire fence               SYNC POINT C
  W2  payload, metadata, trailer                        R2  use payload, metadata
      release fence            SYNC POINT B                 acquire fence               SYNC POINT D
  W3  sequence word = 2n + 2   (even: frame n)          R3  sequence word == 2n + 2 ?   else discard what R2 saw
      release fence            SYNC POINT E
  W4  head = n + 1, then FUTEX_WAKE(head)             Waiting: FUTEX_WAIT(head) while head <= n; acquire fence.

WHY THIS IS ENOUGH, also on ARM (Boehm, "Can seqlocks get along with programming language memory models?", MSPC 2012).
Suppose R2 saw any byte of a later frame m > n of the same slot. That byte was stored in W2 of m, after fence A of m,
which followed W1 of m. The reader loaded it before fence D, which precedes R3. A release fence before a store whose
value is read by a load before an acquire fence *synchronises*: so W1 of m (or something later) is visible to R3, the
word there is no longer 2n + 2, and the frame is refused. Suppose instead that R2 missed a byte of frame n itself: R1
read the value of W3 of n, W2 of n is before fence B, R2 after fence C, so they synchronise and the byte is there.
So two equal even words prove that every byte between belongs to frame n. Fence E gives the same for head: who sees
head = n + 1 sees W3 of n, so a published frame is refused only when it was overwritten. The end of a generation, state
= RETIRED, is stored after one more release fence and read before an acquire fence (F): who sees it sees the last head.

The model tests/shm_ring/ring.pml checks this exhaustively, with stores that arrive and loads that happen in any order
between fences, and with a writer that dies at every step. Without fence A, D or E, without R3 or without the writers'
lock it finds a counter-example. B, C and R1 alone may go as long as every reader asks head first (E then covers them);
they stay, so that a reader that keeps its own count, or looks into a dead ring, is as safe.

Python has no fences: on x86-64 loads and plain stores keep this order by themselves and the interpreter does not
reorder them; non-temporal stores, with which memcpy copies large frames, do not, so locked instructions stand at A and
B. Elsewhere libatomic's atomic_thread_fence is called (all in sync.py). Tests on x86-64 therefore prove the logic,
not the fences.

A writer that dies leaves its slot odd; nobody can take it for a frame. If it died between W3 and W4 its successor
publishes that frame (ownership.py), so that no sequence word is ever used for two different frames. The 32-bit words
wrap: one returns after 2**31 frames, 103 days at 240 fps, and a reader would have to hold a single borrow for exactly
that long to be fooled.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

import numpy as np

MAGIC = 0x52474D53  # "SMGR" in little-endian bytes; a machine of the other byte order reads another number and refuses
VERSION = 1
WORD_MASK = 0xFFFFFFFF
PAGE_BYTES = 4096  # alignment of payloads, also on machines with larger pages: there the mapping just ends later
TRAILER_BYTES = 64  # a cache line of its own after the payload
MIN_SLOTS = 2  # the newest frame must outlive the beginning of the next; 4 or more are sensible
MAX_SLOTS = 1 << 16
MAX_SEGMENT_BYTES = 1 << 40
MAX_PLANES = 4

STARTING, LIVE, RETIRED = 0, 1, 2
STATE_NAMES = ("starting", "live", "retired")

SEGMENT_HEADER = np.dtype(
    [
        ("magic", "u4"),  # MAGIC, stored last when the segment is made; 0 = not yet
        ("version", "u4"),
        ("header_bytes", "u4"),  # PAGE_BYTES: where the slot headers begin
        ("slot_header_bytes", "u4"),
        ("slots", "u4"),
        ("state", "u4"),  # STARTING, LIVE, RETIRED
        ("generation", "u4"),  # counts segments of this name; kept in the lock file over restarts
        ("takeovers", "u4"),  # how many writers have carried on after a dead one
        ("payload_bytes", "u8"),  # capacity of one slot
        ("slot_stride", "u8"),  # bytes from one payload to the next
        ("payload_offset", "u8"),  # bytes from the start of the segment to the first payload
        ("first_sequence", "u8"),  # sequence of the first frame: 0 (tests start near the wrap)
        ("head", "u4"),  # futex word: published frames, modulo 2**32; on a cache line of its own
        ("pad_head", "u1", (60,)),
        ("heartbeat_ms", "u4"),  # CLOCK_BOOTTIME in ms, modulo 2**32: the writer lives even when the camera does not
        ("writer_pid", "u4"),  # 0 = closed
        ("writer_start", "u8"),  # /proc/<pid>/stat field 22, clock ticks since boot: tells a reused pid
        ("writer_pid_space", "u8"),  # inode of its pid namespace: elsewhere the pid means nothing, the heartbeat counts
        ("pad_writer", "u1", (40,)),
        ("camera", "S32"),
        ("stream", "S32"),
        ("pad_page", "u1", (3840,)),
    ],
    align=True,
)

FRAME_FIELDS = np.dtype(
    [
        ("sequence", "u8"),  # n in full: lets a reader that has just come extend the 32-bit words
        ("frame_id", "u8"),
        ("captured_ns", "i8"),  # sensor clock, CLOCK_BOOTTIME
        ("captured_utc_ns", "i8"),
        ("published_ns", "i8"),  # CLOCK_BOOTTIME when the slot was committed
        ("used_bytes", "u8"),
        ("analogue_gain", "f8"),  # 0 = unknown
        ("digital_gain", "f8"),
        ("lux", "f8"),  # nan = unknown
        ("total_dropped", "u8"),
        ("exposure_us", "u4"),  # 0 = unknown
        ("frame_duration_us", "u4"),  # 0 = unknown
        ("colour_temperature_k", "u4"),  # 0 = unknown
        ("flags", "u4"),
        ("dropped_before", "u4"),
        ("pad", "u4"),
    ],
    align=True,
)

GEOMETRY = np.dtype(
    [
        ("pixel_format", "S16"),  # FFmpeg's name; empty = the payload is not a picture
        ("width", "u4"),
        ("height", "u4"),
        ("offsets", "u8", (MAX_PLANES,)),
        ("strides", "u4", (MAX_PLANES,)),  # 0 = no such plane
        ("color_space", "S16"),
        ("color_range", "S8"),
        ("sample_aspect", "u2", (2,)),  # width and height of one pixel; 0 = square (earlier writers)
    ],
    align=True,
)

SLOT_HEADER = np.dtype(
    [
        ("word", "u4"),  # 2n + 1 while frame n is written, 2n + 2 when it is there, modulo 2**32
        ("pad_word", "u4"),
        ("frame", FRAME_FIELDS),
        ("geometry", GEOMETRY),
        ("pad_slot", "u1", (40,)),
    ],
    align=True,
)


def _struct(dtype: np.dtype[np.void]) -> struct.Struct:
    """The same fields for struct, whose native packing is several times faster than a numpy record from Python."""
    codes = {"u4": "I", "i8": "q", "u8": "Q", "f8": "d"}
    packed = struct.Struct("@" + "".join(codes[dtype[name].str[1:]] for name in dtype.names or ()))
    if packed.size != dtype.itemsize:
        raise AssertionError(f"struct packs {packed.size} bytes where the dtype has {dtype.itemsize}")
    return packed


FRAME_STRUCT = _struct(FRAME_FIELDS)


def offset_of(dtype: np.dtype[np.void], name: str) -> int:
    """Bytes from the start of a structure to one of its fields."""
    fields = dtype.fields
    assert fields is not None  # noqa: S101 - only ever called with the structures above
    return int(fields[name][1])


# Where the words of the segment header that are used one by one lie: indices among its 32-bit or 64-bit words.
HEAD_WORD = offset_of(SEGMENT_HEADER, "head") // 4
STATE_WORD = offset_of(SEGMENT_HEADER, "state") // 4
HEARTBEAT_WORD = offset_of(SEGMENT_HEADER, "heartbeat_ms") // 4
PID_WORD = offset_of(SEGMENT_HEADER, "writer_pid") // 4
TAKEOVERS_WORD = offset_of(SEGMENT_HEADER, "takeovers") // 4
START_QUAD = offset_of(SEGMENT_HEADER, "writer_start") // 8
PID_SPACE_QUAD = offset_of(SEGMENT_HEADER, "writer_pid_space") // 8

FRAME_OFFSET = offset_of(SLOT_HEADER, "frame")
GEOMETRY_OFFSET = offset_of(SLOT_HEADER, "geometry")
SLOT_HEADER_BYTES = SLOT_HEADER.itemsize


def segment_name(prefix: str, camera: str, stream: str) -> str:
    """Names the segment of one camera's stream, e.g. /shmcam.cam0.main."""
    name = f"/{prefix}.{camera}.{stream}"
    if "/" in name[1:] or "\0" in name or len(name) > 200:
        raise ValueError(f"segment name {name!r}: prefix, camera and stream are plain words")
    return name


class RingShape(NamedTuple):
    """The two sizes from which every offset of the drawing above follows."""

    slots: int
    payload_bytes: int

    @property
    def payload_offset(self) -> int:
        """Bytes from the start of the segment to the first payload."""
        return _round_up(PAGE_BYTES + self.slots * SLOT_HEADER_BYTES)

    @property
    def slot_stride(self) -> int:
        """Bytes from one payload to the next."""
        return _round_up(self.payload_bytes + TRAILER_BYTES)

    @property
    def total_bytes(self) -> int:
        """Length of the segment."""
        return self.payload_offset + self.slots * self.slot_stride

    def slot_header(self, slot: int) -> int:
        """Returns the offset of a slot's header."""
        return PAGE_BYTES + slot * SLOT_HEADER_BYTES

    def payload(self, slot: int) -> int:
        """Returns the offset of a slot's payload."""
        return self.payload_offset + slot * self.slot_stride

    def trailer(self, slot: int) -> int:
        """Returns the offset of the copy of the sequence word after the payload."""
        return self.payload(slot + 1) - TRAILER_BYTES

    def problem(self) -> str:
        """Returns the reason why no ring can have these sizes; empty when one can."""
        if not MIN_SLOTS <= self.slots <= MAX_SLOTS:
            return f"slots = {self.slots}: must be {MIN_SLOTS}..{MAX_SLOTS}"
        if not 1 <= self.payload_bytes <= MAX_SEGMENT_BYTES or self.total_bytes > MAX_SEGMENT_BYTES:
            return f"payload_bytes = {self.payload_bytes}: must be 1 or more, {MAX_SEGMENT_BYTES} bytes for the ring"
        return ""


def _round_up(size: int) -> int:
    """Rounds up to whole pages."""
    return -(-size // PAGE_BYTES) * PAGE_BYTES
