"""A search of the library as text from outside asks for it, and the SQL that finds its rows. Pure.

A cursor marks where the next page begins. It holds the sort value and the number of the last row shown, so that rows
that are added or deleted between two pages neither repeat nor hide others.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import Any

from msgspec import Struct

from shmcam.library.entry import GROUPS, Entry
from shmcam.library.time_parsing import LARGEST, check_span

ORDERS: dict[str, tuple[str, bool]] = {
    "newest": ("id", True),
    "oldest": ("id", False),
    "latest": ("started_utc_ns", True),
    "earliest": ("started_utc_ns", False),
    "largest": ("bytes", True),
    "smallest": ("bytes", False),
    "longest": ("duration_s", True),
}
"""Order → its column, and True where it falls. newest and oldest: by order of adding, which no clock changes."""

PRESENT_KINDS = (
    "WITH RECURSIVE present (kind) AS (SELECT min(kind) FROM entries UNION ALL SELECT (SELECT min(kind) FROM entries "
    "WHERE kind > present.kind) FROM present WHERE kind IS NOT NULL) SELECT kind FROM present"
)
"""Every kind that has a row, by one step into the index for each. `kind IN` these and not `kind NOT IN` others: then
the index gives the newest rows of 100,000 others, too, in a millisecond."""

TEXT_COLUMNS = ("kind", "camera", "trigger", "label", "path")
_CURSOR = re.compile(r"(-?\d{1,19}(?:\.\d{1,18})?(?:e[+-]\d{1,3})?)_(\d{1,19})")


class Query(Struct, frozen=True, kw_only=True):
    """What a search asks for; an empty field asks for everything. Rows match all fields."""

    text: str = ""
    """Words that all stand in kind, camera, trigger, label or path; case does not matter."""
    group: str = ""
    """pictures, clips, films or archives."""
    kinds: Collection[str] = ()
    """picture, stack, clip …"""
    other_than: Collection[str] = ()
    """Any kind but these."""
    cameras: Collection[str] = ()
    """The names of the cameras."""
    label: str | None = None
    """The whole label."""
    trigger: str | None = None
    """The event or command that caused it: motion, night, save …"""
    since_utc_ns: int | None = None
    """The row ends then or later; wall clock, ns since 1970."""
    until_utc_ns: int | None = None
    """The row begins then or earlier."""
    before: int | None = None
    """Only rows with a lower number: added before it."""
    min_bytes: int = 0
    """The least size."""
    max_bytes: int | None = None
    """The greatest size."""
    protected: bool | None = None
    """Only protected rows, or only others."""
    order: str = "newest"
    """One of ORDERS."""
    cursor: str = ""
    """The page after this mark (`find_next_cursor`)."""
    limit: int = -1
    """The most rows; -1: all."""


def to_sql(query: Query) -> tuple[str, list[Any], str]:
    """Returns the condition, its values, and the order.

    Raises: ValueError for an unknown group, order or cursor, or a span that ends before it begins.
    """
    if query.order not in ORDERS:
        raise ValueError(f"order {query.order[:32]!r}: must be of {', '.join(ORDERS)}")
    check_span(query.since_utc_ns, query.until_utc_ns)
    column, falls = ORDERS[query.order]
    where: list[tuple[str, Any]] = [
        ("started_utc_ns + CAST(duration_s * 1e9 AS INTEGER) >= ?", query.since_utc_ns),
        ("started_utc_ns <= ?", query.until_utc_ns),
        ("id < ?", query.before),
        ("label = ?", query.label),
        ("trigger = ?", query.trigger),
        ("bytes >= ?", query.min_bytes or None),
        ("bytes <= ?", query.max_bytes),
        ("protected = ?", query.protected),
    ]
    haystack = " || ' ' || ".join(TEXT_COLUMNS)
    where += [(f"instr(lower({haystack}), lower(?))", word) for word in query.text.split()]
    used = [(clause, value) for clause, value in where if value is not None]
    clauses, values = [clause for clause, _ in used], [value for _, value in used]
    if query.group:
        clauses.append(sql_of_group(query.group))
    if query.other_than:
        clauses.append(f"kind IN ({PRESENT_KINDS} WHERE kind NOT IN ({', '.join('?' * len(query.other_than))}))")
        values.extend(query.other_than)
    for name, wanted in (("kind", query.kinds), ("camera", query.cameras)):
        if wanted:
            clauses.append(f"{name} IN ({', '.join('?' * len(wanted))})")
            values.extend(wanted)
    if query.cursor:
        clauses.append(f"({column}, id) {'<' if falls else '>'} (?, ?)")
        values.extend(_parse_cursor(query.cursor))
    direction = "DESC" if falls else "ASC"
    return " AND ".join(clauses) or "1", values, f"{column} {direction}, id {direction}"


def find_next_cursor(query: Query, page: Sequence[Entry]) -> str:
    """Returns the cursor of the page that follows; empty after the last one."""
    if not page or len(page) != query.limit:
        return ""
    return f"{getattr(page[-1], ORDERS[query.order][0])!r}_{page[-1].id}"


def sql_of_group(group: str) -> str:
    """Returns SQL that is true for the kinds of one group, without any text from outside. Raises: ValueError."""
    if group not in ("pictures", *GROUPS.values()):
        raise ValueError(f"no group {group[:32]!r}; known: pictures, {', '.join(sorted(set(GROUPS.values())))}")
    kinds = ", ".join(repr(kind) for kind, of in GROUPS.items() if group in ("pictures", of))
    return f"kind IN ({PRESENT_KINDS} WHERE kind NOT IN ({kinds}))" if group == "pictures" else f"kind IN ({kinds})"


def _parse_cursor(cursor: str) -> tuple[int | float, int]:
    match = _CURSOR.fullmatch(cursor)
    value = match and (int(match[1]) if match[1].lstrip("-").isdigit() else float(match[1]))
    if not match or value is None or max(abs(value), int(match[2])) > LARGEST:
        raise ValueError(f"cursor {cursor[:40]!r}: must be one that a page of rows ended with")
    return value, int(match[2])
