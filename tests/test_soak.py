"""Minutes of restarts, commands and kills at random; then everything runs, and nothing is left over or torn."""

import random
import time

import av
import pytest

from tests.machine import anonymous_bytes, until
from tests.pipeline import ALL, Pipeline

COMMANDS = (
    "save", "save jpg png npy", "snapshot", "pastStack before_s=1 method=mean", "record start", "record stop",
    "record status", "record trigger", "night_level", "night on", "night off", "night auto", "keogram", "status",
    "health", "cameras", "detect", "viewers", "clips", "pictures", "library check", "logs capture 5", "version", "help",
    "get night", "dump_config", "set camera.framerate 20", "set camera.framerate 30", "set night.dark_threshold 35",
    "set camera.width=320 camera.height=240", "set camera.width=480 camera.height=360", "nonsense",
)  # fmt: skip
EVERY_S = 5.0
SETTLE_S = 90.0
"""A program killed again and again before startsecs is FATAL; the watchdog takes 10 s, then 20 s to start it again."""


def private_bytes(pipeline):
    """What each program has of its own, without the rings."""
    return {name: anonymous_bytes(pid) for name in ALL if (pid := pipeline.pid(name))}


def running(pipeline):
    return set(pipeline.states().values()) == {"RUNNING"}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_five_minutes_of_restarts_kills_and_commands_leave_a_whole_service(seconds=300, seed=20261121):
    print(f"{seed=}")
    rng, answers, refused = random.Random(seed), 0, 0
    with Pipeline(camera={"width": 320, "height": 240}, logging={"level": "INFO"}) as shmcam:
        until(lambda: running(shmcam), 60, lambda: str(shmcam.states()))
        before = private_bytes(shmcam)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            begun = time.monotonic()
            restarted, killed = rng.choice(ALL), rng.choice(ALL)
            shmcam.supervisorctl("restart", "watchdog:*" if restarted == "watchdog" else restarted)
            answer = shmcam.text(rng.choice(COMMANDS), 20)
            answers, refused = answers + bool(answer), refused + answer.startswith(("ERROR", "UNKNOWN"))
            if shmcam.pid(killed):
                shmcam.kill(killed)
            time.sleep(max(0.0, EVERY_S - (time.monotonic() - begun)))
        until(lambda: running(shmcam), SETTLE_S, lambda: f"{shmcam.states()} {shmcam.logs('watchdog')}")
        until(lambda: not shmcam.text("status").count("missing"), 30, lambda: shmcam.text("status"))
        shmcam.text("record stop", 30)
        head = shmcam.frames()
        until(lambda: shmcam.frames() > head, 10, "frames come")
        until(lambda: shmcam.text("save").startswith("Saved"), 60, lambda: shmcam.text("status"))
        assert {path.name.rpartition(".")[2] for path in shmcam.segments()} <= {"main", "scores", "h264"}
        time.sleep(20)  # the young processes fill their buffers as the first ones had
        after = private_bytes(shmcam)
        print(f"answers={answers} refused={refused}", {n: f"{before[n] >> 20}→{after[n] >> 20} MiB" for n in ALL})
        assert sum(after.values()) < 1.2 * sum(before.values())
        told = {path.name: path.read_text(errors="replace") for path in (shmcam.folder / "logs").glob("*.log*")}
        broken = {name: text for name, text in told.items() if "Traceback" in text or "unexpected error" in text}
        assert not broken, broken
        clips = list((shmcam.folder / "recordings").rglob("*.mp4"))
        for clip in clips:
            with av.open(str(clip)) as film:
                assert sum(1 for _ in film.decode(video=0)) > 0, clip
        print(f"clips={len(clips)}")
