"""`shmcam doctor` runs every check and prints one line for each finding. Exit code 1 if there is a problem."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

from shmcam.cli.doctor import camera, machine, service
from shmcam.cli.doctor.finding import Finding
from shmcam.cli.options import EXIT_FAILED, Options

MARKS = {"ok": "✓", "note": "·", "problem": "✗"}

CHECKS: tuple[tuple[str, Callable[[Options], Iterator[Finding]]], ...] = (
    ("software", machine.check_software),
    ("camera", camera.check_camera),
    ("memory", machine.check_memory),
    ("disk", machine.check_disk),
    ("clock", machine.check_clock),
    ("permissions", machine.check_permissions),
    ("ports", service.check_ports),
    ("programs", service.check_optional_programs),
    ("service", service.check_service),
)


def main(options: Options) -> int:
    """Runs all checks; prints one line for each finding, or JSON."""
    findings = [(topic, finding) for topic, check in CHECKS for finding in check(options)]
    problems = sum(finding.level == "problem" for _, finding in findings)
    if options.json:
        rows = [{"topic": topic, "level": f.level, "text": f.text, "type": f.type_this} for topic, f in findings]
        print(json.dumps({"ok": not problems, "findings": rows}, indent=1, ensure_ascii=False))
    else:
        for topic, finding in findings:
            print(f"{MARKS[finding.level]} {topic:<12} {finding.text}")
            if finding.type_this:
                print(f"{'':15}type: {finding.type_this}")
        print(f"{problems} problems found" if problems else "all well")
    return EXIT_FAILED if problems else 0
