"""Network cameras for tests: HTTP MJPEG by aiohttp, RTSP over TCP by hand (RFC 2326, RFC 2435)."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import numpy as np
from aiohttp import web

from shm_ring.formats import geometry, planes
from shmcam.imaging import frame_number_code
from shmcam.imaging.jpeg import to_jpeg

SHAPE = geometry("yuv420p", 320, 240)


def picture(number: int) -> bytes:
    payload = np.full(SHAPE.payload_bytes, 128, np.uint8)
    frame_number_code.draw(planes(payload, SHAPE)[0], number)
    return to_jpeg(payload, SHAPE, 60)


@contextmanager
def mjpeg_server(port: int, fps: float = 30) -> Iterator[None]:
    """multipart/x-mixed-replace on 127.0.0.1:port until the block ends; then every connection is cut."""
    started, loop = threading.Event(), asyncio.new_event_loop()

    async def stream(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse(headers={"Content-Type": "multipart/x-mixed-replace;boundary=cut"})
        await answer.prepare(request)
        for number in range(1_000_000):
            jpeg = picture(number)
            head = f"--cut\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
            await answer.write(head.encode() + jpeg + b"\r\n")
            await asyncio.sleep(1 / fps)
        return answer

    async def serve() -> None:
        app = web.Application()
        app.router.add_get("/stream", stream)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port, reuse_address=True).start()
        started.set()
        await ending.wait()
        await runner.cleanup()

    async def main() -> None:
        nonlocal ending
        ending = asyncio.Event()
        await serve()

    ending: asyncio.Event = asyncio.Event()
    thread = threading.Thread(target=lambda: loop.run_until_complete(main()), daemon=True)
    thread.start()
    assert started.wait(30)
    try:
        yield
    finally:
        loop.call_soon_threadsafe(ending.set)
        thread.join(10)


@contextmanager
def rtsp_server() -> Iterator[int]:
    """One RTSP camera that sends MJPEG over the RTSP connection itself. Yields: its port."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        ending = threading.Event()
        thread = threading.Thread(target=_accept, args=(server, ending), daemon=True)
        thread.start()
        try:
            yield server.getsockname()[1]
        finally:
            ending.set()
            thread.join(10)


def _accept(server: socket.socket, ending: threading.Event) -> None:
    while not ending.is_set():
        with suppress(OSError):
            link, _ = server.accept()
            with link:
                _talk(link, ending)


def _talk(link: socket.socket, ending: threading.Event) -> None:
    link.settimeout(5)
    while not ending.is_set():
        asked = b""
        while b"\r\n\r\n" not in asked:
            data = link.recv(4096)
            if not data:
                return
            asked += data
        lines = asked.decode().split("\r\n")
        method, url, _ = lines[0].split()
        number = next(line.split(":")[1].strip() for line in lines if line.lower().startswith("cseq"))
        more, body = "", ""
        if method == "OPTIONS":
            more = "Public: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN\r\n"
        elif method == "DESCRIBE":
            body = "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=test\r\nt=0 0\r\nm=video 0 RTP/AVP 26\r\na=control:track\r\n"
            more = f"Content-Type: application/sdp\r\nContent-Base: {url}/\r\nContent-Length: {len(body)}\r\n"
        elif method == "SETUP":
            transport = next(line for line in lines if line.lower().startswith("transport"))
            if "TCP" not in transport:  # we promise TCP
                link.sendall(f"RTSP/1.0 461 Unsupported Transport\r\nCSeq: {number}\r\n\r\n".encode())
                return
            more = "Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\nSession: 1\r\n"
        link.sendall(f"RTSP/1.0 200 OK\r\nCSeq: {number}\r\n{more}\r\n{body}".encode())
        if method == "PLAY":
            _play(link, ending)
            return


def _play(link: socket.socket, ending: threading.Event) -> None:
    sequence, start = 0, time.monotonic()
    for number in range(1_000_000):
        if ending.wait(1 / 30):
            return
        scan, tables = _scan_and_tables(picture(number))
        stamp = int((time.monotonic() - start) * 90_000)
        for offset in range(0, len(scan), 1200):
            piece = scan[offset : offset + 1200]
            last = offset + 1200 >= len(scan)
            head = struct.pack(">BBHII", 0x80, 26 | (0x80 if last else 0), sequence & 0xFFFF, stamp & 0xFFFFFFFF, 7)
            # RFC 2435: type-specific, fragment offset, type 1 (4:2:0), Q 255 (tables in the first packet), size / 8
            jpeg = struct.pack(">I", offset) + bytes([1, 255, 320 // 8, 240 // 8])
            if offset == 0:
                jpeg += struct.pack(">BBH", 0, 0, len(tables)) + tables
            packet = head + jpeg + piece
            link.sendall(b"$\0" + struct.pack(">H", len(packet)) + packet)
            sequence += 1


def _scan_and_tables(jpeg: bytes) -> tuple[bytes, bytes]:
    """The entropy-coded data and the two quantisation tables of a baseline JPEG with standard Huffman tables."""
    tables, at = b"", 2
    while True:
        marker, length = jpeg[at + 1], struct.unpack(">H", jpeg[at + 2 : at + 4])[0]
        if marker == 0xDB:
            segment = jpeg[at + 4 : at + 2 + length]
            tables += b"".join(segment[i + 1 : i + 65] for i in range(0, len(segment), 65))
        at += 2 + length
        if marker == 0xDA:
            return jpeg[at:-2], tables


@contextmanager
def ts_server(data: bytes, seconds: float, *, skip: int = 0) -> Iterator[tuple[int, list[float]]]:
    """A live MPEG-TS camera over HTTP: `data` paced over `seconds`, again and again, from packet `skip` on.

    Yields: its port, and the times at which connections came.
    """
    packets = [data[at : at + 188] for at in range(0, len(data) - 187, 188)]
    connections: list[float] = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        ending = threading.Event()

        def accept() -> None:
            while not ending.is_set():
                with suppress(OSError):
                    link, _ = server.accept()
                    connections.append(time.monotonic())
                    threading.Thread(target=send, args=(link,), daemon=True).start()

        def send(link: socket.socket) -> None:
            with suppress(OSError), link:
                link.recv(4096)
                link.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: video/mp2t\r\nConnection: close\r\n\r\n")
                began, sent, at = time.monotonic(), 0, skip
                while not ending.wait(max(0.0, began + sent * seconds / len(packets) - time.monotonic())):
                    link.sendall(b"".join(packets[at : at + 7]))
                    sent += len(packets[at : at + 7])
                    at = at + 7 if at + 7 < len(packets) else 0

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        try:
            yield server.getsockname()[1], connections
        finally:
            ending.set()
            thread.join(10)
