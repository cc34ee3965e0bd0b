"""Glass to glass: how old a frame is when Chromium has it on the page, by the frame number in its pixels."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from bench.areas.pipeline import CAMERA
from bench.measure import Measured, Outcome, Row, Skipped, Table, percentile

if TYPE_CHECKING:
    from tests.pipeline import Pipeline

ROWS = (
    Row("webrtc_p50_ms", "ms", 150.0, "age of the frame on the page by WebRTC, from its exposure on"),
    Row("h264_p50_ms", "ms", 150.0, "the same by H.264 over WebSocket and Media Source"),
    Row("mjpeg_p50_ms", "ms", None, "the same by MJPEG"),
    Row("live_mp4_p50_ms", "ms", None, "the same in a bare <video src=/live.mp4>, which nothing steers"),
    Row("first_view_s", "s", 1.0, "from opening the page to the first picture on it (what is cached, is not)"),
)

PAGE_ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--autoplay-policy=no-user-gesture-required",
]
"""Options of Chromium for a page that is measured."""

READ_NUMBER = """(shown, canvas) => {
  const width = canvas.width = shown.videoWidth || shown.naturalWidth, cell = Math.max(8, Math.floor(width / 64) & ~7);
  const paint = canvas.getContext("2d", { willReadFrequently: true });
  canvas.height = 1;
  paint.drawImage(shown, 0, cell / 2, width, 1, 0, 0, width, 1);
  const row = paint.getImageData(0, 0, width, 1).data;
  const bits = [...Array(40).keys()].map((at) => row[4 * (at * cell + cell / 2) + 1] > 125);
  const isNumber = bits.slice(0, 4).join() === "true,false,true,false";
  return isNumber ? bits.slice(4, 36).reduce((sum, bit) => sum * 2 + bit, 0) : null;
}"""
"""Reads the number in the pixels (shmcam/imaging/frame_number_code.py). Returns: it; null: there is none."""

READ = (
    "async ([selector, seconds]) => {\n  const readNumber = "
    + READ_NUMBER
    + """;
  const found = [], canvas = document.createElement("canvas");
  const until = performance.now() + 1000 * seconds;
  for (let last = -1; performance.now() < until;) {
    const now = await new Promise(requestAnimationFrame);
    const shown = [...document.querySelectorAll(selector)].find((one) => !one.hidden);
    if (!(shown && (shown.videoWidth || shown.naturalWidth))) continue;
    const number = readNumber(shown, canvas);
    if (number === null) continue;
    if (number !== last) found.push([number, performance.timeOrigin + performance.now()]);
    last = number;
  }
  return found;
}"""
)
"""Reads the number in the picture on each repaint: [[number, milliseconds since 1970 when it was first there], …]."""

SHOWN = """async () => {
  for (;;) {
    const one = [...document.querySelectorAll(".screen video, .screen img")].find((one) => !one.hidden);
    if (one && (one.videoWidth || one.naturalWidth)) return performance.now();
    await new Promise(requestAnimationFrame);
  }
}"""
"""Waits for a picture. Returns: milliseconds since the page was asked for."""


def run(quick: bool) -> Iterator[tuple[str, Outcome]]:
    chromium = shutil.which("chromium")
    try:
        from playwright.sync_api import sync_playwright

        from tests.pipeline import Pipeline
    except ImportError as error:
        yield from ((row.name, Skipped(f"needs the test packages: {error}")) for row in ROWS)
        return
    if chromium is None:
        yield from ((row.name, Skipped("needs chromium")) for row in ROWS)
        return
    with Pipeline(camera=CAMERA, ring={"size": 0}) as pipeline, sync_playwright() as driver:
        pipeline.wait_running()
        browser = driver.chromium.launch(executable_path=chromium, args=PAGE_ARGUMENTS)
        lines: Table = []
        for way in ("webrtc", "h264", "mjpeg", "live_mp4"):
            ages, possible = _watch(pipeline, browser, way, 8.0 if quick else 30.0)
            p50, p90 = percentile(ages, 50), percentile(ages, 90)
            lines.append({"way": way, "p50 ms": p50, "p90 ms": p90, "frames shown": len(ages), "of": possible})
            yield (
                f"{way}_p50_ms",
                Measured(p50, f"p90 {p90:.0f} ms; {len(ages)} of {possible} frames", {"ways": list(lines)}),
            )
        yield "first_view_s", _first_view(pipeline, browser, 3 if quick else 9)
        browser.close()


def _watch(pipeline: Pipeline, browser: Any, way: str, seconds: float) -> tuple[list[float], int]:
    """Looks on for a while. Returns: the age of each frame when it was shown, milliseconds, and how many there were."""
    page = browser.new_context(viewport={"width": 1280, "height": 800}).new_page()
    exposed: dict[int, float] = {}
    ended = threading.Event()
    notes = threading.Thread(target=note_frames, args=(pipeline, exposed, ended), daemon=True)
    notes.start()
    try:
        if way == "live_mp4":
            selector = ".film"
            page.goto(f"{pipeline.url}/state")
            page.evaluate("document.body.innerHTML = '<video class=film muted src=/live.mp4></video>'")
            page.evaluate("document.querySelector('.film').play()")
        else:
            selector = ".screen video, .screen img"
            page.add_init_script(f"localStorage.setItem('mode', '{way}')")
            page.goto(pipeline.url)
            page.wait_for_selector(f".screen[data-kind={way}]", timeout=60_000)
        page.wait_for_timeout(3000)
        first = max(exposed)
        shown = page.evaluate(READ, [selector, seconds])
        count = max(exposed) - first
    finally:
        ended.set()
        notes.join(10)
        page.context.close()
    return [at_ms - exposed[number] for number, at_ms in shown if number in exposed], count


def note_frames(pipeline: Pipeline, exposed: dict[int, float], ended: threading.Event) -> None:
    """Notes when each frame was captured, milliseconds since 1970, by the number in its pixels."""
    from shm_ring import attach
    from shmcam.imaging import frame_number_code

    with attach("cam0", prefix=pipeline.prefix) as ring:
        for frame in ring.follow():
            number = frame_number_code.read(frame.luma[:16])
            if number is not None:
                exposed[number] = frame.meta.captured_utc_ns / 1e6
            if ended.is_set():
                return


def _first_view(pipeline: Pipeline, browser: Any, times: int) -> Outcome:
    """Opens the page in a fresh context each time."""
    seconds: list[float] = []
    for _ in range(times):
        page = browser.new_context(viewport={"width": 1280, "height": 800}).new_page()
        page.goto(pipeline.url, wait_until="commit")
        seconds.append(page.evaluate(SHOWN) / 1000)
        page.context.close()
    return Measured(percentile(seconds, 50), f"{times} times, {min(seconds):.2f} … {max(seconds):.2f} s")
