"""Roll-ups in and out of PostgreSQL, by the driver's own connection."""

from collections.abc import Sequence

import numpy as np

from plugin.domain import Level, Micros, RollUps, SampleBatch
from plugin.historian.closed.rolling import COLUMNS, TABLES, Span, columns_of, merged, of_rows
from plugin.historian.postgres.samples import Connection

_TYPES = {np.dtype(np.float64): "float8", np.dtype(np.int32): "integer"}
"""Of the arrays that columns are sent as; whole numbers but keys go as bigint."""
_ROWS = 2_000
"""Sent at once: a few ms of the event loop."""


def _columns(spans: Sequence[tuple[int, ...]], width: int) -> list[list[int]]:
    return [list(column) for column in zip(*spans, strict=True)] or [[] for _ in range(width)]


async def select_roll_ups(connection: Connection, level: Level, spans: Sequence[Span]) -> RollUps:
    """Those of the tables that begin within the spans, ordered by (tag, start)."""
    query = f"""
        SELECT {", ".join(f"m.{name}" for name in COLUMNS)}
        FROM unnest($1::integer[], $2::bigint[], $3::bigint[]) AS k (tag_id, first, last)
        JOIN {TABLES[level]} AS m ON m.tag_id = k.tag_id AND m.start_time >= k.first AND m.start_time < k.last
    """  # noqa: S608  only names are put in
    return merged([of_rows(await connection.fetch(query, *_columns(sorted(set(spans)), 3)))])


async def next_minutes(connection: Connection, after: Sequence[tuple[int, Micros]]) -> list[tuple[int, Micros]]:
    """Of each tag the next minute from a time on that is rolled up, where there is one."""
    query = """
        SELECT k.tag_id, m.start_time FROM unnest($1::integer[], $2::bigint[]) AS k (tag_id, since)
        CROSS JOIN LATERAL (
          SELECT start_time FROM rollup_minutes WHERE tag_id = k.tag_id AND start_time >= k.since
          ORDER BY start_time LIMIT 1) AS m
    """
    return [(tag, start) for tag, start in await connection.fetch(query, *_columns(after, 2))]


async def last_before(connection: Connection, before: Sequence[tuple[int, Micros]]) -> SampleBatch:
    """Of each tag the last sample before the minute that begins then, as far as it is rolled up; sorted by tag.

    What is older than the roll-ups by minute that are kept is looked for among the hours and days that were over.
    """
    left, found = dict(before), []
    for level in Level:
        query = f"""
            SELECT k.tag_id, m.last_time, m.last_value, m.last_status
            FROM unnest($1::integer[], $2::bigint[]) AS k (tag_id, until)
            CROSS JOIN LATERAL (
              SELECT last_time, last_value, last_status FROM {TABLES[level]}
              WHERE tag_id = k.tag_id AND start_time <= k.until - {level.width}
              ORDER BY start_time DESC LIMIT 1) AS m
        """  # noqa: S608  only names and numbers are put in
        rows = await connection.fetch(query, *_columns(sorted(left.items()), 2)) if left else []
        for row in rows:
            del left[row["tag_id"]]
            found.append(tuple(row))
    if not found:
        return SampleBatch.empty()
    tag, time, value, status = zip(*sorted(found, key=_tag), strict=True)
    return SampleBatch.of(tag, time, np.array(value, np.float64), status, time, time)


def _tag(row: tuple[int, ...]) -> int:
    return row[0]


async def upsert_roll_ups(connection: Connection, level: Level, roll_ups: RollUps) -> None:
    """Inside a transaction; what is there of the same tag and start is replaced."""
    columns = columns_of(roll_ups)
    sent = ", ".join(f"${n}::{_TYPES.get(column.dtype, 'bigint')}[]" for n, column in enumerate(columns, start=1))
    changed = ", ".join(f"{name} = excluded.{name}" for name in COLUMNS if name not in {"tag_id", "start_time"})
    statement = f"""
        INSERT INTO {TABLES[level]} ({", ".join(COLUMNS)}) SELECT * FROM unnest({sent})
        ON CONFLICT (tag_id, start_time) DO UPDATE SET {changed}
    """  # noqa: S608  only names are put in
    for start in range(0, len(roll_ups), _ROWS):
        lists = (column[start : start + _ROWS].tolist() for column in columns)
        # NULL where there is no number, as SQLite has it
        await connection.execute(statement, *([None if each != each else each for each in cells] for cells in lists))  # noqa: PLR0124
