"""Closing in PostgreSQL: what is read of a slice and written for it; see :mod:`plugin.historian.closed.closing`.

Who writes samples holds a shared lock on the row that says up to where time is closed (``samples.books``). Closing
changes that row last: it waits for whoever is in the middle of it, for as long as that lasts and no longer, and then
looks once more whether a row has come into the slice.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any

from plugin.domain import GapState, Level, Micros, RollUps, SampleBatch, Tag
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
    close,
    coarsened,
    decoded,
    minutes,
    size_of,
    stretches,
    terms_of,
    worth_growing,
)
from plugin.historian.closed.keyed import Key, Keyed, merged
from plugin.historian.closed.rolling import MINUTE, TABLES, Span, rows_of
from plugin.historian.closed.rolling import merged as merged_roll_ups
from plugin.historian.closed.rollup import Holes, concatenated, holes
from plugin.historian.postgres.rollups import last_before, next_minutes, select_roll_ups, upsert_roll_ups
from plugin.historian.postgres.samples import Connection
from plugin.historian.postgres.selecting import CHUNK_COLUMNS, FIRST, chunks_of, select_open

_CORRECTIONS = "SELECT value FROM bookkeeping WHERE name = 'corrections'"
_CHUNK_ROWS = 500
"""Sent at once: a few ms of the event loop."""


# --- what to close ---


async def next_slice(connection: Connection, until: Micros) -> Slice | None:
    """The oldest rows of before ``until``, as :data:`SLICE` has them; None: there are none."""
    oldest = await connection.fetchval("SELECT min(source_time) FROM samples")
    until = until // MINUTE * MINUTE
    if oldest is None or oldest >= until:
        return None
    start = oldest // MINUTE * MINUTE
    first, last = await _partition(connection, start, until)
    row = "SELECT source_time FROM samples WHERE source_time >= $1 ORDER BY source_time LIMIT 1 OFFSET $2"
    beyond = await connection.fetchval(row, max(start, FIRST), SLICE)
    end = last if beyond is None else min(last, max(beyond // MINUTE * MINUTE, start + MINUTE))
    ends = await connection.fetchval("SELECT max(end_time) FROM sample_partitions WHERE start_time = $1", first)
    return Slice(first, start, end, end if ends is None else max(end, ends))


async def rows_before(connection: Connection, until: Micros, most: int) -> tuple[int, Micros]:
    """How many rows there are of before then, counted up to ``most``, and the time of the oldest row of all."""
    oldest = await connection.fetchval("SELECT min(source_time) FROM samples")
    query = "SELECT count(*) FROM (SELECT FROM samples WHERE source_time < $1 LIMIT $2) AS rows"
    return await connection.fetchval(query, until, most), until if oldest is None else oldest


async def _partition(connection: Connection, start: Micros, until: Micros) -> tuple[Micros, Micros]:
    """The stretch of the partition that rows from ``start`` on belong to: one that is there, or may be made longer."""
    day = start // DAY * DAY
    query = """
        SELECT start_time, end_time, sum(samples)::bigint FROM sample_partitions
        WHERE start_time < $1 AND end_time > $2 GROUP BY start_time, end_time
    """
    rows = await connection.fetch(query, day + DAY, max(day, FIRST))
    there = {(first, last): count for first, last, count in rows}
    return belongs(there, start, until)


# --- what is there ---


async def read(connection: Connection, slice_: Slice, tags: Sequence[int] | None = None) -> Before:
    """All that closing has to know, as of one moment; ``tags``: of these alone."""
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        rows = await select_open(connection, tags, slice_.start, slice_.end)
        spans = stretches(rows)
        found = await _replaced(connection, slice_, spans)
        following = await _following(connection, spans)
        touched = [*spans, *((tag, time, time + MINUTE) for tag, time in following)]
        last = max((end for _, _, end in touched), default=slice_.end)
        names, terms = await _tags(connection, tags)
        front = await _closed_until(connection)
        front = slice_.first if front == FIRST else front
        return Before(
            slice_,
            front,
            rows,
            dict(enumerate(found)),
            await _samples_of(connection, following),
            await select_roll_ups(connection, Level.MINUTE, touched),
            await last_before(connection, [(tag, start) for tag, start, _ in spans]),
            await _gaps(connection, names, min(slice_.first, front), last),
            await _texts(connection, slice_),
            terms,
        )


async def _closed_until(connection: Connection) -> Micros:
    time: Micros = await connection.fetchval("SELECT value FROM bookkeeping WHERE name = 'closed_until'")
    return time


async def _replaced(connection: Connection, slice_: Slice, spans: Sequence[Span]) -> list[Chunk]:
    found = dict(await chunks_of(connection, [(tag, start, end - 1) for tag, start, end in spans]))
    query = f"""
        SELECT {CHUNK_COLUMNS} FROM unnest($1::integer[], $2::bigint[]) AS k (tag_id, before)
        CROSS JOIN LATERAL (
          SELECT * FROM sample_chunks WHERE tag_id = k.tag_id AND first_time < k.before AND first_time >= $3
          ORDER BY first_time DESC, first_ordinal DESC LIMIT 1) AS c
    """  # noqa: S608  only names are put in
    if spans and slice_.first < slice_.start:
        tags, starts, _ = (list(column) for column in zip(*spans, strict=True))
        for row in await connection.fetch(query, tags, starts, slice_.first):
            if worth_growing(chunk := Chunk._make(row)):
                found[key_of(chunk)] = chunk
    return [*found.values()]


def key_of(chunk: Chunk) -> Key:
    """Of its row."""
    return chunk.tag_id, chunk.first_time, chunk.first_ordinal


async def _following(connection: Connection, spans: Sequence[Span]) -> list[tuple[int, Micros]]:
    """The next minute of each tag that is rolled up already; none in front of all that is closed."""
    if not spans or min(end for _, _, end in spans) > await _closed_until(connection):
        return []
    return await next_minutes(connection, [(tag, end) for tag, _, end in spans])


async def _samples_of(connection: Connection, minutes: Sequence[tuple[int, Micros]]) -> Keyed:
    parts, start = [], dict(minutes)
    for _, chunk in await chunks_of(connection, [(tag, time, time + MINUTE - 1) for tag, time in minutes]):
        begin = start[chunk.tag_id]
        parts.append(Keyed(*decode([chunk])).between(begin, begin + MINUTE))
    return merged(parts)


async def _tags(connection: Connection, tags: Sequence[int] | None) -> tuple[list[Tag], dict[int, TagTerms]]:
    query = """
        SELECT id, name, source, retention, compression FROM tags
        WHERE $1::integer[] IS NULL OR id = ANY ($1::integer[])
    """
    return terms_of(await connection.fetch(query, None if tags is None else list(tags)))


async def _gaps(connection: Connection, tags: Sequence[Tag], start: Micros, end: Micros) -> Holes:
    start, end = start // DAY * DAY, (end // DAY + 1) * DAY  # hours and days are made of more than the slice
    missing = "state <> $1 AND (end_time IS NULL OR end_time > start_time)"
    query = f"""
        SELECT source, tag, start_time FROM gaps WHERE {missing} AND start_time >= $2 AND start_time < $3
        UNION ALL
        SELECT source, tag, max(start_time) FROM gaps WHERE {missing} AND start_time < $2 GROUP BY source, tag
    """  # noqa: S608  only a condition is put in
    return holes(await connection.fetch(query, GapState.FILLED, start, end), tags)


async def _texts(connection: Connection, slice_: Slice) -> frozenset[Key]:
    query = "SELECT tag_id, source_time, ordinal FROM sample_texts WHERE source_time >= $1 AND source_time < $2"
    rows = await connection.fetch(query, max(slice_.start, FIRST), slice_.end)
    return frozenset((tag, time, ordinal) for tag, time, ordinal in rows)


async def roll_up_again(
    connection: Connection, before: Before, made_minutes: RollUps, until: Micros | None = None
) -> Mapping[Level, RollUps]:
    """Hours and days that are over by then, and to which minutes have come; ``until``: all up to then, over or not."""
    made = {Level.MINUTE: made_minutes}
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        for level, finer in ((Level.HOUR, Level.MINUTE), (Level.DAY, Level.HOUR)):
            fresh, over = made[finer], before.over(level) if until is None else until
            touched = await _recomputable(connection, before.touched(fresh, level, over), level, finer)
            spans = touched + before.ended(level, over)
            if not spans:
                made[level] = concatenated(())
                continue
            held: SampleBatch = await last_before(connection, begins_of(spans))
            known = await select_roll_ups(connection, finer, spans)
            made[level] = await asyncio.to_thread(coarsened, before, known, fresh, spans, held, level)
    return made


async def roll_ups(connection: Connection, tags: Sequence[int], start: Micros, end: Micros, level: Level) -> RollUps:
    """See :meth:`plugin.protocols.Store.roll_ups`: those of the tables, and what rows that are not closed make."""
    width = level.width
    first, last = start // width * width, -(-end // width) * width
    asked = sorted({int(tag) for tag in tags})
    # What is not closed at all stands into the first interval too; what a day ago was not closed does not come.
    begin = max(min(first, await _closed_until(connection)), first - DAY)
    before = await read(connection, Slice(begin, begin, last, last), asked)
    made = await asyncio.to_thread(_minutes_of, before)
    if level is not Level.MINUTE:
        made = (await roll_up_again(connection, before, made, last))[level]
    kept = await select_roll_ups(connection, level, [(tag, first, last) for tag in asked])
    return merged_roll_ups([kept, rows_of(made, (made.start >= first) & (made.start < last))])


def _minutes_of(before: Before) -> RollUps:
    return minutes(before, decoded(before))


async def _recomputable(connection: Connection, spans: Sequence[Span], level: Level, finer: Level) -> list[Span]:
    """Without those that are rolled up while some of their finer roll-ups were dropped by retention: they stay."""
    query = f"""
        SELECT k.tag_id, k.start FROM unnest($1::integer[], $2::bigint[]) AS k (tag_id, start)
        JOIN kept_since AS kept ON kept.tag_id = k.tag_id AND kept.what = $3
        JOIN {TABLES[level]} AS made ON made.tag_id = k.tag_id AND made.start_time = k.start
        WHERE k.start < kept.since
    """  # noqa: S608  only names are put in
    if not spans:
        return []
    tags, starts, _ = (list(column) for column in zip(*spans, strict=True))
    settled = {(tag, start) for tag, start in await connection.fetch(query, tags, starts, f"{finer}s")}
    return [span for span in spans if span[:2] not in settled]


# --- what takes its place ---


async def close_slice(
    connection: Connection, slice_: Slice, now: Micros, check: Callable[[Connection], Awaitable[None]]
) -> AsyncIterator[Closed]:
    """Each portion, once it is closed. Changed where something came to the next one meanwhile.

    ``check``: whether we may write, asked first in each transaction.
    """
    corrections = await connection.fetchval(_CORRECTIONS)
    before = await read(connection, slice_)
    for portion in before.portions():
        after = await asyncio.to_thread(close, portion)
        made = await roll_up_again(connection, portion, after.minutes)
        async with connection.transaction():
            await check(connection)
            if await connection.fetchval(f"{_CORRECTIONS} FOR SHARE") != corrections:  # the next one waits for us
                raise Changed
            await _write(connection, portion, after, made, now)
        yield Closed.of(portion, after)


async def _write(
    connection: Connection, before: Before, after: After, roll_ups: Mapping[Level, RollUps], now: Micros
) -> None:
    slice_ = before.slice
    mine, bounds = _its_rows(before)
    if _count(await connection.execute(f"DELETE FROM samples WHERE {mine}", *bounds)) != len(before.rows):  # noqa: S608
        raise Changed
    await _take_out(connection, [*before.replaced.values()])
    for retention, part in after.parts.items():
        await _put_in(connection, slice_, retention, part, now)
    await connection.execute(
        "UPDATE sample_partitions SET end_time = $1 WHERE start_time = $2 AND end_time < $1", slice_.last, slice_.first
    )
    await connection.execute("DELETE FROM sample_partitions WHERE samples = 0")
    for level, made in roll_ups.items():
        await upsert_roll_ups(connection, level, made)
    # From here on writers wait for us, and all that they wrote before is to be seen.
    await connection.execute(
        "UPDATE bookkeeping SET value = greatest(value, $1) WHERE name = 'closed_until'", slice_.end
    )
    if await connection.fetchval(f"SELECT EXISTS (SELECT FROM samples WHERE {mine})", *bounds):  # noqa: S608
        raise Changed
    if after.left_out:
        await connection.execute("UPDATE bookkeeping SET value = value - $1 WHERE name = 'samples'", after.left_out)


def _its_rows(before: Before) -> tuple[str, Sequence[Any]]:
    """A condition for the rows of a slice, and what its parameters are."""
    slice_, times = before.slice, before.times()
    tags = slice_.tags or range(2**31 - 1)
    if times is not None:  # what came meanwhile at another time follows as late
        return "source_time = ANY ($1::bigint[]) AND tag_id >= $2 AND tag_id < $3", (times, tags.start, tags.stop)
    inside = "source_time >= $1 AND source_time < $2 AND tag_id >= $3 AND tag_id < $4"
    return inside, (max(slice_.start, FIRST), slice_.end, tags.start, tags.stop)


def _count(status: str) -> int:
    """Rows that a statement has touched, of what the server says of it: ``DELETE 5``."""
    return int(status.rpartition(" ")[2])


async def _take_out(connection: Connection, replaced: Sequence[Chunk]) -> None:
    """Chunks that are made anew leave their partitions."""
    if not replaced:
        return
    columns = [list(column) for column in zip(*map(key_of, replaced), strict=True)]
    rows = await connection.fetch(
        "DELETE FROM sample_chunks AS c "
        "USING unnest($1::integer[], $2::bigint[], $3::integer[]) AS k (tag, time, nth) "
        "WHERE c.tag_id = k.tag AND c.first_time = k.time AND c.first_ordinal = k.nth "
        "RETURNING c.tag_id, c.first_time, c.first_ordinal, c.partition_id",
        *columns,
    )
    if len(rows) != len(replaced):
        raise Changed
    partition = {(tag, time, nth): of for tag, time, nth, of in rows}
    parts: dict[int, list[Chunk]] = {}
    for chunk in replaced:
        parts.setdefault(partition[key_of(chunk)], []).append(chunk)
    gone = [(sum(chunk.samples for chunk in chunks), size_of(chunks), key) for key, chunks in sorted(parts.items())]
    statement = "UPDATE sample_partitions SET samples = samples - $1, bytes = bytes - $2 WHERE id = $3"
    await connection.executemany(statement, gone)


async def _put_in(connection: Connection, slice_: Slice, retention: str, part: Part, now: Micros) -> None:
    key = slice_.first, retention
    query = "SELECT id FROM sample_partitions WHERE start_time = $1 AND retention = $2 FOR UPDATE"
    found = await connection.fetchval(query, *key)
    if found is None:
        columns = "start_time, retention, end_time, samples, left_out, bytes, closed"
        make = f"INSERT INTO sample_partitions ({columns}) VALUES ($1, $2, $3, 0, 0, 0, $4) RETURNING id"  # noqa: S608
        found = await connection.fetchval(make, *key, slice_.last, now)
    await connection.execute(
        "UPDATE sample_partitions SET samples = samples + $1, left_out = left_out + $2, bytes = bytes + $3 "
        "WHERE id = $4",
        *(part.samples, part.left_out, part.size, found),
    )
    await insert_chunks(connection, found, part.chunks)


async def insert_chunks(connection: Connection, partition: int, chunks: Sequence[Chunk]) -> None:
    """Into a partition, whose own row knows of them already."""
    names = [*Chunk._fields, "partition_id"]
    for start in range(0, len(chunks), _CHUNK_ROWS):
        rows: list[Any] = [(*chunk, partition) for chunk in chunks[start : start + _CHUNK_ROWS]]
        await connection.copy_records_to_table("sample_chunks", records=rows, columns=names)
