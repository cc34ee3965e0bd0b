"""Every figure this project claims, measured against a bound or a peer in the same run: `make bench`.

An area is one module, `bench/<area>.py`, found by itself because it has

    ROWS = (
        Row("publish_1080p_ratio", "x", 1.08, "publish of a 1080p yuv420p frame / bare copy of the same bytes"),
        Row("peers_table", "", None, "shown, not judged"),
    )

    def run(quick: bool) -> Iterator[tuple[str, Outcome]]:
        yield "publish_1080p_ratio", Measured(1.02, "5 runs of 400 frames: 1.01 … 1.03")
        yield "peers_table", Skipped("iceoryx2 is not installed")

One row is one claim: name, unit, bound (None: only shown), what it says; `better="higher"` turns the bound round.
`run` yields an outcome for every row, in any order; a row it forgets is shown as missing and counts as missed.
`Measured.tables` may hold further tables (title → list of dicts, JSON values only) that are printed and kept; one whose
title begins with "curve: " is also drawn, its first column as x.
With `quick` an area takes seconds and its figures are only for the eye.

Rules: compare in pairs, alternating, in one run (`measure.paired`), at least five times, and judge medians of
ratios: absolute times belong to the machine, not to the project. One area at a time runs, in a process of its own,
while it holds a lock file in the temporary folder. Results go to bench/results/<area>.json and .png.

    python -m bench                  all areas, one after the other
    python -m bench ring hub         some
    python -m bench --quick --list   what there is
"""
