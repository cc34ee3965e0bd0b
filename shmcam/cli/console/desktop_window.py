"""`shmcam view`: a window with the live picture of each camera; keys r, s, q. For a desktop, a monitor or `ssh -X`.

The pictures come from the rings, so that nothing has to be encoded for them. Tk belongs to the main thread: one thread
a camera makes pictures of the window's size, another one carries out keys, and the window takes what they left.
"""

from __future__ import annotations

import queue
import sys
from collections import deque
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from datetime import datetime
from pathlib import Path

import cv2
from msgspec import Struct

try:
    import tkinter
except ImportError as problem:  # Debian has it in a package of its own
    raise SystemExit("shmcam view: needs Tk; please type: sudo apt-get install python3-tk") from problem

from shm_ring import RingError, attach
from shm_ring.frame import Frame
from shmcam.cli.console.key_commands import command_of_key, first_line_of
from shmcam.cli.options import EXIT_UNAVAILABLE, Options
from shmcam.cli.run.background_service import BackgroundService
from shmcam.config.errors import explain_unknown_camera
from shmcam.config.settings import EXIT_USAGE, Settings
from shmcam.control.call import call
from shmcam.runtime.guarded_thread import Worker
from shmcam.runtime.stop import Stop

FPS_MAX = 15.0
"""Pictures a second of each camera; more costs processor time of the recorder."""

POLL_S = 0.03
"""Time between two looks for new pictures and answers."""

WIDTH, HEIGHT = 720, 600
"""Size of a window with one picture, in pixels; more pictures are half as large."""

COLUMNS = (1, 2, 2, 2, 3)
"""Pictures side by side, for one camera, two cameras, …; more have as many as the last."""

KEYS = {"r": "record", "s": "snapshot"}

ATTACH_S = 3.0
ANSWER_S = 30.0
HELP = "r: record   s: snapshot   q: quit"
BACKGROUND, TEXT_COLOR = "#111", "#ddd"


class Picture(Struct, frozen=True):
    """One picture as Tk takes it, and its line of text."""

    ppm: bytes
    caption: str


class CameraFeed:
    """The newest picture of one camera, made in a thread."""

    def __init__(self, camera: str, settings: Settings, stop: Stop) -> None:
        self.camera = camera
        self.newest: Picture | None = None
        """The picture that the window has not taken yet."""
        self.size = (640, 480)
        """Width and height that the window has for it, in pixels."""
        self.problem = f"{camera}: waiting for frames"
        """Why there is no new picture; empty: there is one."""
        self._prefix, self._stop = str(settings.value("ring.prefix")), stop
        self._shown: deque[tuple[int, int]] = deque(maxlen=round(2 * FPS_MAX))
        """Frame number and time of the last pictures, for the camera's rate."""

    def run(self) -> None:
        """Follows the ring until stop is requested."""
        while not self._stop.requested:
            try:
                with attach(self.camera, prefix=self._prefix, timeout_s=ATTACH_S, stop=self._stop) as ring:
                    for frame in ring.follow(max_fps=FPS_MAX):
                        self._shown.append((frame.frame_id, frame.captured_ns))
                        with suppress(RingError):  # overwritten meanwhile: the next one is newer
                            self.newest = make_picture(frame, self.camera, rate_of(self._shown), self.size)
                            self.problem = ""
            except RingError as problem:
                self.problem = f"{self.camera}: {problem}"
                self._stop.wait(0.5)


def rate_of(frames: Sequence[tuple[int, int]]) -> float:
    """Returns the camera's frames a second, of frame numbers and times in ns; 0 for fewer than two frames."""
    (first_id, first_ns), (last_id, last_ns) = frames[0], frames[-1]
    return (last_id - first_id) * 1e9 / (last_ns - first_ns) if last_ns > first_ns else 0.0


def make_picture(frame: Frame, camera: str, fps: float, size: tuple[int, int]) -> Picture:
    """Returns a frame scaled into `size` with time, number and rate. Raises: RingError when it is overwritten."""
    bgr = frame.bgr
    height, width = bgr.shape[:2]
    scale = min(size[0] / width, size[1] / height)
    across, down = max(16, round(width * scale)), max(16, round(height * scale))
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    rgb = cv2.cvtColor(cv2.resize(bgr, (across, down), interpolation=method), cv2.COLOR_BGR2RGB)
    at = datetime.fromtimestamp(frame.meta.captured_utc_ns / 1e9)
    caption = f"{camera}   {at:%H:%M:%S}.{at.microsecond // 1000:03d}   frame {frame.frame_id}   {fps:.1f} fps"
    return Picture(b"P6 %d %d 255\n" % (across, down) + rgb.tobytes(), caption)


