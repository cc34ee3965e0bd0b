"""The processes beside the streamer in its bench: a camera, many viewers, and the barest server there can be.

python -m bench.peers.streamer_parts camera PREFIX WIDTH HEIGHT FPS SECONDS [COLOR_SPACE COLOR_RANGE]
python -m bench.peers.streamer_parts bare PORT FPS BYTES
python -m bench.peers.streamer_parts viewers PORT PATH COUNT STALLED SECONDS
"""

from __future__ import annotations

import asyncio
import json
import selectors
import socket
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

HEAD = b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\nX-Frame-Id: %d\r\nX-Timestamp: %.6f\r\n\r\n"


def picture(width: int, height: int) -> np.ndarray:
    """A yuv420p payload, of any range, that makes a JPEG of usual size (about 0.09 bytes a pixel at quality 80)."""
    import numpy as np  # not for everybody: the barest server must be bare

    from shm_ring.formats import geometry, planes

    shape = geometry("yuv420p", width, height)
    payload = np.empty(shape.payload_bytes, np.uint8)
    luma, blue, red = planes(payload, shape)
    rows, columns = np.mgrid[0:height, 0:width]
    noise = np.random.default_rng(1).normal(0, 3, luma.shape)
    luma[:] = (np.sin(columns / 37) * 40 + np.cos(rows / 23) * 40 + 120 + noise).clip(0, 255)
    blue[:], red[:] = 110, 140
    return payload


def camera(
    prefix: str, width: int, height: int, fps: float, seconds: float, space: str = "smpte170m", span: str = "pc"
) -> None:
    """Publish at a steady rate."""
    from shm_ring import FrameMeta, RingWriter, segment_name
    from shm_ring.formats import geometry, planes
    from shmcam.imaging import frame_number_code
    from shmcam.runtime.clock import now_ns, utc_offset_ns

    shape = geometry("yuv420p", width, height, color_space=space, color_range=span)
    payload = picture(width, height)
    luma = planes(payload, shape)[0]
    with (
        tempfile.TemporaryDirectory() as folder,
        RingWriter.create(
            segment_name(prefix, "cam0", "main"), slots=16, payload_bytes=shape.payload_bytes,
            lock_dir=Path(folder), camera="cam0", stream="main",
        ) as ring,
    ):  # fmt: skip
        began, count = time.monotonic(), 0
        while time.monotonic() - began < seconds:
            number = ring.next_frame_id
            frame_number_code.draw(luma, number)
            now = now_ns()
            meta = FrameMeta(number, now, now + utc_offset_ns(), frame_duration_us=round(1e6 / fps))
            ring.publish(payload, meta, shape)
            count += 1
            time.sleep(max(0.0, began + count / fps - time.monotonic()))
        print(json.dumps({"published": count}))
        ring.retire()


class Bare(asyncio.Protocol):
    """The reference: every connection gets the same bytes by transport.write, and nothing else happens."""

    def __init__(self, everybody: set[asyncio.Transport]) -> None:
        self._everybody = everybody

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 256 * 1024)

    def data_received(self, _data: bytes) -> None:
        self._transport.write(b"HTTP/1.1 200 OK\r\nContent-Type: multipart/x-mixed-replace;boundary=frame\r\n\r\n")
        self._everybody.add(self._transport)

    def connection_lost(self, _error: Exception | None) -> None:
        self._everybody.discard(self._transport)


async def bare(port: int, fps: float, size: int) -> None:
    """Serve parts of `size` bytes at `fps` until killed."""
    everybody: set[asyncio.Transport] = set()
    await asyncio.get_running_loop().create_server(lambda: Bare(everybody), "127.0.0.1", port, backlog=600)
    body, began, count = b"\xff" * size, time.monotonic(), 0
    while True:
        part = HEAD % (size, count, time.time()) + body + b"\r\n"
        for transport in tuple(everybody):
            transport.write(part)
        count += 1
        await asyncio.sleep(max(0.0, began + count / fps - time.monotonic()))


