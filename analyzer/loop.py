"""The analyzer's loop: analyses the newest frame, publishes its record, reports what happened.

It reports by messages and log lines; commands and changed settings are obeyed while it waits for a frame.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import msgspec

from analyzer import replies
from analyzer.frame_analyzer import FrameAnalyzer, FrameResult
from analyzer.frame_sample import sample_frame
from analyzer.keogram.keogram_thread import KeogramThread
from analyzer.night.controller import ExposureRequest
from analyzer.night.decision import Decision, Override
from analyzer.plugins.host import Plugins
from analyzer.scores_writer import ScoresWriter
from analyzer.settings import AnalyzerSettings, MotionSettings, NightSettings
from shm_ring import FrameOverwritten, LiveRing, RingError, RingReader
from shmcam.config.settings import Settings, apply_change
from shmcam.control.client import ControlClient, Request
from shmcam.control.messages import Keogram, Night, NightLevel, Saved, SettingChanged, error
from shmcam.library import Catalogue, LibraryError
from shmcam.library.sidecar import read
from shmcam.runtime.clock import RateMeter, now_ns
from shmcam.runtime.stop import Stop
from shmcam.runtime.timers import Interval

log = logging.getLogger(__name__)

COMMANDS = ("night_level", "night", "keogram")
OVERRIDES: tuple[Override, ...] = get_args(Override)

BEAT_S = 0.5
"""Heartbeats leave once a second; offering one more often than this is wasted work."""
IDLE_S = 0.25
"""Without a frame plugins and the end of the day are looked after this often."""
SILENCE_S = 5.0
"""No frame for so long (and three exposures) is worth telling."""
RATE_WINDOW_S = 1.0
"""The frame rate is measured over so long (and three exposures)."""
RATE_INTERVALS = 240
"""One second of the fastest cameras."""


@dataclass
class Analyzer:
    """The parts that the loop works with; `__main__` opens and closes them."""

    camera: str
    settings: Settings
    frames: FrameAnalyzer
    scores: ScoresWriter
    control: ControlClient
    plugins: Plugins
    keogram: KeogramThread


def settings_of(settings: Settings, camera: str) -> tuple[NightSettings, AnalyzerSettings, MotionSettings]:
    """Reads a camera's tables; the scale of the thresholds follows its frame rate. Raises: SettingsError."""
    night = settings.table(NightSettings, camera)
    framerate = settings.value(f"cameras.{camera}.framerate")
    if not night.reference_exposure_us and framerate:
        night = msgspec.structs.replace(night, reference_exposure_us=round(1e6 / framerate))
    return night, settings.table(AnalyzerSettings, camera), settings.table(MotionSettings, camera)


def run(ring: LiveRing, analyzer: Analyzer, stop: Stop) -> None:
    """Works until stop is requested. Frames that came in during the analysis of another are skipped and counted."""
    count, rate, beats = 0, FrameRate(), Interval()
    reported: FrameResult | None = None
    waits = analyzer.control.delegate(lambda: obey(analyzer))
    for item in waits.iterate(ring.sequences(newest_first=True, idle_s=IDLE_S)):
        obey(analyzer)
        analyzer.plugins.poll()
        lag = 0
        if item is None:
            analyzer.keogram.end_day_if_over(time.time_ns())
        else:
            reader, sequence = item
            result = analyze_frame(reader, sequence, analyzer)
            if result is None:
                continue
            count += 1
            rate.add(now_ns(), result.sample.meta.exposure_us)
            if result is not reported:
                report(result, analyzer)
                reported = result
            lag = max(0, reader.head - 1 - sequence)
        if beats.take_due(now_ns(), BEAT_S):
            beat(ring, analyzer, rate, lag)
            if analyzer.scores.is_lost:  # rare, and nothing else of the day is lost with a restart
                log.error("scores ring: its name was taken away or its header overwritten; starting again")
                raise SystemExit(1)
    log.info("stopped frames=%d skipped=%d night=%s", count, ring.skipped, analyzer.frames.is_night)


def analyze_frame(reader: RingReader, sequence: int, analyzer: Analyzer) -> FrameResult | None:
    """Analyses one frame and publishes its record. Returns: its result, the last one where it shows nothing new.

    None where it was overwritten meanwhile, or is no picture.
    """
    try:
        with reader.borrow(sequence) as frame:
            sample = sample_frame(frame, analyzer.keogram.column_position(frame.captured_ns))
    except (RingError, ValueError) as problem:
        if type(problem) is not FrameOverwritten:  # a payload that is not what its header says
            log.warning("frame not understood sequence=%d: %s", sequence, problem)
        return None
    if analyzer.frames.shows_nothing_new(sample):
        analyzer.scores.repeat(sample, analyzer.plugins.results)
        return analyzer.frames.last
    result = analyzer.frames.analyze(sample)
    analyzer.scores.publish(result, analyzer.frames, analyzer.plugins.results)
    return result


# ---- reports


def report(result: FrameResult, analyzer: Analyzer) -> None:
    """Announces and logs what one frame brought, and gives its column to the keogram."""
    if result.decision:
        report_night(result.decision, result, analyzer)
    if result.request:
        request_exposure(result.request, analyzer)
    if result.motion_event:
        event = replies.motion_event_of(result.motion_event, analyzer.camera, result)
        analyzer.control.announce(event)
        change = "began" if result.motion_event.began else "ended"
        log.info("motion %s score=%.4f zone=%s frame_id=%d", change, event.score, event.zone or "-", event.frame_id)
    analyzer.keogram.add(result, analyzer.frames.is_night)


