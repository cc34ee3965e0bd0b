"""Decodes the video of one FFmpeg container: the right stream, damaged frames passed over, fields deinterlaced.

A frame that cannot be decoded is one lost frame, not the end of the file or of the connection: the first one is
logged, all are counted.
"""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Iterator
from fractions import Fraction

import av
from av.container import InputContainer
from av.filter import Graph
from av.stream import Disposition
from av.video.stream import VideoStream

from capture.sources.base import CameraError
from capture.sources.decoded_frame import PictureForm, form_of

DAMAGED_IN_A_ROW = 64
"""Reads that fail one after the other before the rest of a file counts as its end: a torn end never gets better."""

PICTURES = Disposition.attached_pic | Disposition.timed_thumbnails
"""Streams that FFmpeg lists as video but that hold covers and thumbnails."""

PAUSES_BELOW, HIGHEST_RATE = 0.7, 120.0
"""An average rate below this share of the rate between neighbours says that there are pauses (as FFmpeg guesses)."""

BARE = ("h264", "hevc")
"""Formats without a container (raspivid, rpicam-vid): FFmpeg invents 25 a second as their average, and counts fields
in their base rate. The codec has what the stream itself tells."""

SEQUENCES = {
    **dict.fromkeys(
        ("mpeg1video", "mpeg2video"),
        re.compile(rb"\x00\x00\x01\xb3(.{4})(?:.{4,132}?\x00\x00\x01\xb5([\x10-\x1f]..))?", re.DOTALL),
    ),
    "mpeg4": re.compile(rb"\x00\x00\x01[\x20-\x2f](.*?)\x00\x00\x01", re.DOTALL),
}
"""What makes another sequence: size, shape of the pixels, rate, chroma and interlacing (MPEG-1 and -2), the description
of the video object layer (MPEG-4). FFmpeg's decoders of these three hold the last frame back, and forget it then."""

log = logging.getLogger(__name__)


def choose_stream(container: InputContainer, name: str) -> VideoStream:
    """Returns the stream to show: the largest of those that are video, the default one of several of that size.

    `name`: of the file or camera, for messages. Raises: CameraError where there is none, with what there is instead.
    """
    videos = [stream for stream in container.streams.video if not stream.disposition & PICTURES]
    if not videos:
        raise CameraError(f"{name}: no video in it, only {_list_contents(container) or 'nothing that FFmpeg knows'}")
    chosen = max(videos, key=_rank_of)  # the first of equals
    if len(videos) < len(container.streams.video) or len(videos) > 1:
        log.info("%s has %s; stream %d is shown", name, _list_contents(container), chosen.index)
    return chosen


def _rank_of(stream: VideoStream) -> tuple[int, bool]:
    return stream.width * stream.height, bool(stream.disposition & Disposition.default)


def _list_contents(container: InputContainer) -> str:
    """Returns what a container holds, in words: `1 cover picture, 2 audio`."""
    covers = sum(bool(stream.disposition & PICTURES) for stream in container.streams.video)
    kinds = Counter[str](stream.type for stream in container.streams)
    kinds["video"] -= covers
    kinds["cover picture"] = covers
    return ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()) if count > 0)


class Deinterlacer:
    """Turns interlaced frames into progressive ones, one for one (bwdif); progressive ones pass through."""

    def __init__(self) -> None:
        self._graph: Graph | None = None
        self._shape: tuple[str, int, int] = ("", 0, 0)

    def add(self, frame: av.VideoFrame) -> list[av.VideoFrame]:
        """Takes a frame. Returns: those that are ready, one frame later than they came."""
        if self._graph is None and not frame.interlaced_frame:
            return [frame]
        shape = (frame.format.name, frame.width, frame.height)
        ready = self.drain() if self._graph is not None and shape != self._shape else []
        if self._graph is None:
            self._graph, self._shape = _build_graph(frame), shape
        self._graph.vpush(frame)
        return ready + self._pull()

    def drain(self) -> list[av.VideoFrame]:
        """Returns what is still inside; the next frame begins anew."""
        if self._graph is None:
            return []
        self._graph.vpush(None)
        ready, self._graph = self._pull(), None
        return ready

    def _pull(self) -> list[av.VideoFrame]:
        frames: list[av.VideoFrame] = []
        while self._graph is not None:
            try:
                frames.append(self._graph.vpull())
            except (av.BlockingIOError, av.EOFError):
                break
        return frames


def _build_graph(frame: av.VideoFrame) -> Graph:
    graph = Graph()
    source = graph.add_buffer(
        width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base or Fraction(1, 90_000)
    )
    bwdif = graph.add("bwdif", "mode=send_frame:deint=interlaced")
    sink = graph.add("buffersink")
    source.link_to(bwdif)
    bwdif.link_to(sink)
    graph.configure()
    return graph