class Window:
    """The window: a grid of pictures, each with its line of text, and the answer to the last key below."""

    def __init__(self, feeds: list[CameraFeed], keys: queue.SimpleQueue[str], stop: Stop) -> None:
        """`keys` takes the keys r and s. Raises: TclError where there is no display."""
        self.answer = HELP
        self._feeds, self._keys, self._stop = feeds, keys, stop
        self._root = tkinter.Tk(className="shmcam")
        self._root.title(f"shmcam: {', '.join(feed.camera for feed in feeds)}")
        self._root.configure(background=BACKGROUND)
        columns = COLUMNS[min(len(feeds), len(COLUMNS)) - 1]
        rows = -(-len(feeds) // columns)
        self._root.geometry(f"{WIDTH // min(columns, 2) * columns}x{HEIGHT // min(columns, 2) * rows}")
        self._cells = [self._add_cell(*divmod(number, columns)) for number in range(len(feeds))]
        self._images: dict[int, tkinter.PhotoImage] = {}
        """The images that are shown: Tk forgets what Python forgets."""
        self._line = tkinter.Label(self._root, background=BACKGROUND, foreground=TEXT_COLOR, anchor="w")
        self._line.grid(row=rows, column=0, columnspan=columns, sticky="ew")
        self._root.bind("<Key>", lambda event: self._obey(str(event.char)))
        self._root.protocol("WM_DELETE_WINDOW", stop.request)

    def run(self) -> None:
        """Shows pictures until the window is closed, q is pressed or stop is requested."""
        while not self._stop.wait(POLL_S):
            for number, feed in enumerate(self._feeds):
                self._show(number, feed)
            self._line.configure(text=self.answer)
            self._root.update()
        self._root.destroy()

    def _add_cell(self, row: int, column: int) -> tuple[tkinter.Label, tkinter.Label]:
        """Adds the place of one picture. Returns the labels of the picture and of its line."""
        cell = tkinter.Frame(self._root, background=BACKGROUND)
        cell.grid(row=row, column=column, sticky="nsew")
        cell.pack_propagate(False)
        caption = tkinter.Label(cell, background=BACKGROUND, foreground=TEXT_COLOR, anchor="w")
        caption.pack(side="bottom", fill="x")
        picture = tkinter.Label(cell, background=BACKGROUND)
        picture.pack(expand=True, fill="both")
        self._root.grid_rowconfigure(row, weight=1, uniform="cells")
        self._root.grid_columnconfigure(column, weight=1, uniform="cells")
        return picture, caption

    def _show(self, number: int, feed: CameraFeed) -> None:
        label, caption = self._cells[number]
        feed.size = (label.winfo_width(), label.winfo_height())
        picture, feed.newest = feed.newest, None
        if picture is not None:
            self._images[number] = tkinter.PhotoImage(master=self._root, data=picture.ppm)
            label.configure(image=self._images[number])
        caption.configure(text=feed.problem or (picture.caption if picture else caption.cget("text")))

    def _obey(self, key: str) -> None:
        if key == "q":
            self._stop.request()
        elif key in KEYS:
            self.answer = f"{KEYS[key]} …"
            self._keys.put(key)


class Keys:
    """Carries out keys in a thread, for all cameras: an answer may take as long as a recording takes to end."""

    def __init__(self, socket_path: Path, stop: Stop) -> None:
        self.pressed: queue.SimpleQueue[str] = queue.SimpleQueue()
        self.window: Window | None = None
        """Where answers are shown."""
        self._path, self._stop = socket_path, stop

    def run(self) -> None:
        """Works until stop is requested."""
        while not self._stop.requested:
            try:
                key = self.pressed.get(timeout=0.2)
            except queue.Empty:
                continue
            reply = call(self._path, command_of_key(key, self._path, ANSWER_S), ANSWER_S)
            if self.window is not None:
                self.window.answer = first_line_of(reply)


def main(options: Options) -> int:
    """Shows the window until it is closed; with --start the service runs as long."""
    settings = options.settings()
    cameras = [word for word in options.switches(with_bare_words=True) if not word.startswith("-")] or list(
        settings.cameras
    )
    if unknown := sorted(set(cameras) - set(settings.cameras)):
        print(f"shmcam view: {explain_unknown_camera(unknown[0], settings.cameras)}", file=sys.stderr)
        return EXIT_USAGE
    stop = Stop()
    stop.catch_signals()
    feeds, keys = [CameraFeed(name, settings, stop) for name in cameras], Keys(options.socket_path, stop)
    try:
        keys.window = Window(feeds, keys.pressed, stop)
    except tkinter.TclError as problem:
        print(f"shmcam view: {problem}; without a display: shmcam console", file=sys.stderr)
        return EXIT_UNAVAILABLE
    with ExitStack() as stack:
        for name, work in [("keys", keys.run), *((feed.camera, feed.run) for feed in feeds)]:
            stack.enter_context(Worker(name, work, stop))
        if "--start" in options.rest:
            stack.enter_context(BackgroundService(options.config, settings))
        keys.window.run()
    return 0
