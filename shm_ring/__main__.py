"""`python -m shm_ring`: the rings of this machine; with a name, its header and slots; also `top` and `dump`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import suppress

from shm_ring import catalogue, dump, top
from shm_ring.errors import FrameOverwritten, RingError, RingNotReady
from shm_ring.reader import RingReader


def header(reader: RingReader) -> Iterator[str]:
    """Describe the segment header."""
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
    """Describe the slots, oldest frame first."""
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
    """Show what is there."""
    words = sys.argv[1:] if argv is None else argv
    commands = {"top": top.main, "dump": dump.main}
    if words and words[0] in commands:
        return commands[words[0]](words[1:])
    if words and words[0] in ("-h", "--help"):
        print(f"{__doc__}\n\nusage: python -m shm_ring [/PREFIX.CAMERA.STREAM | top … | dump …]")
        return 0
    try:
        if not words:
            for name in catalogue.rings():
                with suppress(RingNotReady), RingReader.open(name) as reader:  # it may have gone since it was listed
                    print("\n".join(header(reader)))
        for name in words:
            with RingReader.open(name) as reader:
                print("\n".join([*header(reader), *slots(reader)]))
    except RingError as error:
        print(f"ERROR: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        return 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
