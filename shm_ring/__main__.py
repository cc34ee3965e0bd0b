"""`python -m shm_ring`: the rings of this machine; with a name, its header and slots; also `top` and `dump`."""

from __future__ import annotations

import sys
from collections.abc import Iterator

from shm_ring.errors import FrameOverwritten, RingError, RingNotReady
from shm_ring.reader import RingReader
from shm_ring.tools import dump_ring, list_rings, top


def header(reader: RingReader) -> Iterator[str]:
    """Describes the segment header."""
    alive = "alive" if reader.writer_alive else "dead"
    yield f"{reader.name}: {reader.state}, generation {reader.generation}, {reader.takeovers} takeovers"
    yield f"  camera {reader.camera}, stream {reader.stream}"
    yield (
        f"  {reader.slots} slots of {reader.payload_bytes} bytes, stride {reader.shape.slot_stride}, "
        f"payloads from {reader.shape.payload_offset}, {reader.shape.total_bytes} bytes in all"
    )
    yield f"  writer pid {reader.writer_pid} ({alive}), last sign of life {reader.writer_age_s:.3f} s ago"
    yield f"  head {reader.head}, oldest {reader.oldest}"


def slots(reader: RingReader) -> Iterator[str]:
    """Describes the slots, oldest frame first."""
    yield "   SLOT   SEQUENCE   FRAME ID     CAPTURED s     BYTES  EXPOSURE   GAIN  WHAT"
    for sequence in range(max(reader.first_sequence, reader.head - reader.slots), reader.head):
        slot = sequence % reader.slots
        try:
            frame = reader.borrow(sequence)
            meta, geometry = frame.meta, frame.geometry
        except FrameOverwritten:
            yield f"  {slot:5} {sequence:10} being written, or torn by its writer's death"
            continue
        what = f"{geometry.pixel_format} {geometry.width}x{geometry.height}" if geometry else "no picture"
        yield (
            f"  {slot:5} {sequence:10} {meta.frame_id:10} {meta.captured_ns / 1e9:14.6f} {frame.fields[5]:9} "
            f"{meta.exposure_us:9} {meta.analogue_gain:6.2f}  {what}"
        )


def main(argv: list[str] | None = None) -> int:
    """Shows what is there."""
    words = sys.argv[1:] if argv is None else argv
    commands = {"top": top.main, "dump": dump_ring.main}
    if words and words[0] in commands:
        return commands[words[0]](words[1:])
    if words and words[0] in ("-h", "--help"):
        print(f"{__doc__}\n\nusage: python -m shm_ring [/PREFIX.CAMERA.STREAM | top … | dump …]")
        return 0
    try:
        return max([0, *(show(name, whole=bool(words)) for name in words or list_rings.list_rings())])
    except BrokenPipeError:
        return 0


def show(name: str, *, whole: bool) -> int:
    """Prints one ring, `whole`: with its slots. Returns: the exit code; a damaged ring does not hide the others."""
    try:
        with RingReader.open(name) as reader:
            print("\n".join([*header(reader), *(slots(reader) if whole else ())]))
    except RingError as error:
        if isinstance(error, RingNotReady) and not whole:
            return 0  # it has gone since it was listed
        print(f"ERROR: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
