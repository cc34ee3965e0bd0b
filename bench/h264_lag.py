"""How far live H.264 is behind the camera, for as long as is wanted: `python -m bench.h264_lag --minutes 60`.

A small picture, a small window of Chromium and one look a second, so that the measurement itself takes little. Each
look waits for the next frame that is shown, and reads the frame's number in its pixels; its age is the time since the
camera exposed it. A line each five minutes; at the end, whether p95 stayed below the limit in all of them.
"""

from __future__ import annotations

import argparse
import math
import shutil
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

from bench.areas.latency import PAGE_ARGUMENTS, READ_NUMBER, note_frames
from bench.measure import percentile

if TYPE_CHECKING:
    from tests.pipeline import Pipeline

LIMITS_MS = {10: 200.0, 30: 150.0}
"""The lag that is allowed, by frames a second."""

LOOK = (
    "() => new Promise((done) => {\n  const readNumber = "
    + READ_NUMBER
    + """;
  const video = document.querySelector(".screen video");
  setTimeout(() => done(null), 900);
  if (!video || video.hidden || !video.videoWidth) return;
  video.requestVideoFrameCallback(() => {
    const at = performance.timeOrigin + performance.now();
    const number = readNumber(video, document.createElement("canvas"));
    done(number === null ? null : [number, at]);
  });
})"""
)
"""Waits for the next frame that is shown. Returns: [its number, milliseconds since 1970]; null: none came."""


def main() -> int:
    """Runs, and prints. Returns: 0 if the lag stayed below the limit, else 1."""
    parser = argparse.ArgumentParser(prog="python -m bench.h264_lag", description="lag of live H.264 on the page")
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--fps", type=int, default=10, choices=tuple(LIMITS_MS))
    parser.add_argument("--every", type=float, default=5.0, metavar="MINUTES", help="a line so often")
    options = parser.parse_args()
    from playwright.sync_api import sync_playwright

    from tests.pipeline import Pipeline

    camera = {"width": 640, "height": 360, "framerate": options.fps}
    with Pipeline(camera=camera, webrtc={"enable": False}) as pipeline, sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=PAGE_ARGUMENTS)
        page = browser.new_context(viewport={"width": 480, "height": 360}).new_page()
        page.add_init_script("localStorage.setItem('mode', 'h264')")
        page.goto(pipeline.url)
        page.wait_for_selector(".screen[data-kind=h264]", timeout=60_000)
        page.wait_for_timeout(15_000)  # it catches up first
        return _watch(pipeline, page, options.minutes * 60, options.every * 60, LIMITS_MS[options.fps])


def _watch(pipeline: Pipeline, page: Any, seconds: float, line_s: float, limit_ms: float) -> int:
    """Looks once a second and prints a line each `line_s`. Returns: the exit code."""
    exposed: dict[int, float] = {}
    ended = threading.Event()
    threading.Thread(target=note_frames, args=(pipeline, exposed, ended), daemon=True).start()
    began, worst = time.monotonic(), 0.0
    print(f"{'minute':>6} {'p50 ms':>7} {'p95 ms':>7} {'worst':>7}  looks", flush=True)
    for line in range(1, math.ceil(seconds / line_s) + 1):
        until_s = min(line * line_s, seconds)
        if ages := _look(page, exposed, began + until_s):
            p95 = percentile(ages, 95)
            worst = max(worst, p95)
            figures = f"{percentile(ages, 50):7.0f} {p95:7.0f} {max(ages):7.0f}  {len(ages)}"
        else:
            worst, figures = math.inf, " no frame was shown"
        print(f"{until_s / 60:6.1f} {figures}", flush=True)
    ended.set()
    print(f"{'holds' if worst <= limit_ms else 'MISSED'}: p95 at most {worst:.0f} ms, limit {limit_ms:.0f} ms")
    return 0 if worst <= limit_ms else 1


def _look(page: Any, exposed: dict[int, float], until: float) -> list[float]:
    """Looks once a second until then, by the monotonic clock. Returns: the age of each frame, in milliseconds."""
    ages = []
    while (look_s := time.monotonic()) < until:
        shown = page.evaluate(LOOK)
        if shown is not None and shown[0] in exposed:
            ages.append(shown[1] - exposed[shown[0]])
        for old in sorted(exposed)[:-2000]:
            del exposed[old]
        time.sleep(max(0.0, min(look_s + 1, until) - time.monotonic()))
    return ages


if __name__ == "__main__":
    sys.exit(main())
