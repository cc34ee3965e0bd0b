"""The answers of devices to one command: whose are expected, whose have come, how far apart frames are. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import Any

from shmcam.mqtt.fleet.devices import read_object, show_error, show_text, to_table


@dataclass(slots=True)
class Answers:
    """The answers that have come."""

    expected: Collection[str]
    offline: Collection[str] = ()
    """Devices that were asked for and are not at the broker: nothing is expected of them."""
    by_device: dict[str, dict[str, Any]] = field(default_factory=dict)

    def note(self, payload: bytes) -> bool:
        """Takes an answer over. Returns: whether it is the first one of an expected device."""
        answer = read_object(payload)
        device = answer.get("device")
        if not isinstance(device, str) or device not in self.expected or device in self.by_device:
            return False
        self.by_device[device] = answer
        return True

    @property
    def is_complete(self) -> bool:
        """True once every expected device has answered."""
        return len(self.by_device) == len(self.expected)

    @property
    def missing(self) -> list[str]:
        """The expected devices without an answer."""
        return sorted(set(self.expected) - set(self.by_device))

    @property
    def failed(self) -> list[str]:
        """The devices that refused, or could not."""
        return sorted(name for name, answer in self.by_device.items() if answer.get("ok") is not True)

    def to_text(self, took_s: float) -> str:
        """Returns a line for each device, those that failed last, and the sum."""
        rows = [
            {
                "device": name,
                "result": "ok" if answer.get("ok") is True else "failed",
                "clock": show_error(_number_or_none(answer.get("clock_error_us"))),
                "answer": show_text(answer.get("text", ""))[:140],
            }
            for name, answer in sorted(
                self.by_device.items(), key=lambda item: (item[1].get("ok") is not True, item[0])
            )
        ]
        rows += [{"device": name, "result": "no answer", "clock": "-", "answer": ""} for name in self.missing]
        rows += [{"device": name, "result": "offline", "clock": "-", "answer": ""} for name in sorted(self.offline)]
        lines = [to_table(rows, ("device", "result", "clock", "answer"))] if rows else []
        failed = f", {len(self.failed)} of them failed" if self.failed else ""
        lines.append(f"{len(self.by_device)} of {len(self.expected)} devices answered within {took_s:.1f} s{failed}")
        if self.offline:
            lines[-1] += f", {len(self.offline)} are offline"
        if spread := self.describe_spread():
            lines.append(spread)
        return "\n".join(lines)

    def list_offsets_s(self) -> Iterator[tuple[str, float]]:
        """Yields (device, time of its frame less the instant, by its own clock) of a snapshot at an instant."""
        for name, answer in self.by_device.items():
            data = answer.get("data")
            frames = data.get("frames") if isinstance(data, dict) and "at_utc_ns" in answer else None
            for frame in frames.values() if isinstance(frames, dict) else ():
                asked, age = (frame.get("asked_age_s"), frame.get("age_s")) if isinstance(frame, dict) else (None, None)
                if isinstance(asked, int | float) and isinstance(age, int | float):
                    yield name, asked - age

    def describe_spread(self) -> str:
        """Returns how far apart the frames of a snapshot are, with the error of the clocks; empty: nothing to say."""
        offsets = list(self.list_offsets_s())
        if not offsets:
            return ""
        times = [offset for _, offset in offsets]
        errors = [_number_or_none(self.by_device[name].get("clock_error_us")) for name, _ in offsets]
        known = [error for error in errors if error is not None]
        text = (
            f"frames: {min(times) * 1000:+.1f} to {max(times) * 1000:+.1f} ms from the instant, by each device's clock"
        )
        if known:
            text += f"; clocks at most {show_error(max(known))}"
        if len(known) < len(errors):
            text += f"; {len({name for (name, _), error in zip(offsets, errors, strict=True) if error is None})} "
            text += "devices have a clock that no NTP client has set"
        return text


def _number_or_none(value: Any) -> int | None:
    return value if type(value) is int else None
