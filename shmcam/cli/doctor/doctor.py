"""`shmcam doctor`: what is missing or wrong on this machine, each with the line to type. Exit code 1 if anything is."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

from shmcam.cli.doctor import camera, machine, service
from shmcam.cli.doctor.finding import Finding
from shmcam.cli.options import EXIT_FAILED, Options

MARKS = {"ok": "✓", "note": "·", "problem": "✗"}

CHECKS: tuple[tuple[str, Callable[[Options], Iterator[Finding]]], ...] = (
    ("software", machine.software),
    ("camera", camera.camera),
    ("memory", machine.memory),
    ("disk", machine.disk),
    ("clock", machine.clock),
    ("permissions", machine.permissions),
    ("ports", service.ports),
    ("service", service.service),
)


def main(options: Options) -> int:
    """Check everything; one line each."""
    found = [(topic, finding) for topic, check in CHECKS for finding in check(options)]
    problems = sum(finding.level == "problem" for _, finding in found)
    if options.json:
        rows = [{"topic": topic, "level": f.level, "text": f.text, "type": f.type_this} for topic, f in found]
        print(json.dumps({"ok": not problems, "findings": rows}, indent=1, ensure_ascii=False))
    else:
        for topic, finding in found:
            print(f"{MARKS[finding.level]} {topic:<12} {finding.text}")
            if finding.type_this:
                print(f"{'':15}type: {finding.type_this}")
        print(f"{problems} problems found" if problems else "all well")
    return EXIT_FAILED if problems else 0
