"""Runs the areas of bench/, each in a process of its own, and prints what holds and what does not."""

from __future__ import annotations

import argparse
import fcntl
import importlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.measure import Json, Measured, Outcome, Row, Table

FOLDER = Path(__file__).parent
AREAS = FOLDER / "areas"
RESULTS = FOLDER / "results"
LOCK = Path(tempfile.gettempdir()) / f"shmcam-bench-{os.getuid()}.lock"
AREA_LIMIT_S = 1800


def areas() -> dict[str, str]:
    """Find the modules below areas/ that have rows: module by name."""
    files = [file for file in sorted(AREAS.rglob("*.py")) if "\nROWS" in file.read_text()]
    return {file.stem: ".".join(("bench", *file.relative_to(FOLDER).with_suffix("").parts)) for file in files}


@contextmanager
def alone() -> Iterator[None]:
    """Hold the lock that keeps other measurements away."""
    with LOCK.open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def judge(row: Row, outcome: Outcome | None) -> dict[str, Json]:
    """Make the line of one row."""
    line: dict[str, Json] = {
        "row": row.name,
        "bound": row.bound,
        "unit": row.unit,
        "claim": row.claim,
        "better": row.better,
    }
    if outcome is None:
        return line | {"verdict": "MISSING", "value": None, "detail": "run() yielded nothing for it"}
    if not isinstance(outcome, Measured):
        return line | {"verdict": "skipped", "value": None, "detail": outcome.reason}
    verdict = "shown" if row.bound is None else "holds" if row.holds(outcome.value) else "MISSED"
    return line | {"verdict": verdict, "value": outcome.value, "detail": outcome.detail}


def measure(area: str, quick: bool) -> dict[str, Json]:
    """Run one area in this process."""
    module = importlib.import_module(areas()[area])
    outcomes: dict[str, Outcome] = {}
    tables: dict[str, Json] = {}
    known = {row.name for row in module.ROWS}
    for name, outcome in module.run(quick):
        if name not in known:
            raise SystemExit(f"bench/areas/{area}.py: outcome for the unknown row {name!r}")
        outcomes[name] = outcome
        tables.update((title, list(lines)) for title, lines in getattr(outcome, "tables", {}).items())
        print(f"  {area}: {name} {outcome}"[:240], file=sys.stderr, flush=True)
    rows: list[Json] = [judge(row, outcomes.get(row.name)) for row in module.ROWS]
    return {"area": area, "quick": quick, "rows": rows, "tables": tables}


def in_own_process(area: str, quick: bool) -> dict[str, Json]:
    """Run one area where nothing of another lingers; an area that fails or hangs is one missed row."""
    target = RESULTS / f"{area}.json"
    target.unlink(missing_ok=True)
    command = [sys.executable, "-m", "bench", "--inside", area, *(["--quick"] if quick else [])]
    try:
        with alone():
            code = subprocess.run(command, timeout=AREA_LIMIT_S, check=False, cwd=FOLDER.parent).returncode
        reason = f"exit code {code}"
    except subprocess.TimeoutExpired:
        reason = f"not finished after {AREA_LIMIT_S} s"
    if target.exists():
        return dict(json.loads(target.read_text()))
    failed = judge(Row("run", "", None, f"python -m bench {area} finishes"), None) | {"detail": reason}
    return {"area": area, "quick": quick, "rows": [failed], "tables": {}}


