"""Search of the library: text, fields, order, pages by cursor, and the timeline of what exists."""

from __future__ import annotations

import json

import pytest
from msgspec.structs import replace

from exporter.commands.library import answer_command
from exporter.films.build import find_pictures
from shmcam.cli.library import main
from shmcam.control.messages import Clips, Library, Pictures
from shmcam.library import Catalogue, Entry
from shmcam.library.query import ORDERS, Query, find_next_cursor
from shmcam.library.timeline import CELLS_MAX, EVENTS_MAX, TimelineRow, TimelineSpan, make_timeline
from shmcam.runtime.clock import to_iso

NS = 1_000_000_000
STARTED = 1_700_000_040 * NS  # a whole minute, 2023-11-14T22:14Z
LATER = STARTED + 86_400 * NS


def read_pages(catalogue, query):
    """Returns all rows, page by page."""
    rows, cursor = [], ""
    while True:
        page = catalogue.search(replace(query, cursor=cursor))
        rows += page
        cursor = find_next_cursor(query, page)
        if not cursor:
            return rows


@pytest.fixture
def library(saved):
    for number in range(12):
        saved(
            f"cam{number % 2}_{number}.mp4", 1000 * (number % 4 + 1), camera=f"cam{number % 2}",
            started_utc_ns=STARTED + (number * 7 % 12) * 60 * NS, duration_s=(number % 3) / 3,
            trigger="motion" if number % 3 else "", label="100%_full" if number == 5 else "100_Xfull" * (number == 6),
        )  # fmt: skip


@pytest.mark.parametrize("limit", [1, 5, 12, 13])
@pytest.mark.parametrize("order", ORDERS)
def test_pages_hold_every_row_once_in_order(catalogue, library, order, limit):
    rows = read_pages(catalogue, Query(order=order, limit=limit))
    assert [row.id for row in rows] == [row.id for row in catalogue.search(Query(order=order))]
    column, falls = ORDERS[order]
    assert sorted(range(1, 13)) == sorted(row.id for row in rows)
    keys = [(getattr(row, column), row.id) for row in rows]
    assert keys == sorted(keys, reverse=falls)


def test_what_is_added_or_deleted_between_two_pages_hides_and_repeats_nothing(catalogue, library, saved):
    query = Query(order="largest", limit=4)
    first = catalogue.search(query)
    catalogue.delete(first[-1].id)
    saved("new.mp4", 9000)
    following = replace(query, cursor=find_next_cursor(query, first))
    second = catalogue.search(following)
    third = catalogue.search(replace(query, cursor=find_next_cursor(query, second)))
    assert {row.id for row in first + second + third} == set(range(1, 13)) and len(first + second + third) == 12


@pytest.mark.parametrize(
    ("fields", "ids"),
    [
        ({"text": "100%"}, [6]), ({"text": "_FULL motion"}, [6]), ({"text": "%"}, [6]), ({"text": "\\"}, []),
        ({"text": "'; DROP TABLE entries --"}, []), ({"label": "100_Xfull"}, [7]), ({"text": "cam1_3.mp4"}, [4]),
        ({"trigger": "motion", "cameras": ["cam0"]}, [11, 9, 5, 3]),
        ({"min_bytes": 3000, "max_bytes": 3999}, [11, 7, 3]),
        ({"kinds": ["clip"], "group": "pictures"}, []), ({"text": "a" * 5000}, []), ({"text": "\0"}, []),
    ],
)  # fmt: skip
def test_a_search_finds_what_matches_every_field(catalogue, library, fields, ids):
    assert [row.id for row in catalogue.search(Query(**fields))] == ids


@pytest.mark.parametrize("cursor", ["x", "1", "1_2_3", "1_-2", "9" * 19 + "_1", "1e999_1", "nan_1", "1; --_1"])
def test_a_cursor_that_no_page_ended_with_is_refused(catalogue, cursor):
    with pytest.raises(ValueError, match="cursor"):
        catalogue.search(Query(cursor=cursor))


