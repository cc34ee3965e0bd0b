"""`?exposure=long`: the exporter's ring through the real streamer, beside live video and without it."""

import json
import re
import urllib.request
from contextlib import ExitStack

import pytest

from shmcam.runtime.clock import now_ns
from tests.machine import PATIENCE, until
from tests.streamer.test_process import Camera, Streamer, parts, shown, streaming

LONG = 500_000
"""Frame ids of the long exposure in these tests; those of single frames are far below."""


def exporter(folder, streamer: Streamer, **more) -> Camera:
    """What the exporter does for others: a second ring, slower than the camera."""
    return Camera(folder, streamer.prefix, **{"fps": 4.0, "stream": "long", "first": LONG, **more})


def encodes(streamer: Streamer) -> int:
    return int(re.search(rb'^\w*encodes_total\{camera="cam0"\} (\d+)', streamer.get("/metrics")[2], re.M)[1])


def status_of(streamer: Streamer) -> dict:
    return json.loads(streamer.get("/api/v1/cameras/cam0")[2])


def reason(streamer: Streamer) -> str:
    """What the page is told."""
    return status_of(streamer)["no_long_exposure"]


def opened(stack: ExitStack, streamer: Streamer, path: str):
    return parts(stack.enter_context(urllib.request.urlopen(streamer.url + path, timeout=PATIENCE * 15)))


def numbers(incoming, count: int) -> list[int]:
    """The next numbers, as read in the pixels; pictures without signal are passed over."""
    found = []
    for headers, body in incoming:
        if "X-Signal" not in headers:
            assert shown(body) == int(headers["X-Frame-Id"])
            found.append(shown(body))
        if len(found) == count:
            return found
    raise AssertionError("the stream ended")


def test_the_long_exposure_is_streamed_beside_live_video(tmp_path):
    with streaming(tmp_path) as streamer, Camera(tmp_path, streamer.prefix), ExitStack() as stack:
        stack.enter_context(exporter(tmp_path, streamer))
        long = opened(stack, streamer, "/stream?exposure=long")
        of_camera = opened(stack, streamer, "/cam/cam0/stream?exposure=long")
        live = opened(stack, streamer, "/stream")
        for incoming in (long, of_camera):
            seen = numbers(incoming, 6)
            assert seen == sorted(set(seen))
            assert seen[0] >= LONG
        assert max(numbers(live, 10)) < LONG
        for path in ("/snapshot.jpg?", "/cam/cam0/snapshot.jpg?", "/?action=snapshot&"):
            status, headers, body = streamer.get(f"{path}exposure=long")
            assert (status, shown(body)) == (200, int(headers["X-Frame-Id"]))
            assert shown(body) >= LONG
        assert reason(streamer) == ""


def test_it_is_encoded_once_for_all_and_only_while_somebody_watches(tmp_path):
    with streaming(tmp_path) as streamer, Camera(tmp_path, streamer.prefix), exporter(tmp_path, streamer):
        with ExitStack() as stack:
            viewers = [opened(stack, streamer, "/stream?exposure=long") for _ in range(3)]
            first = [numbers(incoming, 1)[0] for incoming in viewers]
            before = encodes(streamer)
            last = [numbers(incoming, 8)[-1] for incoming in viewers]
            made = encodes(streamer) - before
            assert made <= max(last) - min(first) + 2, f"{made} encodes for {len(viewers)} viewers"
        until(lambda: status_of(streamer)["viewers"] == 0, 10, "them to be gone")
        before, frame = encodes(streamer), status_of(streamer)["ring"]["head"]
        until(lambda: status_of(streamer)["ring"]["head"] > frame + 30, 10, "frames")
        assert encodes(streamer) == before


@pytest.mark.parametrize(
    ("text", "why"),
    [("", "export.long_exposure_s is 0"), ("[export]\nlong_exposure_s = 2\n", "the exporter is away")],
)
def test_without_one_everybody_is_told_why(tmp_path, text, why):
    with streaming(tmp_path, text) as streamer, Camera(tmp_path, streamer.prefix), ExitStack() as stack:
        until(lambda: reason(streamer) == why, 10, "the reason")
        status, _, body = streamer.get("/snapshot.jpg?exposure=long")
        assert (status, json.loads(body)["reason"]) == (503, f"no long exposure from cam0: {why}")
        long = opened(stack, streamer, "/stream?exposure=long")
        assert next(long)[0]["X-Signal"] == "none", "a picture that says so, and the stream stays open"
        assert streamer.get("/snapshot.jpg")[0] == 200, "live video knows nothing of it"
        with exporter(tmp_path, streamer):
            assert numbers(long, 3)[0] >= LONG
            assert reason(streamer) == ""
        until(lambda: reason(streamer) == why, 10, "the reason to be back")
        assert any("X-Signal" in headers for headers, _ in long), "the exporter's end is seen, too"


def test_an_exposure_that_stands_still_is_no_signal(tmp_path):
    """While the camera is away the exporter shows the last one on; viewers must not take it for what is there now."""
    with streaming(tmp_path) as streamer, ExitStack() as stack:
        long = opened(stack, streamer, "/stream?exposure=long")
        with exporter(tmp_path, streamer) as ring:
            first, began_ns = numbers(long, 1)[0], now_ns()
            ring.clock = lambda: began_ns
            headers, _ = next(part for part in long if "X-Signal" in part[0])
            assert int(headers["X-Frame-Id"]) >= first
            assert "last picture" in json.loads(streamer.get("/snapshot.jpg?exposure=long")[2])["reason"]
