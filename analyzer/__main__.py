"""analyzer: scores the newest frame, decides day and night, sees motion, draws the keogram."""

from __future__ import annotations

import logging
import sys

from analyzer.hooks import Hooks
from analyzer.keogram.keeper import Daybook
from analyzer.loop import COMMANDS, Analyzer, watch, watcher_for
from analyzer.plugins.host import Plugins
from analyzer.scores_writer import Scorer
from analyzer.settings import AnalyzerSettings
from shm_ring import LiveRing, RingTooLarge, RingWriter
from shm_ring.records.scores import SCORE, STREAM
from shmcam.control.client import ControlClient
from shmcam.runtime.startup import Process, startup
from shmcam.runtime.timers import Backoff

log = logging.getLogger("analyzer")

OOM_SCORE_ADJ = 200
"""The kernel takes the analyzer before capture and recorder: its loss costs no frame."""


def open_scores(process: Process, control: ControlClient, slots: int) -> RingWriter:
    """Make the scores ring; while shared memory is full, say so and try again."""
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
        except RingTooLarge as problem:
            log.warning("%s", problem)
            control.beat("waiting", str(problem))
        if process.stop.wait(backoff.delay_s()):
            raise SystemExit(0)


def main() -> int:
    """Run until asked to stop; bad configuration: one line, exit 78."""
    with startup("analyzer", oom_score_adj=OOM_SCORE_ADJ) as process:
        settings, camera, stop = process.settings, process.camera, process.stop
        own = settings.table(AnalyzerSettings, camera)
        with (
            ControlClient(
                "analyzer", camera, socket_path=settings.socket_path, stop=stop, commands=COMMANDS
            ) as control,
            open_scores(process, control, own.scores_size) as scores,
            LiveRing(settings.ring_name(camera, own.stream), stop) as ring,
            Plugins(own, settings.ring_name(camera, own.stream), settings.folder) as plugins,
            Daybook(own, settings.paths, camera) as daybook,
            Hooks(camera, stop) as hooks,
        ):
            log.info("ready camera=%s stream=%s plugins=%s", camera, own.stream, ",".join(own.plugins) or "-")
            mind = watcher_for(settings, camera)
            watch(ring, Analyzer(camera, settings, mind, Scorer(scores), control, plugins, daybook, hooks), stop)
    return 0


if __name__ == "__main__":
    sys.exit(main())
