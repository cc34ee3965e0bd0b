"""A network camera over HTTP: MJPEG, or single pictures that are asked for one after the other.

A thread reads, so that the camera's pictures never wait in a socket; the loop decodes them. A picture that cannot be
decoded is passed over, counted as lost, and the connection stays. What is no JPEG (HLS, MPEG-TS, ...) is left to
FFmpeg, by the same address.
"""

from __future__ import annotations

import http.client
import logging
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import closing

import av
from msgspec.structs import replace

from capture.sources.base import CameraError, CameraRequest, GeometryChanged, OpenedSource, Payload, ShotMeta
from capture.sources.decoded_frame import FrameWriter, form_of
from capture.sources.mjpeg.camera_clock import CameraClock
from capture.sources.mjpeg.http_client import NOT_MODIFIED, Answer, HttpClient
from capture.sources.mjpeg.jpeg_decoder import JpegDecoder, UnusablePicture
from capture.sources.mjpeg.picture_scanner import SOI, PictureScanner, ScannedPicture, boundary_of
from capture.sources.pyav_stream import KEY_WAIT_S, OPEN_S, LiveSource
from capture.sources.stream_address import NetworkAddress
from shmcam.runtime.clock import RateMeter, now_ns
from shmcam.runtime.stop import Stop

READ_BYTES = 64 << 10
QUEUE_LENGTH, QUEUE_BYTES = 64, 16 << 20
"""What waits for the loop at most."""
WAIT_LIMIT_NS = 500_000_000
"""A picture that waited longer is passed over for a newer one: a machine that is too slow for all shows the present."""
REPEAT_NS = 1_000_000_000
"""A single picture that stays the same is shown again so often: the camera answers, and the scene is that still."""

RATE_INTERVALS, RATE_WINDOW_S = 60, 10.0
RATE_SPAN_S, RATE_WAIT_S = 0.3, 1.5
"""Arrivals over so long tell the rate (some cameras send bunches); opening waits for it at most RATE_WAIT_S."""
ROUND = 0.015
"""A rate this near to a whole number is that number."""

log = logging.getLogger(__name__)


