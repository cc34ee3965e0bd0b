"""`shmcam fleet list | run | snapshot | record | forget`: all devices at the broker of [mqtt]."""

from __future__ import annotations

import argparse
import asyncio
import json
import shlex
import sys
import time
from collections.abc import Callable, Coroutine, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shmcam.config.settings import EXIT_CONFIG, Settings, SettingsError
from shmcam.control.messages import JSON
from shmcam.mqtt.fleet.answers import Answers
from shmcam.mqtt.fleet.devices import COLUMNS, show_error, to_table
from shmcam.mqtt.settings import MqttSettings
from shmcam.runtime.clock import read_clock_error_us, to_iso
from shmcam.runtime.guarded_thread import ThreadForEach
from shmcam.runtime.progress import make_progress_bar
from shmcam.runtime.startup import find_config

if TYPE_CHECKING:
    from shmcam.mqtt.fleet.broker_session import FleetSession

EXIT_FAILED, EXIT_USAGE, EXIT_UNAVAILABLE, EXIT_TIMEOUT, EXIT_INTERRUPTED = 1, 2, 69, 75, 130
"""As those of `shmcam` (docs/control.md): a device refused; wrong usage; no broker; no answer of a device; Ctrl-C."""

AHEAD_S = 2.0
"""An instant is so far ahead that the command reaches every device before."""
SYNCHRONIZED_S = 15.0
"""The time after the instant for saving, or for the first frames of a recording."""

