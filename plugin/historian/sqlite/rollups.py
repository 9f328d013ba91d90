"""Roll-ups in and out of SQLite, on the plain connection and in the thread that owns it."""

import json
import sqlite3
from collections.abc import Sequence
from itertools import chain

import numpy as np

from plugin.domain import Level, Micros, RollUps, SampleBatch
from plugin.historian.closed.rolling import COLUMNS, TABLES, Span, columns_of, merged, of_rows

_FETCH = 500
_ROWS = 512
"""In one statement, whose parameters may be 32,766."""

_LAST = """
SELECT k.value, m.last_time, m.last_value, m.last_status FROM json_each(?) AS k CROSS JOIN {table} AS m
ON m.tag_id = json_extract(k.value, '$[0]') AND m.start_time = (
  SELECT max(start_time) FROM {table} WHERE tag_id = json_extract(k.value, '$[0]')
  AND start_time <= json_extract(k.value, '$[1]') - {width})
"""


def select_roll_ups(database: sqlite3.Connection, level: Level, spans: Sequence[Span]) -> RollUps:
    """Those of the tables that begin within the spans, ordered by (tag, start)."""
    tag, start, end = (f"json_extract(k.value, '$[{place}]')" for place in range(3))
    query = f"""
        SELECT {", ".join(f"m.{name}" for name in COLUMNS)} FROM json_each(?) AS k CROSS JOIN {TABLES[level]} AS m
        ON m.tag_id = {tag} AND m.start_time >= {start} AND m.start_time < {end}
    """  # noqa: S608  only names are put in
    cursor = database.execute(query, (json.dumps(sorted(set(spans))),))
    parts = []
    while rows := cursor.fetchmany(_FETCH):
        parts.append(of_rows(rows))
    return merged(parts)


def next_minutes(database: sqlite3.Connection, after: Sequence[tuple[int, Micros]]) -> list[tuple[int, Micros]]:
    """Of each tag the next minute from a time on that is rolled up, where there is one."""
    query = """
        SELECT json_extract(k.value, '$[0]'), (
          SELECT min(start_time) FROM rollup_minutes
          WHERE tag_id = json_extract(k.value, '$[0]') AND start_time >= json_extract(k.value, '$[1]'))
        FROM json_each(?) AS k
    """
    found = database.execute(query, (json.dumps(list(after)),))
    return [(tag, start) for tag, start in found if start is not None]


def last_before(database: sqlite3.Connection, before: Sequence[tuple[int, Micros]]) -> SampleBatch:
    """Of each tag the last sample before the minute that begins then, as far as it is rolled up; sorted by tag.

    What is older than the roll-ups by minute that are kept is looked for among the hours and days that were over.
    """
    left, found = dict(before), []
    for level in Level:
        if left:
            rows = database.execute(
                _LAST.format(table=TABLES[level], width=level.width), (json.dumps(sorted(left.items())),)
            ).fetchall()
            for key, *last in rows:
                tag = json.loads(key)[0]
                del left[tag]
                found.append((tag, *last))
    if not found:
        return SampleBatch.empty()
    tag, time, value, status = zip(*sorted(found), strict=True)
    return SampleBatch.of(tag, time, np.array(value, np.float64), status, time, time)


def upsert_roll_ups(database: sqlite3.Connection, level: Level, roll_ups: RollUps) -> None:
    """Inside a transaction; what is there of the same tag and start is replaced."""
    columns = [column.tolist() for column in columns_of(roll_ups)]
    rows = list(zip(*columns, strict=True))
    into = f"INSERT OR REPLACE INTO {TABLES[level]} ({', '.join(COLUMNS)}) VALUES "  # noqa: S608  only names are put in
    row = f"({', '.join('?' * len(COLUMNS))})"
    for start in range(0, len(rows), _ROWS):
        piece = rows[start : start + _ROWS]
        database.execute(into + ", ".join([row] * len(piece)), list(chain.from_iterable(piece)))