class HttpSource:
    """Source "url" over HTTP; see capture.sources.base.FrameSource."""

    def __init__(self, address: NetworkAddress, *, key_wait_s: float = KEY_WAIT_S, deinterlace: bool = False) -> None:
        """`key_wait_s` and `deinterlace`: see LiveSource, which reads what is no JPEG."""
        self._address, self._key_wait_s, self._deinterlace = address, key_wait_s, deinterlace
        self._reader: _Reader | None = None
        self._other: LiveSource | None = None
        """FFmpeg's stream, where the address gives no JPEG."""
        self._frame: av.VideoFrame | None = None
        self._writer: FrameWriter | None = None
        self._captured_ns = self._lost = self._unusable_count = 0
        self._unusable = ""
        """The last picture's trouble; empty: there was none yet."""

    @property
    def description(self) -> str:
        """Kind and address, without secrets."""
        return f"url {self._address.shown}"

    def open(self, request: CameraRequest, stop: Stop) -> OpenedSource:
        """Connects, and waits for the first picture and the rate. Raises: CameraError, StillOpening."""
        if self._other is not None:
            return self._other.open(request, stop)
        self.close()
        self._decoder, self._clock, self._frame = JpegDecoder(), CameraClock(), None
        self._unusable, self._unusable_count = "", 0
        self._reader = _Reader(self._address, request)
        self._reader.start()
        deadline_ns = now_ns() + round(OPEN_S * 1e9)
        try:
            while (frame := self._decode_next(0.1)) is None:
                if stop.requested or now_ns() > deadline_ns:
                    why = f": {self._unusable}" if self._unusable else ""
                    raise CameraError(f"{self.description}: no picture within {OPEN_S:.0f} s{why}")
        except _OtherFormat as other:
            self.close()
            log.info("%s answers %s: read by FFmpeg", self.description, other)
            self._other = LiveSource(
                *("url", self._address.for_ffmpeg()), key_wait_s=self._key_wait_s, deinterlace=self._deinterlace
            )
            return self._other.open(request, stop)
        except CameraError:
            self.close()
            raise
        until_ns = now_ns() + round(RATE_WAIT_S * 1e9)
        while not self._reader.rate and now_ns() < until_ns and not stop.wait(0.02):
            pass
        self._lost = 0  # nothing is missing before the first picture
        self._writer = FrameWriter(form_of(frame))
        refused = dict.fromkeys(request.controls, "not offered by this kind of camera")
        return OpenedSource(self._writer.form.shown, framerate=self._reader.rate, refused=refused, counts_losses=True)

    def wait(self, timeout_s: float) -> bool:
        """Waits for a picture that can be decoded. Raises: CameraError, GeometryChanged."""
        if self._other is not None:
            return self._other.wait(timeout_s)
        frame = self._decode_next(timeout_s)
        if frame is None:
            return False
        form, before = form_of(frame), self._writer.form if self._writer else None
        if form != before:
            self._writer = FrameWriter(form)
            if before is None or form.shown != before.shown:
                raise GeometryChanged(form.shown)
        return True

    def write(self, payload: Payload, lores: Payload | None = None, frame_id: int = 0) -> ShotMeta:
        """Copies or converts the picture that waits."""
        if self._other is not None:
            return self._other.write(payload, lores, frame_id)
        if self._frame is None or self._reader is None or self._writer is None:
            raise CameraError(f"{self.description}: no picture is waiting")
        frame, self._frame = self._frame, None
        lost, self._lost = self._lost, 0
        self._writer.write(frame, payload)
        rate = self._reader.rate
        return ShotMeta(
            captured_ns=self._captured_ns, frame_duration_us=round(1e6 / rate) if rate else 0, lost_before=lost
        )

    def apply(self, request: CameraRequest) -> bool:
        """Sets how many of the pictures are taken, and how often single ones are asked for."""
        if self._other is not None:
            return self._other.apply(request)
        if self._reader is not None:
            self._reader.request = request
        return True

    def close(self) -> None:
        """Ends the connection; the thread notices at once."""
        if self._other is not None:
            self._other.close()
            self._other = None
        if self._reader is not None:
            self._reader.end()
            self._reader = None
            if self._unusable_count:
                log.warning("%s: %d unusable pictures", self.description, self._unusable_count)

    def _decode_next(self, timeout_s: float) -> av.VideoFrame | None:
        """Returns the frame that is ready, or waits for a picture and decodes it; None: there was none.

        Raises: CameraError.
        """
        if self._reader is None:
            raise CameraError(f"{self.description} is closed")
        deadline_ns = now_ns() + round(timeout_s * 1e9)
        while self._frame is None:
            picture = self._reader.take((deadline_ns - now_ns()) / 1e9)
            if picture is None:
                return None
            self._lost += picture.lost_before
            captured_ns = self._clock.captured_ns(picture.own_s, picture.arrived_ns)
            try:
                self._frame = self._decoder.decode(picture.jpeg, is_complete=picture.is_complete)
                self._captured_ns = captured_ns
            except UnusablePicture as error:
                self._lost += 1
                self._note_unusable(str(error))
        return self._frame

    def _note_unusable(self, why: str) -> None:
        if not self._unusable:
            log.warning("%s: a picture is passed over: %s", self.description, why)
        self._unusable, self._unusable_count = why, self._unusable_count + 1


class _OtherFormat(Exception):
    """The address answers with something that is no JPEG; its name is the message."""


