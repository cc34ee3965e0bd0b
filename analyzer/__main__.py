"""The analyzer process: scores the newest frame, decides day and night, detects motion, draws the keogram."""

from __future__ import annotations

import logging
import sys

from analyzer.frame_analyzer import FrameAnalyzer
from analyzer.keogram.daily_keogram import KeogramKeeper, save_days_of_removed_cameras
from analyzer.keogram.keogram_thread import KeogramThread
from analyzer.loop import COMMANDS, Analyzer, report_saved, run, settings_of
from analyzer.plugins.host import Plugins
from analyzer.scores_writer import ScoresWriter
from analyzer.settings import AnalyzerSettings
from shm_ring import LiveRing, RingBusy, RingTooLarge, RingWriter
from shm_ring.records.scores import SCORE, STREAM
from shmcam.control.client import ControlClient
from shmcam.runtime.startup import Process, startup
from shmcam.runtime.timers import Backoff

log = logging.getLogger("analyzer")

OOM_SCORE_ADJ = 200
"""The kernel kills the analyzer before capture and recorder: its loss costs no frame."""


def open_scores(process: Process, control: ControlClient, slots: int) -> RingWriter:
    """Creates the scores ring; while shared memory is full, reports it and tries again."""
    settings, camera = process.settings, process.camera
    settings.paths.run.mkdir(parents=True, exist_ok=True)
    backoff = Backoff()
    while True:
        try:
            return RingWriter.create(
                settings.ring_name(camera, STREAM),
                slots=slots,
                payload_bytes=SCORE.itemsize,
                lock_dir=settings.paths.run,
                camera=camera,
                stream=STREAM,
            )
        except RingBusy as problem:
            log.error("%s", problem)
            raise SystemExit(1) from None
        except RingTooLarge as problem:
            log.warning("%s", problem)
            control.beat("waiting", str(problem))
        if process.stop.wait(backoff.next_delay_s()):
            raise SystemExit(0)


def main() -> int:
    """Runs until stop is requested; bad configuration: one line, exit 78."""
    with startup("analyzer", oom_score_adj=OOM_SCORE_ADJ) as process:
        settings, camera, stop = process.settings, process.camera, process.stop
        own = settings.table(AnalyzerSettings, camera)
        with (
            ControlClient(
                "analyzer", camera, socket_path=settings.socket_path, stop=stop, commands=COMMANDS
            ) as control,
            open_scores(process, control, own.scores_size) as scores,
            LiveRing(settings.ring_name(camera, own.stream), stop, waits_for_repair=True) as ring,
            Plugins(own, settings.ring_name(camera, own.stream), settings.folder) as plugins,
            KeogramThread(
                KeogramKeeper(own, settings.paths, camera),
                lambda paths: report_saved(paths, camera, settings, control),
                stop,
            ) as keogram,
        ):
            if camera == settings.cameras[0]:
                keogram.submit(lambda: save_days_of_removed_cameras(own, settings.paths, settings.cameras))
            log.info("ready camera=%s stream=%s plugins=%s", camera, own.stream, ",".join(own.plugins) or "-")
            frames = FrameAnalyzer(*settings_of(settings, camera))
            run(ring, Analyzer(camera, settings, frames, ScoresWriter(scores), control, plugins, keogram), stop)
    return 0


if __name__ == "__main__":
    sys.exit(main())
