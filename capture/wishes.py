"""What settings, the analyzer and memory pressure ask of the camera at this moment. No I/O."""

from __future__ import annotations

import logging

from capture.modes import VIDEO, Mode, first_mode, request, requested_mode
from capture.pressure import Pressure
from capture.settings import CameraSettings, PrivacySettings, RingSettings
from capture.source import Request
from control.messages import Event, ModeRequested, NightBegan, NightEnded, SettingChanged
from service.settings import Settings, SettingsError

EVENTS = ("mode_requested", "night_began", "night_ended")
"""What capture subscribes to; settings come unasked."""

log = logging.getLogger(__name__)


class Wishes:
    """Fed with messages; `request` is always what should be running."""

    def __init__(self, settings: Settings, name: str) -> None:
        self._settings, self._name = settings, name
        self.pressure = Pressure.NONE
        self.night = False
        """What the analyzer last said; frames carry it as a flag."""
        self._read()
        self.mode: Mode = first_mode(self.camera)
        self.request = self._request()
        """What to ask of the source; a new object when, and only when, something was asked."""

    def press(self, pressure: Pressure) -> None:
        """Take over what memory allows."""
        self.pressure = pressure
        self.request = self._request()

    def hear(self, message: Event) -> None:
        """Take one event; those about other cameras are ignored."""
        if getattr(message, "camera", "") not in ("", self._name):
            return
        match message:
            case SettingChanged():
                self._change(message)
            case ModeRequested():
                self._obey(message)
            case NightEnded():  # a kind of NightBegan, so it comes first
                self.night = False
            case NightBegan():
                self.night = True
        self.request = self._request()

    def _change(self, message: SettingChanged) -> None:
        owner = message.key.split(".")[0]
        if owner not in ("camera", "ring", "privacy", "cameras"):
            return
        key = f"cameras.{message.camera}.{message.key}" if message.camera and owner != "cameras" else message.key
        before = self.camera
        try:
            self._settings = self._settings.with_value(key, message.new)
        except SettingsError as error:  # the hub has checked it already; a version of ours that differs says so
            log.warning("setting refused key=%s: %s", key, error)
            return
        self._read()
        own = ("video_mode", "exposure_us", "gain")
        if not self.night and any(getattr(before, name) != getattr(self.camera, name) for name in own):
            self.mode = first_mode(self.camera)  # at night the analyzer has the camera; the day's mode waits

    def _obey(self, message: ModeRequested) -> None:
        try:
            asked = requested_mode(message.mode, message.exposure_us, message.gain, self.camera)
        except ValueError as error:
            log.warning("%s", error)
            return
        self.night = asked != VIDEO
        self.mode = asked if self.night else first_mode(self.camera)
        log.info("mode requested mode=%s reason=%s", message.mode, message.reason)

    def _request(self) -> Request:
        wanted = request(self.camera, self.ring, self.mode, slow=self.pressure is not Pressure.NONE)
        return self.request if wanted == getattr(self, "request", None) else wanted

    def _read(self) -> None:
        self.camera = self._settings.table(CameraSettings, self._name)
        self.ring = self._settings.table(RingSettings, self._name)
        self.privacy = self._settings.table(PrivacySettings, self._name)
        self.polygons = self.privacy.polygons if self.privacy.enable else ()
        """What to mask; empty: nothing."""
