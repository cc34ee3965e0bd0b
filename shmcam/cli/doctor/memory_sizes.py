"""`shmcam sizes`: what a configuration takes of memory, added up before it is started."""

from __future__ import annotations

import json
from collections.abc import Iterator

from msgspec.structs import asdict

from shm_ring.machine.available_memory import MEMORY_SHARE, SHM_FOLDER, available_room, total_memory_bytes
from shmcam.cli.options import EXIT_FAILED, Options
from shmcam.config.memory_plan import BOARDS, MB, SYSTEM_MB, MemoryPlan, plan_memory
from shmcam.config.optional_program import list_enabled

LEAST_RINGS_MB = 15
"""Rings below this hold less than a reader needs."""


def main(options: Options) -> int:
    """Prints the sum. Returns: 1 if it is more than this machine or its /dev/shm has."""
    settings = options.settings()
    plan, room, total_bytes = plan_memory(settings, len(list_enabled(settings))), available_room(), total_memory_bytes()
    fits = plan.total_bytes <= total_bytes - SYSTEM_MB * MB
    if options.json:
        boards = {name: judge_board(plan, mb) for name, mb in BOARDS.items()}
        print(json.dumps({**asdict(plan), "total": plan.total_bytes, "machine": total_bytes, "boards": boards}))
    else:
        print("\n".join(format_plan(plan)))
        print(f"\nthis machine: {total_bytes / MB:.0f} MB, {room.memory_bytes / MB:.0f} MB of it available now")
        print(f"{SHM_FOLDER}: {room.shm_bytes / MB:.0f} MB free")
        if not fits:
            print("does not fit: the rings get smaller at start, with a warning; see docs/which-pi.md")
    return 0 if fits else EXIT_FAILED


def format_plan(plan: MemoryPlan) -> Iterator[str]:
    """Yields the lines of a plan: programs, rings, sums, boards."""
    rows = [*plan.programs.items(), *((f"ring {name}", size) for name, size in plan.rings.items())]
    width = max(len(name) for name, _ in rows)
    for name, size in rows:
        yield f"{name:<{width}}  {size / MB:7.1f} MB"
    yield f"{'programs':<{width}}  {plan.program_bytes / MB:7.1f} MB"
    yield f"{'rings':<{width}}  {plan.ring_bytes / MB:7.1f} MB"
    yield f"{'sum':<{width}}  {plan.total_bytes / MB:7.1f} MB"
    yield ""
    yield f"Raspberry Pi, of whose memory the system takes about {SYSTEM_MB} MB (an estimate):"
    for board, mb in BOARDS.items():
        yield f"  {board} ({mb} MB): {judge_board(plan, mb)}"


def judge_board(plan: MemoryPlan, board_mb: int) -> str:
    """Returns in words how a plan fits into a board's memory."""
    left = (board_mb - SYSTEM_MB) * MB - plan.program_bytes
    if left >= plan.ring_bytes:
        return "fits"
    usable = left * MEMORY_SHARE
    if usable < LEAST_RINGS_MB * MB:
        return "does not fit"
    return f"fits with smaller rings: {usable / MB:.0f} of {plan.ring_bytes / MB:.0f} MB"