class Viewer:
    """One strict reader of a multipart stream; the kernel throws the JPEG away (MSG_TRUNC), so that hundreds fit."""

    def __init__(self, port: int, path: str) -> None:
        self.sock = socket.create_connection(("127.0.0.1", port))
        # HTTP/1.0, because Motion would send chunks to a newer client.
        self.sock.sendall(f"GET {path} HTTP/1.0\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode())
        self.sock.setblocking(False)
        self.frames: list[tuple[int, float]] = []
        """Frame id and latency in seconds, from the frame's time stamp to its last byte."""
        self._text = b""
        self._left = 0
        self._part = (0, 0.0)

    def readable(self) -> bool:
        """Read what there is. Returns: whether the server is still there."""
        try:
            while True:
                if self._left:
                    got = self.sock.recv_into(_SCRATCH, min(self._left, len(_SCRATCH)), socket.MSG_TRUNC)
                    if not got:
                        return False
                    self._left -= got
                    if not self._left:
                        self.frames.append((self._part[0], time.time() - self._part[1]))
                    continue
                data = self.sock.recv(1024)
                if not data:
                    return False
                self._header(self._text + data)
        except BlockingIOError:
            return True
        except ConnectionResetError:
            return False

    def _header(self, text: bytes) -> None:
        end = text.find(b"\r\n\r\n")
        while end >= 0 and b"Content-Length" not in text[:end] and b"Content-length" not in text[:end]:
            text = text[end + 4 :]  # the response's own header
            end = text.find(b"\r\n\r\n")
        if end < 0:
            self._text = text
            return
        fields = dict(line.split(b": ", 1) for line in text[:end].split(b"\r\n") if b": " in line)
        fields = {name.lower(): value for name, value in fields.items()}
        number, stamp = int(fields.get(b"x-frame-id", b"0")), float(fields.get(b"x-timestamp", b"0"))
        self._part = (number, stamp)
        rest = len(text) - end - 4
        self._left = int(fields[b"content-length"]) + 2 - rest  # and the line break before the boundary
        self._text = b""


_SCRATCH = bytearray(1 << 20)


def viewers(port: int, path: str, count: int, stalled: int, seconds: float) -> None:
    """Watch for a while; print what each got."""
    idle = [Viewer(port, path) for _ in range(stalled)]
    watching = [Viewer(port, path) for _ in range(count)]
    selector = selectors.DefaultSelector()
    for one in watching:
        selector.register(one.sock, selectors.EVENT_READ, one)
    print("ready", flush=True)
    began = time.monotonic()
    while time.monotonic() - began < seconds:
        for key, _ in selector.select(0.2):
            if not key.data.readable():
                selector.unregister(key.fileobj)
    latencies = sorted(latency for one in watching for _, latency in one.frames)
    print(json.dumps({
        "delivered": [len(one.frames) for one in watching],
        "distinct": [len({number for number, _ in one.frames}) for one in watching],
        "first": min((one.frames[0][0] for one in watching if one.frames), default=0),
        "last": max((one.frames[-1][0] for one in watching if one.frames), default=0),
        "latency_p50_ms": latencies[len(latencies) // 2] * 1e3 if latencies else -1,
        "latency_p99_ms": latencies[int(len(latencies) * 0.99)] * 1e3 if latencies else -1,
        "stalled_gone": sum(_gone(one.sock) for one in idle),
    }))  # fmt: skip


def _gone(sock: socket.socket) -> bool:
    """Whether the server has reset a connection nobody read from: its error is pending."""
    poll = selectors.select.poll() if hasattr(selectors, "select") else None
    if poll is None:
        return False
    poll.register(sock, 0)
    return bool(poll.poll(0))


def main() -> None:
    role, *given = sys.argv[1:]
    if role == "camera":
        camera(given[0], int(given[1]), int(given[2]), float(given[3]), float(given[4]), *given[5:])
    elif role == "bare":
        asyncio.run(bare(int(given[0]), float(given[1]), int(given[2])))
    else:
        viewers(int(given[0]), given[1], int(given[2]), int(given[3]), float(given[4]))


if __name__ == "__main__":
    main()
