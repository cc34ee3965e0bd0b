"""Writes the scores of a frame into one record of the scores ring."""

from __future__ import annotations

import json
from collections.abc import Mapping

import numpy as np

from analyzer.frame_analyzer import FrameAnalyzer, FrameResult
from analyzer.frame_sample import FrameSample
from shm_ring import FrameMeta, RingWriter
from shm_ring.records.scores import PLUGINS_BYTES, SCORE, VERSION

FIELDS = [
    *("dark_score", "scene_brightness", "scene_low", "scene_high", "scene_ev"),
    *("dark_threshold", "bright_threshold", "exposure_s", "lux", "locked_s", "night_since_s"),
    *("p10", "p50", "p90", "p99", "saturated", "black", "motion_score", "motion_box"),
    *("night", "source", "settled", "moving", "forced"),
]
"""What `publish` writes, in this order."""


class ScoresWriter:
    """The writer of one camera's records; the buffer is reused for every frame."""

    def __init__(self, ring: RingWriter) -> None:
        self._ring = ring
        self._record = np.zeros(1, SCORE)
        self._row = self._record[0]
        self._values = self._record[FIELDS]
        self._bytes = self._record.view(np.uint8)
        self._row["version"] = VERSION
        self._plugins: object = None

    @property
    def is_lost(self) -> bool:
        """True if another program removed or overwrote the ring: no reader finds the scores any more."""
        return not self._ring.intact

    def publish(
        self, result: FrameResult, frame_analyzer: FrameAnalyzer, plugins: Mapping[str, Mapping[str, object]]
    ) -> None:
        """Publishes the record of one frame; `plugins`: the last result of each."""
        meta, assessment, measurement = result.sample.meta, result.assessment, result.measurement
        night, exposure = frame_analyzer.night_settings, result.sample.exposure
        self._values[0] = (  # at once: each assignment by name looks for its field
            *(measurement.dark_score[0], assessment.level, assessment.low, assessment.high, assessment.ev),
            *(night.dark_threshold, night.bright_threshold, exposure.product_s, exposure.lux),
            *(frame_analyzer.lock_at(meta.captured_ns).seconds, frame_analyzer.since_s(meta.captured_ns)),
            *measurement.percentiles[0],
            *(measurement.saturated[0], measurement.black[0], result.motion.score, result.motion.box),
            *(result.is_night, assessment.source, assessment.settled),
            *(frame_analyzer.is_moving, frame_analyzer.override != "auto"),
        )
        self.repeat(result.sample, plugins)

    def repeat(self, sample: FrameSample, plugins: Mapping[str, Mapping[str, object]]) -> None:
        """Publishes the last record again, for a frame that shows nothing new; by its sharpness pictures are chosen."""
        meta = sample.meta
        self._row["frame_id"], self._row["captured_ns"] = meta.frame_id, meta.captured_ns
        self._row["sharpness"] = sample.sharpness
        self._put_plugins(plugins)
        self._ring.publish(
            self._bytes, FrameMeta(meta.frame_id, meta.captured_ns, meta.captured_utc_ns, flags=meta.flags)
        )

    def _put_plugins(self, plugins: Mapping[str, Mapping[str, object]]) -> None:
        """Stores the plug-ins' results; whole ones only, the first ones first, when they do not all fit."""
        if plugins is self._plugins:
            return
        fitting: dict[str, Mapping[str, object]] = {}
        text = b"{}"
        for name, values in plugins.items():
            longer = json.dumps({**fitting, name: values}, separators=(",", ":")).encode()
            if len(longer) <= PLUGINS_BYTES:
                fitting[name], text = values, longer
        self._row["plugins_bytes"] = len(text)
        self._row["plugins"][: len(text)] = np.frombuffer(text, np.uint8)
        self._plugins = plugins