def table(title: str, lines: Table) -> None:
    """Print lines as columns, one for each key; what a line does not have stays empty."""
    if not lines:
        return
    print(f"\n{title}")
    heads = list(dict.fromkeys(key for line in lines for key in line))
    values = [[line.get(head, "") for head in heads] for line in lines]
    cells = [[f"{value:.4g}" if isinstance(value, float) else str(value) for value in row] for row in values]
    widths = [max(len(row[i]) for row in [heads, *cells]) for i in range(len(heads))]
    for row in [heads, *cells]:
        print("  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def show(result: dict[str, Json]) -> bool:
    """Print one area; True when nothing was missed."""
    rows = result["rows"]
    assert isinstance(rows, list)
    keys = ("verdict", "row", "value", "bound", "unit", "detail")
    lines: Table = [{key: row[key] for key in keys} for row in rows if isinstance(row, dict)]
    tables = result["tables"]
    assert isinstance(tables, dict)
    for title, extra in tables.items():
        table(f"{result['area']}: {title}", extra)  # type: ignore[arg-type]
    table(f"{result['area']}{' (quick: for the eye only)' if result['quick'] else ''}", lines)
    return not any(line["verdict"] in ("MISSED", "MISSING") for line in lines)


def main(argv: list[str] | None = None) -> int:
    """Measure; exit code 1 when a claim was missed."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("areas", nargs="*", choices=[*areas(), []], help="all when none is named")
    parser.add_argument("--quick", action="store_true", help="seconds instead of minutes; for the eye only")
    parser.add_argument("--list", action="store_true", help="show the claims")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    wanted = parser.parse_args(argv)
    chosen = wanted.areas or list(areas())
    RESULTS.mkdir(exist_ok=True)
    if wanted.list:
        for area in chosen:
            for row in importlib.import_module(areas()[area]).ROWS:
                print(
                    f"{area:10} {row.name:40} {row.bound if row.bound is not None else '':>8} {row.unit:4} {row.claim}"
                )
        return 0
    if wanted.inside:
        for area in chosen:
            (RESULTS / f"{area}.json").write_text(json.dumps(measure(area, wanted.quick), indent=1))
        return 0
    results = [in_own_process(area, wanted.quick) for area in chosen]
    kept = [show(result) for result in results]
    plot(results)
    return 0 if all(kept) else 1


def plot(results: list[dict[str, Json]]) -> None:
    """Draw every judged row as its share of its bound, if matplotlib is there."""
    try:
        import matplotlib as mpl
    except ImportError:
        print("no plot: matplotlib is not installed (pip install .[bench])")
        return
    mpl.use("Agg")
    from matplotlib import pyplot

    for result in results:
        curves(pyplot, result)
        rows = [row for row in result["rows"] if isinstance(row, dict) and row["bound"] and row["value"]]  # type: ignore[union-attr]
        if not rows:
            continue
        shares = [r["value"] / r["bound"] if r["better"] == "lower" else r["bound"] / r["value"] for r in rows]  # type: ignore[operator]
        figure, axes = pyplot.subplots(figsize=(9, 0.4 * len(rows) + 1.2), layout="constrained")
        axes.barh([f"{row['row']}" for row in rows], shares, color=["#c33" if s > 1 else "#385" for s in shares])
        axes.axvline(1, color="black", linewidth=1)
        axes.invert_yaxis()
        axes.set_xlabel("measured / bound (left of the line holds)")
        axes.set_title(str(result["area"]))
        figure.savefig(RESULTS / f"{result['area']}.png", dpi=110)
        pyplot.close(figure)


def curves(pyplot: Any, result: dict[str, Json]) -> None:
    """Draw every table whose title begins with "curve": its first column is x, the others are lines."""
    tables = result["tables"]
    assert isinstance(tables, dict)
    drawn = {title: lines for title, lines in tables.items() if title.startswith("curve") and isinstance(lines, list)}
    if not drawn:
        return
    figure, all_axes = pyplot.subplots(1, len(drawn), figsize=(5 * len(drawn), 4), layout="constrained", squeeze=False)
    for axes, (title, lines) in zip(all_axes[0], drawn.items(), strict=True):
        rows = [line for line in lines if isinstance(line, dict)]
        x, *names = rows[0]
        for name in names:
            axes.loglog([row[x] for row in rows], [row[name] for row in rows], marker="o", label=name)
        axes.set_xlabel(x)
        axes.set_title(title.removeprefix("curve: "))
        axes.legend()
    figure.savefig(RESULTS / f"{result['area']}_curves.png", dpi=110)
    pyplot.close(figure)


if __name__ == "__main__":
    sys.exit(main())
