"""Everything another program asks of shmcam, from this machine or another.

python examples/client.py                                   this machine
python examples/client.py http://pi:8080 TOKEN              another one: also saves MJPEG
python examples/client.py http://pi:8080 TOKEN pi 9999      and shortstream, from its trigger port
"""

import socket
import struct
import sys
import urllib.request
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from shmcam import Client


def main(url: str = "", token: str = "", host: str = "", port: str = "9999") -> None:
    client = Client(url, token=token)
    for camera in client.detect_cameras():
        print(camera["camera"], camera["state"], f"{camera.get('fps', 0):.0f}/s")
    print(client.start_recording(label="example").text)
    print(client.save(formats=["jpg"]).data.get("path"))
    print(client.past_stack(formats=["jpg"]).text.splitlines()[0])
    if (jpeg := client.get_live_frame()) is not None:
        Path("live.jpg").write_bytes(jpeg)
    print(client.stop_recording().text)
    print(client.status()["ok"], len(client.health()["processes"]), "processes")
    if url:
        print(save_frames(read_mjpeg(f"{url}/stream?token={token}"), "mjpeg"), "frames of the stream")
    if host:
        print(save_frames(read_shortstream(host, int(port), 5), "short"), "frames of shortstream")


def save_frames(jpegs: Iterator[bytes], name: str) -> int:
    """Saves at most five pictures as NAME_1.jpg …; returns their number."""
    count = 0
    for count, jpeg in enumerate(islice(jpegs, 5), 1):
        Path(f"{name}_{count}.jpg").write_bytes(jpeg)
    return count


def read_mjpeg(url: str) -> Iterator[bytes]:
    """Yields the pictures of an MJPEG stream; every part says its length."""
    with urllib.request.urlopen(url, timeout=10) as stream:  # noqa: S310 - the user's own URL
        length = 0
        while line := stream.readline():
            if line.lower().startswith(b"content-length:"):
                length = int(line.split(b":")[1])
            elif not line.strip() and length:
                yield stream.read(length)
                length = 0


def read_shortstream(host: str, port: int, count: int) -> Iterator[bytes]:
    """Yields the last `count` pictures, each behind its length (u32, big-endian); a length of 0 is the end."""
    with socket.create_connection((host, port), timeout=10) as link:
        link.sendall(f"shortstream {count}\n".encode())
        stream = link.makefile("rb")
        while length := struct.unpack(">I", stream.read(4))[0]:
            yield stream.read(length)


if __name__ == "__main__":
    main(*sys.argv[1:])
