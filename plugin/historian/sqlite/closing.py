"""Closing in SQLite: what is read of a slice and written for it; see :mod:`plugin.historian.closed.closing`."""

import json
import sqlite3
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

from plugin.domain import GapState, Level, Micros, RollUps, Tag
from plugin.historian.closed.chunks import Chunk, decode
from plugin.historian.closed.closing import (
    DAY,
    SLICE,
    After,
    Before,
    Changed,
    Closed,
    Part,
    Slice,
    TagTerms,
    begins_of,
    belongs,
    coarsened,
    size_of,
    stretches,
    terms_of,
    worth_growing,
)
from plugin.historian.closed.keyed import Keyed, merged
from plugin.historian.closed.rolling import MINUTE, TABLES, Span
from plugin.historian.closed.rollup import Holes, concatenated, holes
from plugin.historian.sqlite.connections import snapshot
from plugin.historian.sqlite.rollups import last_before, next_minutes, select_roll_ups, upsert_roll_ups
from plugin.historian.sqlite.selecting import CHUNK_COLUMNS, FIRST, book, chunks_of, listed, select_open

_CHUNK_ROWS = 256
"""In one statement, whose parameters may be 32,766."""


# --- what to close ---


def next_slice(database: sqlite3.Connection, until: Micros) -> Slice | None:
    """The oldest rows of before ``until``, no more than are closed at once; None: there are none."""
    oldest = database.execute("SELECT min(source_time) FROM samples").fetchone()[0]
    until = until // MINUTE * MINUTE
    if oldest is None or oldest >= until:
        return None
    start = oldest // MINUTE * MINUTE
    first, last = _partition(database, start, until)
    row = "SELECT source_time FROM samples WHERE source_time >= ? ORDER BY source_time LIMIT 1 OFFSET ?"
    beyond = database.execute(row, (max(start, FIRST), SLICE)).fetchone()
    end = last if beyond is None else min(last, max(beyond[0] // MINUTE * MINUTE, start + MINUTE))
    return Slice(first, start, end, max(end, _end_of(database, first)))


def rows_before(database: sqlite3.Connection, until: Micros, most: int) -> tuple[int, Micros]:
    """How many rows there are of before then, counted up to ``most``, and the time of the oldest row of all."""
    oldest = database.execute("SELECT min(source_time) FROM samples").fetchone()[0]
    count = database.execute(
        "SELECT count(*) FROM (SELECT 1 FROM samples WHERE source_time < ? LIMIT ?)", (until, most)
    )
    return count.fetchone()[0], until if oldest is None else oldest


def _partition(database: sqlite3.Connection, start: Micros, until: Micros) -> tuple[Micros, Micros]:
    """The stretch of the partition that rows from ``start`` on belong to: one that is there, or may be made longer."""
    query = "SELECT start_time, end_time, samples FROM sample_partitions WHERE start_time < ? AND end_time > ?"
    day = start // DAY * DAY
    there: dict[tuple[Micros, Micros], int] = {}
    for first, last, count in database.execute(query, (day + DAY, max(day, FIRST))):
        there[first, last] = there.get((first, last), 0) + count
    return belongs(there, start, until)


def _end_of(database: sqlite3.Connection, first: Micros) -> Micros:
    row = database.execute("SELECT max(end_time) FROM sample_partitions WHERE start_time = ?", (first,)).fetchone()
    return FIRST if row[0] is None else int(row[0])


# --- what is there ---


def read(database: sqlite3.Connection, slice_: Slice, tags: Sequence[int] | None = None) -> Before:
    """All that closing has to know, as of one moment; ``tags``: of these alone."""
    with snapshot(database):
        rows = merged([select_open(database, tags, slice_.start, slice_.end)])
        spans = stretches(rows)
        replaced = _replaced(database, slice_, spans)
        following = _following(database, spans)
        minutes = [*spans, *((tag, time, time + MINUTE) for tag, time in following)]
        last = max((end for _, _, end in minutes), default=slice_.end)
        names, terms = _tags(database, tags)
        front = book(database, "closed_until", slice_.first)
        return Before(
            slice_,
            front,
            rows,
            replaced,
            _samples_of(database, following),
            select_roll_ups(database, Level.MINUTE, minutes),
            last_before(database, [(tag, start) for tag, start, _ in spans]),
            _gaps(database, names, min(slice_.first, front), last),
            _texts(database, slice_),
            terms,
        )


def _replaced(database: sqlite3.Connection, slice_: Slice, spans: Sequence[Span]) -> dict[int, Chunk]:
    found = dict(chunks_of(database, [(tag, start, end - 1) for tag, start, end in spans]))
    query = f"""
        SELECT c.rowid, {CHUNK_COLUMNS} FROM json_each(?) AS k CROSS JOIN sample_chunks AS c
        ON c.tag_id = json_extract(k.value, '$[0]') AND c.first_time = (
          SELECT max(first_time) FROM sample_chunks
          WHERE tag_id = json_extract(k.value, '$[0]') AND first_time < json_extract(k.value, '$[1]'))
        WHERE c.first_time >= ?
    """  # noqa: S608  only names are put in
    if slice_.first < slice_.start:
        for row in database.execute(query, (json.dumps(list(spans)), slice_.first)):
            if worth_growing(chunk := Chunk(*row[1:])):
                found[row[0]] = chunk
    return found


def _following(database: sqlite3.Connection, spans: Sequence[Span]) -> list[tuple[int, Micros]]:
    """The next minute of each tag that is rolled up already; none in front of all that is closed."""
    if not spans or min(end for _, _, end in spans) > book(database, "closed_until", FIRST):
        return []
    return next_minutes(database, [(tag, end) for tag, _, end in spans])


def _samples_of(database: sqlite3.Connection, minutes: Sequence[tuple[int, Micros]]) -> Keyed:
    parts = []
    start = dict(minutes)
    for _, chunk in chunks_of(database, [(tag, time, time + MINUTE - 1) for tag, time in minutes]):
        part, begin = Keyed(*decode([chunk])), start[chunk.tag_id]
        parts.append(part.between(begin, begin + MINUTE))
    return merged(parts)


def _tags(database: sqlite3.Connection, tags: Sequence[int] | None) -> tuple[list[Tag], dict[int, TagTerms]]:
    query = """
        SELECT id, name, source, retention, compression FROM tags
        WHERE ?1 IS NULL OR id IN (SELECT value FROM json_each(?1))
    """
    return terms_of(database.execute(query, (None if tags is None else listed(tags),)))


def _gaps(database: sqlite3.Connection, tags: Sequence[Tag], start: Micros, end: Micros) -> Holes:
    start, end = start // DAY * DAY, (end // DAY + 1) * DAY  # hours and days are made of more than the slice
    missing = "state <> ?1 AND (end_time IS NULL OR end_time > start_time)"
    query = f"""
        SELECT source, tag, start_time FROM gaps WHERE {missing} AND start_time >= ?2 AND start_time < ?3
        UNION ALL
        SELECT source, tag, max(start_time) FROM gaps WHERE {missing} AND start_time < ?2 GROUP BY source, tag
    """  # noqa: S608  only a condition is put in
    return holes(database.execute(query, (GapState.FILLED, start, end)), tags)


def _texts(database: sqlite3.Connection, slice_: Slice) -> frozenset[tuple[int, Micros, int]]:
    query = "SELECT tag_id, source_time, ordinal FROM sample_texts WHERE source_time >= ? AND source_time < ?"
    return frozenset(database.execute(query, (max(slice_.start, FIRST), slice_.end)).fetchall())


def roll_up_again(
    database: sqlite3.Connection, before: Before, minutes: RollUps, until: Micros | None = None
) -> Mapping[Level, RollUps]:
    """Hours and days that are over by then, and to which minutes have come.

    At the front, where time is closed that was not, those of all tags that have just come to an end; behind it those
    that hold one of the minutes. ``until``: all up to then, whether they are over or not.
    """
    made = {Level.MINUTE: minutes}
    with snapshot(database):
        for level, finer in ((Level.HOUR, Level.MINUTE), (Level.DAY, Level.HOUR)):
            over = before.over(level) if until is None else until
            made[level] = _coarser(database, before, made[finer], level, finer, over)
    return made


def _coarser(
    database: sqlite3.Connection, before: Before, fresh: RollUps, level: Level, finer: Level, over: Micros
) -> RollUps:
    spans = _recomputable(database, before.touched(fresh, level, over), level, finer) + before.ended(level, over)
    if not spans:
        return concatenated(())
    held = last_before(database, begins_of(spans))
    return coarsened(before, select_roll_ups(database, finer, spans), fresh, spans, held, level)


def _recomputable(database: sqlite3.Connection, spans: Sequence[Span], level: Level, finer: Level) -> list[Span]:
    """Without those that are rolled up while some of their finer roll-ups were dropped by retention: they stay."""
    query = f"""
        SELECT k.value FROM json_each(?) AS k JOIN kept_since AS kept
        ON kept.tag_id = json_extract(k.value, '$[0]') AND kept.what = ?
        WHERE json_extract(k.value, '$[1]') < kept.since AND EXISTS (
          SELECT 1 FROM {TABLES[level]} AS made
          WHERE made.tag_id = kept.tag_id AND made.start_time = json_extract(k.value, '$[1]'))
    """  # noqa: S608  only names are put in
    settled = {tuple(json.loads(row[0])) for row in database.execute(query, (json.dumps(list(spans)), f"{finer}s"))}
    return [span for span in spans if span not in settled]


# --- what takes its place ---


def write(
    database: sqlite3.Connection, before: Before, after: After, roll_ups: Mapping[Level, RollUps], now: Micros
) -> Closed:
    """Inside a transaction, to be taken back where it raises Changed."""
    slice_ = before.slice
    if _delete(database, before) != len(before.rows):
        raise Changed
    _take_out(database, before.replaced)
    for retention, part in after.parts.items():
        _put_in(database, slice_, retention, part, now)
    database.execute(
        "UPDATE sample_partitions SET end_time = ? WHERE start_time = ? AND end_time < ?",
        (slice_.last, slice_.first, slice_.last),
    )
    for level, made in roll_ups.items():
        upsert_roll_ups(database, level, made)
    _keep_books(database, slice_.end, after.left_out)
    return Closed.of(before, after)


def _delete(database: sqlite3.Connection, before: Before) -> int:
    """How many rows there were of the slice."""
    start, end, tags = max(before.slice.start, FIRST), before.slice.end, before.slice.tags
    if tags is None:
        return database.execute("DELETE FROM samples WHERE source_time >= ? AND source_time < ?", (start, end)).rowcount
    if (times := before.times()) is not None:  # what came meanwhile at another time follows as late
        query = "DELETE FROM samples WHERE source_time = ? AND tag_id >= ? AND tag_id < ?"
        return database.executemany(query, [(time, tags.start, tags.stop) for time in times]).rowcount
    query = "DELETE FROM samples WHERE source_time >= ? AND source_time < ? AND tag_id >= ? AND tag_id < ?"
    return database.execute(query, (start, end, tags.start, tags.stop)).rowcount


def _take_out(database: sqlite3.Connection, replaced: Mapping[int, Chunk]) -> None:
    """Chunks that are made anew leave their partitions; one that is empty then is gone."""
    if not replaced:
        return
    keys = json.dumps(list(replaced))
    rows = database.execute(
        "SELECT rowid, partition_id FROM sample_chunks WHERE rowid IN (SELECT value FROM json_each(?))", (keys,)
    ).fetchall()
    if len(rows) != len(replaced):
        raise Changed
    parts: dict[int, list[Chunk]] = {}
    for key, partition in rows:
        parts.setdefault(partition, []).append(replaced[key])
    database.execute("DELETE FROM sample_chunks WHERE rowid IN (SELECT value FROM json_each(?))", (keys,))
    for partition, chunks in parts.items():
        gone = sum(chunk.samples for chunk in chunks), size_of(chunks), partition
        database.execute("UPDATE sample_partitions SET samples = samples - ?, bytes = bytes - ? WHERE id = ?", gone)


def _put_in(database: sqlite3.Connection, slice_: Slice, retention: str, part: Part, now: Micros) -> None:
    key = slice_.first, retention
    found = database.execute("SELECT id FROM sample_partitions WHERE start_time = ? AND retention = ?", key).fetchone()
    if found is None:
        columns = "start_time, retention, end_time, samples, left_out, bytes, closed"
        made = database.execute(
            f"INSERT INTO sample_partitions ({columns}) VALUES (?, ?, ?, 0, 0, 0, ?) RETURNING id",  # noqa: S608  names
            (*key, slice_.last, now),
        )
        found = made.fetchone()
    database.execute(
        "UPDATE sample_partitions SET samples = samples + ?, left_out = left_out + ?, bytes = bytes + ? WHERE id = ?",
        (part.samples, part.left_out, part.size, found[0]),
    )
    insert_chunks(database, found[0], part.chunks)


def insert_chunks(database: sqlite3.Connection, partition: int, chunks: Sequence[Chunk]) -> None:
    """Into a partition, whose own row knows of them already."""
    into = f"INSERT INTO sample_chunks ({', '.join(Chunk._fields)}, partition_id) VALUES "  # noqa: S608  only names
    row = f"({', '.join('?' * (len(Chunk._fields) + 1))})"
    for start in range(0, len(chunks), _CHUNK_ROWS):
        piece = chunks[start : start + _CHUNK_ROWS]
        parameters: list[Any] = list(chain.from_iterable((*chunk, partition) for chunk in piece))
        database.execute(into + ", ".join([row] * len(piece)), parameters)


def _keep_books(database: sqlite3.Connection, closed_until: Micros, left_out: int) -> None:
    database.execute("DELETE FROM sample_partitions WHERE samples = 0")
    database.execute(
        "INSERT INTO bookkeeping (name, value) VALUES ('closed_until', ?) "
        "ON CONFLICT (name) DO UPDATE SET value = max(value, excluded.value)",
        (closed_until,),
    )
    if left_out:
        database.execute("UPDATE bookkeeping SET value = value - ? WHERE name = 'samples'", (left_out,))
