"""The endpoints that start and restart programs of supervisord, as the page's buttons do.

A program is named as in `shmcam processes`; only those that supervisord knows can be named, and none can be stopped.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Collection, Mapping, Sequence
from typing import Annotated, Any

import msgspec
import psutil

from shmcam.runtime.supervisord import Program, Supervisord, SupervisordError
from streamer.api.endpoint import Answer, Call, CommandRefused, Endpoint, Nothing
from streamer.http.context import Context
from streamer.monitoring.health import ProcessHealth

ALIVE = frozenset({"RUNNING", "STARTING", "BACKOFF"})
"""supervisord runs these, or will within seconds; it refuses to start them."""

OURSELVES_AFTER_S = 0.5
"""Pause before the streamer restarts itself, in which its answer reaches the browser."""


class OfProgram(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The program in the path."""

    program: Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9_-]{1,64}$", description="such as recorder-cam1")]


async def restart_programs(context: Context, names: Collection[str], *, running: bool = True) -> None:
    """Restarts programs by name, side by side; starts those that do not run. Raises: CommandRefused.

    `running`: also those that run. The streamer is the last one: it ends after its answer, and supervisord starts it
    again.
    """
    url = os.environ.get("SUPERVISOR_SERVER_URL", "")
    if not url:
        raise CommandRefused(409, "the streamer does not run under supervisord, which alone starts programs")
    supervisord = Supervisord(url)
    try:
        programs = {program.name: program for program in await asyncio.to_thread(supervisord.programs)}
        if unknown := sorted(set(names) - set(programs)):
            raise CommandRefused(404, f"no program {unknown[0]!r}; programs: {', '.join(sorted(programs))}")
        chosen = [programs[name] for name in names if running or programs[name].state not in ALIVE]
        others = [program for program in chosen if program.pid != os.getpid()]
        await asyncio.gather(*(asyncio.to_thread(_restart, supervisord, program) for program in others))
    except SupervisordError as problem:
        raise CommandRefused(503, f"supervisord: {problem}"[:300]) from None
    if len(others) < len(chosen):
        context.hub.restart_process(OURSELVES_AFTER_S)


def find_waiting(
    waiting: Mapping[str, Mapping[str, Any]], processes: Sequence[ProcessHealth], started_utc_s: Mapping[int, float]
) -> dict[str, list[str]]:
    """Returns the programs that do not know a changed setting yet, by the setting's path.

    `waiting`: the hub's restart keys (roles, time of the change); `started_utc_s`: by process number.
    """
    found: dict[str, list[str]] = {}
    for path, change in waiting.items():
        parts = path.split(".")
        camera = parts[1] if parts[0] == "cameras" else ""
        programs = [
            process.program
            for process in processes
            if _is_reader(process, change["roles"], camera)
            and process.pid in started_utc_s
            and started_utc_s[process.pid] < change["changed_utc_s"]
        ]
        if programs:
            found[path] = programs
    return found


def read_start_times(processes: Sequence[ProcessHealth]) -> dict[int, float]:
    """Returns the Unix time at which each process started; without those that are gone."""
    found: dict[int, float] = {}
    for process in processes:
        try:
            found[process.pid] = psutil.Process(process.pid).create_time()
        except psutil.Error:
            continue
    return found


def _is_reader(process: ProcessHealth, roles: Collection[str], camera: str) -> bool:
    if camera and process.camera not in ("", camera):
        return False
    return "all" in roles or any(process.program in (role, f"{role}-{process.camera}") for role in roles)


def _restart(supervisord: Supervisord, program: Program) -> None:
    """Restarts or starts a program by one call: if we died between stop and start, it would stay stopped for good."""
    if program.pid:
        supervisord.terminate(program.full_name)
    elif program.state not in ALIVE:
        supervisord.start(program.full_name)


def _make_endpoint(word: str, summary: str, *, running: bool) -> Endpoint:
    async def run(call: Call) -> Answer:
        name = call.path_params.program
        await restart_programs(call.context, [name], running=running)
        return Answer(True, "started", f"{name} is starting", {"program": name})

    path = f"/programs/{{program}}/{word}"
    return Endpoint("POST", path, "programs", summary, run, Answer, path_params=OfProgram, body=Nothing)


ENDPOINTS: tuple[Endpoint, ...] = (
    _make_endpoint("start", "Start a program that does not run", running=False),
    _make_endpoint("restart", "Restart a program, or start it", running=True),
)