class VideoDecoder:
    """The pictures of one open container."""

    def __init__(
        self, container: InputContainer, name: str, *, threads: str, deinterlace: bool, is_joined: bool = False
    ) -> None:
        """Chooses the stream. Raises: CameraError where there is no video.

        `threads`: FFmpeg's thread_type. `is_joined`: the stream has begun long ago; what cannot be decoded before its
        first key frame is no damage.
        """
        self.stream = choose_stream(container, name)
        self.stream.thread_type = threads
        if self.stream.codec_context.name == "mjpeg":  # else a picture that was cut off would end in grey
            self.stream.codec_context.options = {"err_detect": "explode"}
        self.packets = 0
        """Packets of the stream that came."""
        self.damaged = 0
        """Frames that could not be decoded."""
        self._container, self._name, self._is_joining = container, name, is_joined
        self._sequences = SEQUENCES.get(self.stream.codec_context.name)
        self._sequence: tuple[bytes, ...] = ()
        self._deinterlacer = Deinterlacer() if deinterlace else None
        self._declared_aspect = self.stream.sample_aspect_ratio
        self._first_shape: tuple[object, ...] = ()
        self._shape: tuple[int, int, str] = (0, 0, "")
        self._form: PictureForm | None = None
        self._has_warned = False

    @property
    def declared_rate(self) -> float:
        """Frames per second as the container declares it; 0: it does not."""
        average, base = float(self.stream.average_rate or 0), float(self.stream.base_rate or 0)
        if self._container.format.name in BARE:
            return float(self.stream.codec_context.framerate or 0) or average
        has_pauses = average < PAUSES_BELOW * base and base <= HIGHEST_RATE  # a base rate above it is a tick
        return base if has_pauses or not average else average

    def form_of(self, frame: av.VideoFrame) -> PictureForm:
        """Returns the form of a frame just read; only at a key frame, or with another size or format, is it a new one.

        The shape of its pixels is what the container says, as in players, until the codec says something new.
        """
        shape = (frame.width, frame.height, frame.format.name)
        if self._form is None or frame.key_frame or shape != self._shape:
            aspect = self.stream.codec_context.sample_aspect_ratio
            self._first_shape = self._first_shape or (frame.width, frame.height, aspect)
            is_first = (frame.width, frame.height, aspect) == self._first_shape
            self._form, self._shape = form_of(frame, (self._declared_aspect if is_first else None) or aspect), shape
        return self._form

    def read(self) -> Iterator[list[av.VideoFrame]]:
        """Yields the pictures that each packet brought, in the order in which they are shown; often none.

        Ends where the container ends. Raises: OSError, av.FFmpegError when it cannot be read.
        """
        failures = 0
        while failures < DAMAGED_IN_A_ROW:
            try:
                for packet in self._container.demux(self.stream):
                    failures = 0
                    self.packets += 1
                    if self._sequences is not None and (held := self._drain_before(packet, self._sequences)):
                        yield held
                    yield self._decode(packet)
                break
            except av.InvalidDataError as error:
                failures += 1
                self._note_damage(error)
        else:
            yield self._decode(None)
        if self._deinterlacer is not None:
            yield self._deinterlacer.drain()

    def _decode(self, packet: av.Packet[VideoStream] | None) -> list[av.VideoFrame]:
        """Returns the pictures that a packet brings; without one, those that the decoder holds."""
        try:
            frames = self.stream.decode(packet)
        except av.EOFError:  # after the end; nothing is inside
            return []
        except MemoryError:
            raise
        except av.FFmpegError as error:
            if not self._is_joining:
                self.damaged += 1
                self._note_damage(error)
            return []
        self._is_joining = self._is_joining and not frames
        if packet is None:
            for frame in frames:
                frame.time_base = self.stream.time_base  # PyAV takes it from the packet
        if self._deinterlacer is None:
            return frames
        return [ready for frame in frames for ready in self._deinterlacer.add(frame)]

    def _drain_before(self, packet: av.Packet[VideoStream], sequences: re.Pattern[bytes]) -> list[av.VideoFrame]:
        """Returns the frames of the sequence that ends before this packet; none if it goes on."""
        if not packet.is_keyframe or (found := sequences.search(bytes(packet))) is None:
            return []
        before, self._sequence = self._sequence, found.groups()
        if not before or before == self._sequence:
            return []
        frames = self._decode(None)
        self.stream.codec_context.flush_buffers()
        return frames

    def _note_damage(self, error: av.FFmpegError) -> None:
        if not self._has_warned:
            self._has_warned = True
            log.warning("%s: a damaged frame is passed over, further ones are only counted: %s", self._name, error)
