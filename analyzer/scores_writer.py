"""Writes what was seen of a frame into one record of the scores ring."""

from __future__ import annotations

import json
from collections.abc import Mapping

import numpy as np

from analyzer.frame_analyzer import FrameAnalyzer, FrameResult
from shm_ring import FrameMeta, RingWriter
from shm_ring.records.scores import PLUGINS_BYTES, SCORE, VERSION


class Scorer:
    """Publishes records; the buffer is reused for every frame."""

    def __init__(self, ring: RingWriter) -> None:
        self._ring = ring
        self._record = np.zeros(1, SCORE)
        self._row = self._record[0]
        self._bytes = self._record.view(np.uint8)
        self._row["version"] = VERSION
        self._plugins: object = None

    def publish(self, seen: FrameResult, watcher: FrameAnalyzer, plugins: Mapping[str, Mapping[str, object]]) -> None:
        """Publish the record of one frame; `plugins`: what each returned last."""
        meta, verdict, measured = seen.look.meta, seen.verdict, seen.measured
        row = self._row
        row["frame_id"], row["captured_ns"] = meta.frame_id, meta.captured_ns
        row["dark_score"] = measured.dark_score[0]
        row["scene_brightness"], row["scene_low"], row["scene_high"] = verdict.level, verdict.low, verdict.high
        row["scene_ev"] = verdict.ev
        row["dark_threshold"] = watcher.night_rules.dark_threshold
        row["bright_threshold"] = watcher.night_rules.bright_threshold
        row["exposure_s"], row["lux"] = seen.look.own.product_s, seen.look.own.lux
        row["locked_s"], row["night_since_s"] = watcher.locked_s(meta.captured_ns), watcher.since_s(meta.captured_ns)
        row["p10"], row["p50"], row["p90"], row["p99"] = measured.percentiles[0]
        row["saturated"], row["black"] = measured.saturated[0], measured.black[0]
        row["sharpness"] = seen.look.sharpness
        row["motion_score"], row["motion_box"] = seen.motion.score, seen.motion.box
        row["night"], row["source"], row["settled"] = seen.night, verdict.source, verdict.settled
        row["moving"], row["forced"] = watcher.moving, watcher.override != "auto"
        self._put(plugins)
        self._ring.publish(
            self._bytes, FrameMeta(meta.frame_id, meta.captured_ns, meta.captured_utc_ns, flags=meta.flags)
        )

    def _put(self, plugins: Mapping[str, Mapping[str, object]]) -> None:
        """Store the plug-ins' results; whole ones only, the first ones first, when they do not all fit."""
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
