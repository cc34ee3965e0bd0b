"""The bench's own arithmetic and protocol: pairs, medians, verdicts, and that every area can be listed."""

from __future__ import annotations

import importlib
import math

import pytest

from bench import __main__
from bench.measure import Measured, Row, Skipped, compared, paired, percentile, ratios


def test_subjects_run_once_per_repeat_in_changing_order():
    calls = []
    figures = paired({name: lambda name=name: calls.append(name) or float(len(calls)) for name in "abc"}, repeats=5)
    assert all(len(values) == 5 for values in figures.values())
    rounds = [tuple(calls[i : i + 3]) for i in range(0, 15, 3)]
    assert all(sorted(each) == ["a", "b", "c"] for each in rounds)
    assert len(set(rounds)) > 1


def test_a_ratio_is_the_median_of_pairs_so_that_drift_cancels():
    figures = {"ours": [1.0, 10.0, 200.0], "theirs": [2.0, 20.0, 100.0]}
    assert ratios(figures, "ours", "theirs") == [0.5, 0.5, 2.0]
    assert compared(figures, "ours", "theirs").value == 0.5
    assert "3 pairs 0.500 … 2.000" in compared(figures, "ours", "theirs").detail


def test_percentiles_by_nearest_rank():
    assert percentile([3, 1, 2], 50) == 2
    assert percentile(list(range(100)), 99) == 99
    assert math.isnan(percentile([], 50))


@pytest.mark.parametrize(
    ("row", "outcome", "verdict"),
    [
        (Row("r", "x", 1.0, ""), Measured(1.0), "holds"),
        (Row("r", "x", 1.0, ""), Measured(1.01), "MISSED"),
        (Row("r", "x", 1.0, "", "higher"), Measured(0.99), "MISSED"),
        (Row("r", "x", 1.0, "", "higher"), Measured(1.2), "holds"),
        (Row("r", "x", None, ""), Measured(99), "shown"),
        (Row("r", "x", 1.0, ""), Skipped("not installed"), "skipped"),
        (Row("r", "x", 1.0, ""), None, "MISSING"),
    ],
)
def test_verdicts(row, outcome, verdict):
    assert __main__.judge(row, outcome)["verdict"] == verdict


def test_a_table_shows_lines_that_lack_a_key_or_have_one_more(capsys):
    __main__.table("servers", [{"server": "motion", "note": "not installed"}, {"server": "shmcam", "fps": 9.5}])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split() for line in lines[2:]] == [
        ["server", "note", "fps"],
        ["motion", "not", "installed"],
        ["shmcam", "9.5"],
    ]
    assert lines[2].index("fps") == lines[4].index("9.5")


def test_every_area_has_named_rows_and_a_run():
    found = __main__.areas()
    assert {"ring", "ring_peers", "ring_scale"} <= set(found)
    for area in found:
        module = importlib.import_module(found[area])
        names = [row.name for row in module.ROWS]
        assert len(names) == len(set(names)), f"{area}: two rows of one name"
        assert callable(module.run)


def test_a_missed_claim_is_shown_and_counted(capsys):
    line = __main__.judge(Row("speed", "x", 1.0, "as fast as"), Measured(2.0, "slow today"))
    kept = __main__.show({"area": "x", "quick": False, "rows": [line], "tables": {"more": [{"a": 1, "b": 2.5}]}})
    out = capsys.readouterr().out
    assert not kept
    assert "MISSED" in out
    assert "slow today" in out
    assert "x: more" in out


def test_an_area_that_fails_is_a_missed_row_not_a_crash(tmp_path, monkeypatch):
    monkeypatch.setattr(__main__, "RESULTS", tmp_path)
    monkeypatch.setattr(__main__, "LOCK", tmp_path / "lock")
    result = __main__.in_own_process("no_such_area", quick=True)
    assert result["rows"][0]["verdict"] == "MISSING"
    assert "exit code" in result["rows"][0]["detail"]