class _Reader(threading.Thread):
    """Reads pictures until `end` is called or the camera fails."""

    def __init__(self, address: NetworkAddress, request: CameraRequest) -> None:
        super().__init__(name=f"read {address.shown}", daemon=True)
        self.request = request
        """Tells which pictures are taken, and how often single ones are asked for."""
        self._address, self._client = address, HttpClient(address)
        self._ready = threading.Condition()
        self._pictures: deque[ScannedPicture] = deque()
        self._bytes = 0
        self._lost = 0
        """Pictures dropped from the queue since the last one was taken."""
        self._arrived = 0
        self._meter = RateMeter(RATE_INTERVALS, window_s=RATE_WINDOW_S)
        self._failure: Exception | None = None
        self._ending = threading.Event()
        self._single: ScannedPicture | None = None
        """The last picture of those that are asked for one by one."""
        self._repeated_ns = 0

    def run(self) -> None:
        """Reads until the end; a failure reaches the thread that waits."""
        failure: Exception = CameraError(f"{self._address.shown}: the camera ended the stream")
        try:
            self._read()
        except _OtherFormat as other:
            failure = other
        except (OSError, http.client.HTTPException, ValueError) as error:
            words = self._address.hide_secrets(str(error)) or type(error).__name__
            failure = CameraError(f"{self._address.shown}: {words}")
        finally:
            self._client.close()
        with self._ready:
            self._failure = failure
            self._ready.notify_all()

    @property
    def rate(self) -> float:
        """Pictures per second that are taken; 0 while that is not known."""
        with self._ready:
            rate, span_ns = self._meter.per_s, self._meter.span_ns
        if span_ns < RATE_SPAN_S * 1e9:
            return 0.0
        whole = round(rate)
        return float(whole) if whole and abs(rate / whole - 1) < ROUND else rate

    def take(self, timeout_s: float) -> ScannedPicture | None:
        """Waits for a picture and takes it; None: there was none. Raises: CameraError, _OtherFormat."""
        with self._ready:
            self._ready.wait_for(lambda: self._pictures or self._failure, max(0.0, timeout_s))
            while len(self._pictures) > 1 and now_ns() - self._pictures[0].arrived_ns > WAIT_LIMIT_NS:
                self._drop_oldest()
            if not self._pictures:
                if self._failure is not None:
                    raise self._failure
                return None
            picture = self._pictures.popleft()
            self._bytes -= len(picture.jpeg)
            lost, self._lost = self._lost, 0
        return replace(picture, lost_before=picture.lost_before + lost) if lost else picture

    def end(self) -> None:
        """Ends the connection and with it the thread."""
        self._ending.set()
        self._client.abort()

    # ---- in the thread

    def _read(self) -> None:
        """Reads a stream to its end, or asks for one picture after the other."""
        conditions: dict[str, str] = {}
        while not self._ending.is_set():
            asked_ns, request = now_ns(), self.request
            with closing(self._client.get(conditions)) as answer:
                if answer.status == NOT_MODIFIED and self._single is not None:
                    self._put_single(replace(self._single, arrived_ns=now_ns()))
                elif self._read_answer(answer):
                    return
            period_s = request.every / request.framerate if request.framerate else 0.0
            if answer.status != NOT_MODIFIED:
                conditions = _conditions_of(answer, period_s)
            self._ending.wait(max(0.0, period_s - (now_ns() - asked_ns) / 1e9))

    def _read_answer(self, answer: Answer) -> bool:
        """Reads an answer to its end. Returns: True if it was a stream, False if it was one picture or none."""
        kind = answer.headers.get("Content-Type", "").strip()
        is_stream = kind.lower().startswith("multipart/")
        held: ScannedPicture | None = None
        for picture in self._scan(answer, kind):
            if held is not None:  # a second one: a stream without parts
                self._put(held)
                held, is_stream = None, True
            if is_stream:
                self._put(picture)
            else:
                held = picture
        if held is not None:
            self._put_single(held)
        elif not is_stream:
            with self._ready:
                self._lost += 1
        return is_stream

    def _scan(self, answer: Answer, kind: str) -> Iterator[ScannedPicture]:
        scanner = PictureScanner(boundary_of(kind))
        is_checked = self._single is not None
        while (data := answer.read1(READ_BYTES)) and not self._ending.is_set():
            if not is_checked:
                _check_format(kind, data)
                is_checked = True
            yield from scanner.feed(data, now_ns())
        yield from scanner.end()

    def _put_single(self, picture: ScannedPicture) -> None:
        """Puts a picture that was asked for; the same one again only so often."""
        before, self._single = self._single, picture
        is_same = before is not None and before.jpeg == picture.jpeg
        if is_same and picture.arrived_ns - self._repeated_ns < REPEAT_NS:
            return
        self._repeated_ns = picture.arrived_ns
        self._put(picture, every=1)

    def _put(self, picture: ScannedPicture, every: int = 0) -> None:
        self._arrived += 1
        with self._ready:
            if self._arrived % (every or self.request.every):
                self._lost += picture.lost_before
                return
            self._meter.add(max(picture.arrived_ns, (self._meter.newest_ns or 0) + 1))
            self._pictures.append(picture)
            self._bytes += len(picture.jpeg)
            while len(self._pictures) > 1 and (len(self._pictures) > QUEUE_LENGTH or self._bytes > QUEUE_BYTES):
                self._drop_oldest()
            self._ready.notify_all()

    def _drop_oldest(self) -> None:
        picture = self._pictures.popleft()
        self._bytes -= len(picture.jpeg)
        self._lost += 1 + picture.lost_before


def _check_format(content_type: str, data: bytes) -> None:
    """Finds out who reads an answer. Raises: _OtherFormat for FFmpeg, CameraError for nobody."""
    kind = content_type.partition(";")[0].strip().lower()
    is_named = kind.startswith("multipart/") or any(word in kind for word in ("jpeg", "jpg", "mjpg"))
    if is_named or SOI in data or data.lstrip().startswith(b"--"):
        return
    if kind in ("text/html", "application/json"):
        raise CameraError(f"the camera answers {kind}, which is no picture")
    raise _OtherFormat(kind or "no Content-Type")


def _conditions_of(answer: Answer, period_s: float) -> dict[str, str]:
    """Returns the headers that ask for the next picture only if it is another one."""
    if tag := answer.headers.get("ETag"):
        return {"If-None-Match": tag}
    changed = answer.headers.get("Last-Modified")
    return {"If-Modified-Since": changed} if changed and period_s >= 1 else {}  # it counts whole seconds