def report_saved(paths: Sequence[Path], camera: str, settings: Settings, control: ControlClient) -> None:
    """Announces files that are safely on disk, and enters the pictures into the library; in the keogram's thread."""
    for path in paths:
        control.announce(Saved(camera=camera, path=str(path), kind="keogram"))
    pictures = [path for path in paths if path.suffix == ".png"]
    if not pictures:
        return
    try:
        with Catalogue.of(settings) as catalogue:
            for path in pictures:
                if (entry := read(path, catalogue.owner)) is not None:
                    catalogue.add(entry)
    except (OSError, LibraryError) as problem:  # it finds them by itself at its next look at the disk
        log.warning("keogram not entered into the library: %s", problem)


def report_night(decision: Decision, result: FrameResult, analyzer: Analyzer) -> None:
    """Announces and logs that night began or ended."""
    analyzer.control.announce(replies.night_event_of(decision, analyzer.camera, result))
    change = "began" if decision.night else "ended"
    assessment = result.assessment
    log.info(
        "night %s %s low=%.1f high=%.1f ev=%.2f source=%s dark_score=%.1f frame_id=%d",
        change, decision.reason, assessment.low, assessment.high, assessment.ev, assessment.source.name.lower(),
        result.measurement.dark_score[0], result.sample.meta.frame_id,
    )  # fmt: skip


def request_exposure(request: ExposureRequest, analyzer: Analyzer) -> None:
    """Asks capture for another mode or exposure."""
    analyzer.control.announce(replies.mode_request_of(request, analyzer.camera))
    exposure = request.exposure
    log.info(
        "asked for mode=%s exposure_us=%d gain=%.2f %s",
        request.mode,
        exposure.exposure_us,
        exposure.gain,
        request.reason,
    )


def beat(ring: LiveRing, analyzer: Analyzer, rate: FrameRate, lag: int) -> None:
    """Sends a heartbeat."""
    now = now_ns()
    silent = rate.is_silent(now)
    analyzer.control.beat(
        "waiting" if silent else "running",
        (ring.problem or "no frames") if silent else analyzer.plugins.trouble[:300],
        fps=rate.per_s(now),
        lag=lag,
        laps=ring.laps,
        skipped=ring.skipped,
        plugins=analyzer.plugins.states,
        **replies.figures_of(analyzer.frames),
    )


# ---- commands


def obey(analyzer: Analyzer) -> None:
    """Answers the commands that came since the last frame, and takes changed settings over."""
    for request in analyzer.control.receive():
        match request.message:
            case NightLevel():
                request.reply(replies.answer_night_level(analyzer.frames, analyzer.camera, now_ns()))
            case Night(action=action):
                _answer_night(action, request, analyzer)
            case Keogram():
                _answer_keogram(request, analyzer)
            case SettingChanged() as changed:
                _apply_change(changed, analyzer)


def _answer_night(action: str, request: Request, analyzer: Analyzer) -> None:
    frames = analyzer.frames
    for override in (value for value in OVERRIDES if value == action):  # `status` changes nothing
        decision, exposure = frames.force(override)
        log.info("night forced action=%s", action)
        if decision and frames.last:
            report_night(decision, frames.last, analyzer)
        if exposure:
            request_exposure(exposure, analyzer)
    request.reply(replies.answer_night(frames, analyzer.camera))


def _answer_keogram(request: Request, analyzer: Analyzer) -> None:
    def answer(paths: Sequence[Path], columns: int, problem: OSError | None) -> None:
        if problem is not None:
            request.reply(error(f"keogram not written: {problem}", "not_saved"))
        else:
            request.reply(replies.answer_keogram(paths, analyzer.camera, columns))

    if not analyzer.keogram.draw(answer):
        request.reply(error("keogram not written: its disk does not answer", "not_saved"))


def _apply_change(changed: SettingChanged, analyzer: Analyzer) -> None:
    """Takes one live setting over; what does not fit leaves everything as it was."""
    if changed.camera in ("", analyzer.camera):
        analyzer.settings = apply_change(analyzer.settings, changed.key, changed.new, changed.camera)
        analyzer.frames.apply_settings(*settings_of(analyzer.settings, analyzer.camera))


class FrameRate:
    """The rate and the absence of frames, by the times at which they came."""

    def __init__(self) -> None:
        self._rate = RateMeter(RATE_INTERVALS, window_s=RATE_WINDOW_S)

    def add(self, at_ns: int, exposure_us: int) -> None:
        """Counts a frame; its exposure explains a longer wait for the next ones."""
        self._rate.window_s = max(RATE_WINDOW_S, 3e-6 * exposure_us)
        self._rate.add(at_ns)

    def per_s(self, now_ns: int) -> float:
        """Returns frames a second; 0 once none has come for longer than the rate is measured over."""
        window_s = max(self._rate.window_s, 2e-9 * self._rate.period_ns)
        return 0.0 if self._quiet_s(now_ns) > window_s else self._rate.per_s

    def is_silent(self, now_ns: int) -> bool:
        """Tells whether no frame has come for longer than the last one's exposure explains."""
        return self._quiet_s(now_ns) > max(SILENCE_S, self._rate.window_s)

    def _quiet_s(self, now_ns: int) -> float:
        newest_ns = self._rate.newest_ns
        return math.inf if newest_ns is None else (now_ns - newest_ns) / 1e9