def test_a_span_that_ends_before_it_begins_is_refused(catalogue, library):
    wanted = "since 2023-11-13T22:14:00.000Z is later than until 2023-11-12T22:14:00.000Z"
    for command in (Clips, Pictures, Library):
        with pytest.raises(ValueError, match=wanted):
            answer_command(command(since="2d", until="3d"), catalogue, LATER)
    with pytest.raises(ValueError, match=wanted):
        find_pictures(catalogue, ["cam0"], "2d", "3d", LATER)
    instant = to_iso(STARTED)
    assert len(answer_command(Clips(since=instant, until=instant), catalogue, LATER).data["rows"]) == 1


def test_the_commands_and_the_command_line_page_and_search(catalogue, library, settings, capsys):
    clips = answer_command(Clips(limit=5), catalogue, LATER)
    assert [row["id"] for row in clips.data["rows"]] == [12, 11, 10, 9, 8] and clips.data["next"] in clips.text
    more = answer_command(Clips(limit=5, cursor=clips.data["next"]), catalogue, LATER)
    assert [row["id"] for row in more.data["rows"]] == [7, 6, 5, 4, 3]
    assert answer_command(Library(text="full", order="oldest", camera="cam1"), catalogue, LATER).data["next"] == ""
    with pytest.raises(ValueError, match="cursor"):
        answer_command(Library(cursor="no"), catalogue, LATER)

    shared = ["--config", str(settings.path), "--json", "list", "--limit", "7", "--order", "smallest"]
    assert main(shared) == 0
    out, err = capsys.readouterr()
    cursor = err.rpartition("--cursor ")[2].strip()
    assert main([*shared, "--cursor", cursor]) == 0
    rest, err = capsys.readouterr()
    assert {row["id"] for row in json.loads(out) + json.loads(rest)} == set(range(1, 13)) and not err
    assert main(["--config", str(settings.path), "list", "--trigger", "motion", "100%"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1


def row(number, kind="clip", at_s=0.0, duration_s=0.0, camera="cam0", trigger="", label=""):
    return TimelineRow(number, kind, camera, STARTED + round(at_s * NS), duration_s, trigger, label)


def test_a_timeline_tells_what_exists_in_each_minute():
    span = TimelineSpan.of(STARTED, STARTED + 300 * NS, 60, 0)
    timeline = make_timeline(
        [
            row(1, at_s=-30, duration_s=50),  # began before the span
            row(2, at_s=20, duration_s=190, trigger="motion"),
            row(3, "picture", 70),
            row(4, "timelapse", 290, 3600, trigger="timer"),
            row(5, "startrails", -3600, 3630, trigger="auto", camera="cam1"),
            row(6, "archive", 0, 300, camera=""),
        ],
        span,
    )
    assert (timeline.since_utc, span.count) == ("2023-11-14T22:14:00.000Z", 6)
    first, second = timeline.cameras
    shown = [(c.utc[14:16], c.footage_s, c.clips, c.pictures, c.films, c.events, c.row) for c in first.cells]
    assert shown == [
        ("14", 60, 2, 0, 0, 1, 1), ("15", 60, 1, 1, 0, 0, 3), ("16", 60, 1, 0, 0, 0, 3), ("17", 30, 1, 0, 0, 0, 3),
        ("18", 0, 0, 0, 1, 0, 4),
    ]  # fmt: skip
    assert [(p.begin_utc[14:19], p.end_utc[14:19]) for p in first.footage] == [("14:00", "17:30")]
    assert [(event.row, event.trigger) for event in first.events] == [(2, "motion")]
    assert second.camera == "cam1" and [p.end_utc[14:19] for p in second.nights] == ["14:30"]


def test_a_timeline_is_bounded_whatever_the_rows_hold():
    span = TimelineSpan.of(STARTED, STARTED + (CELLS_MAX - 2) * 60 * NS, 60, 0)
    many = [row(n, at_s=n, duration_s=1e9, trigger="motion", camera="") for n in range(2 * EVENTS_MAX)]
    timeline = make_timeline(many, span)
    assert len(timeline.cameras[0].events) == EVENTS_MAX == timeline.events_left_out
    assert len(timeline.cameras[0].cells) == span.count and len(timeline.cameras[0].footage) == 1
    with pytest.raises(ValueError, match="take 61 or more"):
        TimelineSpan.of(STARTED, STARTED + (CELLS_MAX - 2) * 61 * NS, 1, 0)
    with pytest.raises(ValueError, match=r"since \S+Z is later than until \S+Z"):
        TimelineSpan.of(STARTED + NS, STARTED, 1, 0)


def test_the_timeline_is_a_command_too(catalogue, library, saved, settings, capsys):
    reply = answer_command(Library(action="timeline", since="24h", camera="cam1"), catalogue, LATER)
    (camera,) = reply.data["cameras"]
    assert [cell["clips"] for cell in camera["cells"]] == [6] and "cam1 2023-11-14T22:00" in reply.text
    with pytest.raises(ValueError, match=r"since \S+Z is later than until \S+Z"):
        answer_command(Library(action="timeline", since="1h", until="2h"), catalogue, LATER)
    saved("long.mp4", camera="cam2", started_utc_ns=STARTED, duration_s=900)
    with pytest.raises(ValueError, match="larger step_s"):
        hour = {"since": "2023-11-14T22:00Z", "until": "2023-11-14T23:00Z"}
        answer_command(Library(action="timeline", step_s=1, **hour), catalogue, LATER)
    span = ["timeline", "--since", "2023-11-14T00:00Z", "--until", "2023-11-16T00:00Z", "--step", "86400"]
    assert main(["--config", str(settings.path), "--json", *span]) == 0
    assert sum(cell["clips"] for c in json.loads(capsys.readouterr().out)["cameras"] for cell in c["cells"]) == 13


def test_the_newest_rows_of_any_kind_are_found_without_reading_or_sorting_the_others(tmp_path):
    """`clips` took 160 ms and `pictures` 230 ms with 100,000 rows: all rows of the kind were sorted."""
    kinds = [kind for kind in ("picture", "stack", "clip", "session") for _ in range(500)]
    rows = [Entry(kind=kind, camera="cam0", path=tmp_path / f"{n}", started_utc_ns=n) for n, kind in enumerate(kinds)]
    queries = [
        Query(limit=5),
        Query(kinds=("clip", "session"), limit=5),
        Query(other_than=("clip", "session", "archive"), limit=5),
        Query(group="pictures", limit=5),
        Query(group="clips", limit=5),
    ]
    steps = []
    with Catalogue(tmp_path / "library.db") as catalogue:
        catalogue.insert(rows)
        catalogue.write(lambda db: db.set_progress_handler(lambda: steps.append(1), 100))
        for query in queries:
            steps.clear()
            found = catalogue.search(query)
            assert [entry.path.name for entry in found] == [str(n) for n in newest_of(query, kinds)]
            assert len(steps) * 100 < 2000, query


def newest_of(query, kinds):
    wanted = {"clips": ("clip", "session"), "pictures": ("picture", "stack")}.get(query.group) or query.kinds
    fitting = [n for n, kind in enumerate(kinds) if kind in (wanted or kinds) and kind not in query.other_than]
    return fitting[:-6:-1]


def test_a_library_of_an_earlier_release_gets_the_index_of_kinds(tmp_path):
    with Catalogue(tmp_path / "library.db") as catalogue:
        catalogue.insert([Entry(kind="clip", camera="cam0", path=tmp_path / "a", started_utc_ns=1)])
        catalogue.write(lambda db: db.execute("DROP INDEX by_kind"))
    with Catalogue(tmp_path / "library.db") as catalogue:
        assert [entry.kind for entry in catalogue.search(Query(kinds=("clip",)))] == ["clip"]
        names = catalogue.write(lambda db: [row["name"] for row in db.execute("PRAGMA index_list(entries)")])
    assert "by_kind" in names