Work = Callable[[argparse.Namespace, "FleetSession", MqttSettings], Coroutine[Any, Any, int]]


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command of the fleet. Returns: 0; 1 if a device failed, 2, 69 without a broker, 75 without an answer."""
    options = build_parser().parse_args(argv)
    try:
        settings = Settings.load(options.config, options.set)
    except SettingsError as problem:
        print(f"shmcam: {problem}", file=sys.stderr)
        return EXIT_CONFIG
    own = settings.table(MqttSettings)
    if need := next((need for need in own.list_needs() if not need.is_met), None):
        print(f"shmcam: fleet {need}", file=sys.stderr)
        return EXIT_UNAVAILABLE
    try:
        return asyncio.run(_connect(options, own, settings.folder))
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED


async def _connect(options: argparse.Namespace, own: MqttSettings, folder: Path) -> int:
    import aiomqtt

    from shmcam.mqtt.broker_connection import explain
    from shmcam.mqtt.fleet.broker_session import open_session

    asyncio.get_running_loop().set_default_executor(ThreadForEach())
    work: Work = options.work
    try:
        async with open_session(own, folder) as session:
            return await work(options, session, own)
    except (aiomqtt.MqttError, OSError, UnicodeError) as problem:  # TimeoutError too; UnicodeError: host "a..b"
        where = f"{own.host}:{own.port_in_use}"
        reason = explain(problem)
        begin = "the broker" if reason.startswith("it refuses") else "no answer from the broker"
        print(f"shmcam: {begin} {where}: {reason}", file=sys.stderr)
        return EXIT_UNAVAILABLE


async def list_devices(options: argparse.Namespace, session: FleetSession, own: MqttSettings) -> int:
    """Prints every device with its health."""
    devices = (await session.find_devices()).list_all()
    if options.json:
        rows = [{"device": one.name, "online": one.is_online, "health": one.health} for one in devices]
        print(json.dumps({"devices": rows}))
    elif devices:
        print(to_table([device.to_row() for device in devices], COLUMNS))
        online = sum(device.is_online for device in devices)
        print(f"{online} of {len(devices)} devices are online")
    else:
        print(f"no device at {own.host} below {own.prefix}/; each needs [mqtt] enable = true")
    return 0


async def run_command(options: argparse.Namespace, session: FleetSession, own: MqttSettings) -> int:
    """Has devices carry out one command of the control socket."""
    words = options.command
    if not words:
        print("shmcam fleet run: expected a command, such as: shmcam fleet run record status", file=sys.stderr)
        return EXIT_USAGE
    payload = shlex.join(words) if len(words) > 1 else words[0]  # one word may be a whole line, or JSON
    return await _ask(options, session, payload, options.deadline)


async def take_snapshots(options: argparse.Namespace, session: FleetSession, own: MqttSettings) -> int:
    """Has devices save a frame of one instant."""
    command: dict[str, JSON] = {"command": "snapshot", "label": options.label, "formats": options.formats}
    return await _ask_at(options, session, command)


async def record(options: argparse.Namespace, session: FleetSession, own: MqttSettings) -> int:
    """Has devices begin or end a recording at one instant."""
    command: dict[str, JSON] = {"command": "record", "action": options.action}
    if options.action == "start":
        command |= {"label": options.label, "duration_s": options.duration}
    return await _ask_at(options, session, command)


async def forget(options: argparse.Namespace, session: FleetSession, own: MqttSettings) -> int:
    """Removes devices that are gone for good from the broker, and so from Home Assistant."""
    devices = await session.find_devices()
    for name in options.devices:
        if name in devices.by_name and devices.by_name[name].is_online:
            print(f"shmcam: {name} is online; switch its [mqtt] off first", file=sys.stderr)
            return EXIT_FAILED
    for name in options.devices:
        print(f"{name}: {await session.forget(name, own.discovery_prefix)} topics removed")
    return 0


async def _ask_at(options: argparse.Namespace, session: FleetSession, command: dict[str, JSON]) -> int:
    at_utc_ns = options.at or time.time_ns() + round(options.ahead * 1e9)
    ahead_s = (at_utc_ns - time.time_ns()) / 1e9
    clock = show_error(read_clock_error_us())
    print(f"at {to_iso(at_utc_ns)}, in {ahead_s:.1f} s; our own clock: {clock}", file=sys.stderr)
    deadline_s = options.deadline if options.deadline else max(0.0, ahead_s) + SYNCHRONIZED_S
    return await _ask(options, session, {**command, "at_utc_ns": at_utc_ns}, deadline_s)


async def _ask(
    options: argparse.Namespace, session: FleetSession, command: dict[str, JSON] | str, deadline_s: float
) -> int:
    from shmcam.mqtt.fleet.broker_session import choose

    devices = await session.find_devices()
    answers = choose(devices, options.on)
    if not answers.expected:
        print(f"shmcam: no device is online ({', '.join(sorted(answers.offline)) or 'none is known'})", file=sys.stderr)
        return EXIT_UNAVAILABLE
    draw = make_progress_bar("answers") if sys.stderr.isatty() and not options.json else lambda _done, _total: None
    took_s = await session.ask(
        command, answers, to_all=not options.on, deadline_s=deadline_s or SYNCHRONIZED_S, on_progress=draw
    )
    if options.json:
        rows = {"answers": answers.by_device, "missing": answers.missing, "offline": sorted(answers.offline)}
        print(json.dumps({**rows, "took_s": round(took_s, 3)}))
    else:
        print(answers.to_text(took_s))
    return _exit_code_of(answers)


def _exit_code_of(answers: Answers) -> int:
    if answers.failed:
        return EXIT_FAILED
    return EXIT_TIMEOUT if answers.missing or answers.offline else 0


def build_parser() -> argparse.ArgumentParser:
    """Builds the parser of what stands behind `shmcam fleet`; imports nothing of MQTT."""
    parser = argparse.ArgumentParser(
        prog="shmcam fleet", description="all devices at the broker of [mqtt] in config.toml; docs/scale.md"
    )
    _add_shared(parser)
    parser.set_defaults(config=find_config(), set=[], json=False)
    words = parser.add_subparsers(required=True, metavar="COMMAND")
    command = words.add_parser("list", help="every device with its health")
    command.set_defaults(work=list_devices)
    command = words.add_parser("run", help="a command of the control socket, on all devices or some")
    _add_choice(command, deadline_s=15.0)
    command.add_argument("command", nargs=argparse.REMAINDER, metavar="WORD …", help="such as: record status")
    command.set_defaults(work=run_command)
    command = words.add_parser("snapshot", help="a picture of one instant from each camera")
    _add_choice(command)
    _add_instant(command)
    command.add_argument("--formats", nargs="*", default=[], metavar="FORMAT", help="jpg, png, npy, tiff")
    command.set_defaults(work=take_snapshots)
    command = words.add_parser("record", help="begin or end recordings at one instant")
    command.add_argument("action", choices=("start", "stop"))
    _add_choice(command)
    _add_instant(command)
    command.add_argument("--duration", type=float, default=0.0, metavar="SECONDS", help="0: until told")
    command.set_defaults(work=record)
    command = words.add_parser("forget", help="remove devices that are gone for good")
    command.add_argument("devices", nargs="+", metavar="DEVICE")
    command.set_defaults(work=forget)
    for command in words.choices.values():
        _add_shared(command)
    return parser


def _add_shared(parser: argparse.ArgumentParser) -> None:
    """Adds the options of every command; without defaults, as they may stand before or behind the word."""
    parser.add_argument(
        "--config", type=Path, default=argparse.SUPPRESS, metavar="FILE", help=f"config.toml (default: {find_config()})"
    )
    parser.add_argument(
        "--set",
        action="append",
        default=argparse.SUPPRESS,
        metavar="TABLE.KEY=VALUE",
        help="override one key, such as mqtt.host=pi",
    )
    parser.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="answer for programs")


def _add_choice(command: argparse.ArgumentParser, *, deadline_s: float = 0.0) -> None:
    command.add_argument("--on", action="append", default=[], metavar="DEVICE", help="only this one (repeatable)")
    command.add_argument(
        "--deadline", type=_seconds, default=deadline_s, metavar="SECONDS", help="longest wait for the answers"
    )


def _add_instant(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--at", type=_instant, default=0, metavar="TIME", help="ISO 8601, such as 2026-08-22T21:00:00Z"
    )
    command.add_argument(
        "--ahead", type=_seconds, default=AHEAD_S, metavar="SECONDS", help="… or so far ahead (default: %(default)s)"
    )
    command.add_argument("--label", default="", help="label for file names")


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 < seconds <= 3600:
        raise argparse.ArgumentTypeError(f"expected 0 to 3600 seconds, got {text}")
    return seconds


def _instant(text: str) -> int:
    """Reads a time; without a zone it is local. Raises: ValueError, which argparse explains."""
    when = datetime.fromisoformat(text)
    return round(when.astimezone(UTC).timestamp() * 1e6) * 1000


if __name__ == "__main__":
    sys.exit(main())
