"""A small synchronous client for other programs, on this machine over the control socket or from another over REST.

    from shmcam import Client

    camera = Client()                                              # this machine
    camera = Client("http://pi:8080", token="…")                   # another one
    camera.start_recording("cam0", label="trial_7")

A verb that does something returns the service's `Reply` (ok, status, text, data) whether it went well or not; one that
asks for something returns it, and raises ServiceError where there is no answer.
"""

from __future__ import annotations

import json
import socket
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from msgspec.structs import asdict, replace

from shmcam.config.settings import Settings
from shmcam.control.call import call, wait_s_of
from shmcam.control.messages import (
    Archive,
    Command,
    Health,
    PastStack,
    Record,
    Reply,
    Save,
    ShortStream,
    Snapshot,
    Status,
    error,
    fields_of,
)
from shmcam.control.parser import camera_name_of

CommandT = TypeVar("CommandT", bound=Command)

API = "/api/v1"
POLL_S = 1.0
"""Pause between two looks for events over REST."""
TAKE_PICTURE_S = 30.0
"""Longest wait for one live picture."""
LINE_BYTES_MAX = 1024 * 1024
"""Longest event."""


class ServiceError(RuntimeError):
    """The service gave no answer, or refused; the text says why."""


class Client:
    """One service. Nothing is kept open between two calls, so one object may be used by several threads.

    A camera is a name, or the number n for the name cam<n>.
    """

    def __init__(self, url: str = "", *, token: str = "", socket_path: Path | str = "", timeout_s: float = 0.0) -> None:
        """`url`: the REST server; empty: the control socket of this machine.

        `token`: http.token of its config.toml. `socket_path`: empty: that of SHMCAM_CONFIG, ./config.toml or
        /etc/shmcam/config.toml. `timeout_s`: longest wait for an answer; 0: as long as each command may take.
        Raises: ServiceError for another kind of URL.
        """
        if url and urllib.parse.urlsplit(url).scheme not in ("http", "https"):
            raise ServiceError(f"{url!r}: expected http://HOST:PORT or https://HOST:PORT")
        self._url, self._token, self._timeout_s = url.rstrip("/"), token, timeout_s
        self._socket_path = "" if url else Path(socket_path) if socket_path else _find_socket()

    def detect_cameras(self) -> list[dict[str, Any]]:
        """Returns a row for each camera that the service runs: name, state, model, size, rate."""
        return list(self.status()["cameras"])

    def start_recording(self, camera: str | int = "", *, label: str = "", duration_s: float = 0.0) -> Reply:
        """Starts to record with one camera, or with all."""
        return self._per_camera("record", camera, Record(action="start", label=label, duration_s=duration_s))

    def stop_recording(self, camera: str | int = "") -> Reply:
        """Stops recording with one camera, or with all."""
        return self._per_camera("record", camera, Record(action="stop"))

    def snapshot(self, cameras: Sequence[str | int] = (), *, formats: Sequence[str] = (), label: str = "") -> Reply:
        """Saves one picture of each camera, all of one instant."""
        command = Snapshot(cameras=tuple(map(camera_name_of, cameras)), formats=tuple(formats), label=label)
        return self._post("/snapshot", command) if self._url else self._call(command)

    def save(
        self, camera: str | int = "", *, formats: Sequence[str] = (), label: str = "", seconds_ago: float = 0.0
    ) -> Reply:
        """Saves one full-size picture."""
        command = Save(formats=tuple(formats), label=label, seconds_ago=seconds_ago)
        return self._of_camera("save", camera, command)

    def past_stack(self, camera: str | int = "", *, formats: Sequence[str] = (), **options: Any) -> Reply:
        """Stacks the frames around a moment of the past; `options`: the fields of pastStack, such as before_s."""
        return self._of_camera("stack", camera, PastStack(formats=tuple(formats), **options))

    def get_live_frame(self, camera: str | int = "") -> bytes | None:
        """Returns the newest picture as JPEG; None where there is none."""
        name: str = camera_name_of(camera)
        if self._url:
            path = f"/cam/{urllib.parse.quote(name)}/snapshot.jpg" if name else "/snapshot.jpg"
            try:
                return self._fetch(path, TAKE_PICTURE_S)
            except ServiceError:
                return None
        pieces: list[bytes] = []
        reply = call(self._socket_path, ShortStream(count=1, camera=name), TAKE_PICTURE_S, pieces.append)
        stream = b"".join(pieces)
        return stream[4 : 4 + int.from_bytes(stream[:4], "big")] if reply.ok and reply.data.get("sent") else None

    def archive(self, name: str, **selection: Any) -> Reply:
        """Copies clips and pictures into an archive; `selection`: since, until, cameras, label, session."""
        command = Archive(name=name, **selection)
        return self._post("/archives", command) if self._url else self._call(command)

    def status(self) -> dict[str, Any]:
        """Returns what every process and camera does."""
        return dict(self._get(f"{API}/status")["data"]) if self._url else _data_of(self._call(Status()))

    def health(self) -> dict[str, Any]:
        """Returns memory, swap and state of every process."""
        return dict(self._get(f"{API}/processes")["data"]) if self._url else _data_of(self._call(Health()))

    def subscribe(self, *topics: str) -> Iterator[dict[str, Any]]:
        """Yields events from now on, `{"event": "night_began", "data": {…}}`; `topics`: empty: all.

        Over REST it looks once a second; topics are then names of events.
        """
        return self._poll_events(topics) if self._url else self._read_events(topics)

    # ---- over the socket

    def _call(self, command: Command) -> Reply:
        return call(self._socket_path, command, self._timeout_s or None)

    def _read_events(self, topics: Sequence[str]) -> Iterator[dict[str, Any]]:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as link:
            try:
                link.connect(str(self._socket_path))
            except OSError as problem:
                raise ServiceError(f"no hub at {self._socket_path}: {problem.strerror}") from None
            link.sendall(json.dumps({"command": "subscribe", "topics": topics}).encode() + b"\n")
            lines = link.makefile("rb")
            while line := lines.readline(LINE_BYTES_MAX):
                message = json.loads(line)
                if message["type"] == "error":
                    raise ServiceError(message["data"]["message"])
                if message["type"] == "event":
                    yield {"event": message["event"], "data": message["data"]}
        raise ServiceError("the service ended the connection")

    # ---- over REST

    def _per_camera(self, word: str, camera: str | int, command: Record) -> Reply:
        """Sends a command to one camera, or to all: over the socket the hub does that."""
        if camera != "" or not self._url:
            return self._of_camera(word, camera, command)
        replies = [self._of_camera(word, row["camera"], command) for row in self.detect_cameras()]
        return next((reply for reply in replies if not reply.ok), replies[0] if replies else error("no camera"))

    def _of_camera(self, word: str, camera: str | int, command: Save | PastStack | Record) -> Reply:
        name: str = camera_name_of(camera)
        if not self._url:
            return self._call(replace(command, camera=name))
        name = name or str(self.detect_cameras()[0]["camera"])
        return self._post(f"/cameras/{urllib.parse.quote(name)}/{word}", command)

    def _post(self, path: str, command: Command) -> Reply:
        """Sends the fields that are not the default: the service's own clock counts, not ours."""
        defaults = {name: field.default for name, field in fields_of(type(command)).items()}
        body = {name: value for name, value in asdict(command).items() if value != defaults[name]}
        body.pop("at_ns", None)
        try:
            answer = json.loads(
                self._fetch(API + path, self._timeout_s or wait_s_of(command), json.dumps(body).encode())
            )
        except ServiceError as problem:
            return error(str(problem), "refused")
        return Reply(ok=answer["ok"], status=answer["status"], text=answer["text"], data=answer["data"])

    def _get(self, path: str) -> dict[str, Any]:
        return dict(json.loads(self._fetch(path, self._timeout_s or TAKE_PICTURE_S)))

    def _poll_events(self, topics: Sequence[str]) -> Iterator[dict[str, Any]]:
        last = max((row["number"] for row in self._get(f"{API}/events")["events"]), default=0)
        while True:
            time.sleep(POLL_S)
            rows = self._get(f"{API}/events")["events"]
            if rows and rows[-1]["number"] < last:
                last = 0  # the streamer has begun anew
            for row in rows:
                if row["number"] > last and (not topics or row["event"] in topics):
                    yield {"event": row["event"], "data": row["data"]}
            last = max((row["number"] for row in rows), default=last)

    def _fetch(self, path: str, timeout_s: float, body: bytes | None = None) -> bytes:
        """Returns the body of an answer. Raises: ServiceError."""
        headers = {"Authorization": f"Bearer {self._token}"} if self._token else {}
        if body is not None:
            headers["Content-Type"] = "application/json"
        request = urllib.request.Request(self._url + path, body, headers)  # noqa: S310 - http(s) only, see __init__
        try:
            with urllib.request.urlopen(request, timeout=timeout_s) as answer:  # noqa: S310
                return bytes(answer.read())
        except urllib.error.HTTPError as problem:
            raise ServiceError(f"{path}: {problem.code} {_reason_in(problem.read())}") from None
        except OSError as problem:
            raise ServiceError(f"{self._url}: {problem}") from None


def _find_socket() -> Path:
    from shmcam.cli.options import default_config

    return Settings.load(default_config()).socket_path


def _data_of(reply: Reply) -> dict[str, Any]:
    if not reply.ok:
        raise ServiceError(reply.text.removeprefix("ERROR: "))
    return reply.data


def _reason_in(body: bytes) -> str:
    try:
        return str(json.loads(body).get("reason", ""))
    except (ValueError, AttributeError):
        return body[:200].decode(errors="replace")
