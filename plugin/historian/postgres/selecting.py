"""Samples out of PostgreSQL: rows that are not yet closed together with chunks that are.

Rows first, then chunks: what is closed in between is found twice, and left out once; the other way round it would be
missed. So no snapshot is needed, and each statement sees what was committed before it.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plugin.domain import Micros, SampleBatch
from plugin.historian.closed.chunks import SAMPLES, SPAN, Chunk, decode
from plugin.historian.closed.keyed import Key, Keyed, merged, newest
from plugin.historian.closed.late import clusters, places
from plugin.historian.corrected import as_known
from plugin.historian.postgres.copying import Decoder
from plugin.historian.postgres.samples import Connection, said

FIRST, LAST = -(2**63), 2**63 - 1
"""The times that there are [µs]."""
_MANY = 1_000
"""Tags; to plan for a longer list of them takes longer than to read what the others have."""
CHUNK_COLUMNS = ", ".join(f"c.{name}" for name in Chunk._fields)

# In the order of copying.STORED; NaN for NULL makes every row equally long.
_SELECTED = """SELECT source_time, tag_id, ordinal, coalesce(value, 'NaN'), status, server_delay, received_delay
FROM samples"""


async def select_samples(
    connection: Connection,
    tags: Collection[int],
    start: Micros,
    end: Micros,
    known_by: Micros | None = None,
    received_by: Micros | None = None,
) -> SampleBatch:
    """See :meth:`plugin.protocols.Store.read_samples`."""
    rows = await select_open(connection, tags, start, end)
    found = both(rows, await select_closed(connection, tags, start, end))
    batch = found.with_texts(await texts_of(connection, found))
    bounded = known_by is not None or received_by is not None
    earlier = await _select_earlier(connection, tags, start, end) if bounded else Keyed.empty()
    if len(earlier):
        return as_known(Keyed(batch, found.ordinals), earlier, known_by, received_by)
    return batch.known(known_by, received_by)


async def _select_earlier(connection: Connection, tags: Collection[int], start: Micros, end: Micros) -> Keyed:
    """Samples as they were before they were corrected, with their texts, in the order that this happened."""
    query = """
        SELECT tag_id, source_time, value, status, server_time, received_time, ordinal, text FROM modified_samples
        WHERE tag_id = ANY ($1::integer[]) AND source_time >= $2 AND source_time < $3 ORDER BY modified
    """
    rows = await connection.fetch(query, sorted({int(tag) for tag in tags}), max(start, FIRST), min(end, LAST))
    found = keyed([row[:7] for row in rows])
    texts = np.array([None if row["text"] is None else said(row["text"]) for row in rows], np.object_)
    return Keyed(replace(found.samples, text=texts), found.ordinals) if len(found) else found


def keyed(rows: Sequence[Sequence[Any]]) -> Keyed:
    """From rows of tag, source time, value, status, server and received time, ordinal; in their order."""
    if not rows:
        return Keyed.empty()
    tag, time, value, status, server, received, ordinal = zip(*rows, strict=True)
    batch = SampleBatch.of(tag, time, np.array(value, np.float64), status, server, received)
    return Keyed(batch, np.array(ordinal, np.int32))


def both(rows: Keyed, closed: Keyed) -> Keyed:
    """Ordered by (tag, source time, ordinal), each once."""
    if not (len(rows) and len(closed)):
        return rows if len(rows) else closed
    found = merged([closed, rows])
    of = found.samples
    same = (np.diff(of.tag) == 0) & (np.diff(of.source_time) == 0) & (np.diff(found.ordinals) == 0)
    return found.take(np.append(True, ~same)) if same.any() else found


async def select_open(connection: Connection, tags: Collection[int] | None, start: Micros, end: Micros) -> Keyed:
    """Rows that are not yet closed, of ``tags`` (None: of all), ordered by (tag, source time, ordinal)."""
    condition = f"source_time >= {int(start)} AND source_time < {int(end)}"
    return await copied(connection, f"{_SELECTED} WHERE {condition}{'' if tags is None else f' AND {_of(tags)}'}")


async def copied(connection: Connection, query: str) -> Keyed:
    """What a query gives whose columns are those of :data:`plugin.historian.postgres.copying.STORED`."""
    decoder = Decoder()
    await connection.copy_from_query(query, output=decoder.take, format="binary")
    return Keyed(*decoder.rows())


def _of(tags: Collection[int]) -> str:
    """A condition; the numbers are written into it, because COPY takes no parameters."""
    return f"tag_id = ANY ('{{{','.join(str(int(tag)) for tag in tags)}}}'::integer[])"


async def select_closed(connection: Connection, tags: Collection[int], start: Micros, end: Micros) -> Keyed:
    """Samples in chunks, by tag and time."""
    if end <= start:
        return Keyed.empty()
    query = f"""
        SELECT {CHUNK_COLUMNS} FROM sample_chunks AS c WHERE c.tag_id = ANY ($1::integer[])
        AND c.first_time > $2 AND c.first_time < $3 AND c.last_time >= $4
        ORDER BY c.tag_id, c.first_time, c.first_ordinal
    """  # noqa: S608  only names are put in
    bounds = max(start - SPAN, FIRST), min(end, LAST), max(start, FIRST)
    rows = await connection.fetch(query, sorted({int(tag) for tag in tags}), *bounds)
    return Keyed(*decode([Chunk._make(row) for row in rows])).between(start, end)


async def chunks_of(connection: Connection, stretches: Sequence[tuple[int, Micros, Micros]]) -> list[tuple[Key, Chunk]]:
    """Chunks with samples in one of the stretches (tag, first, last), each once, with their keys, by key."""
    query = f"""
        SELECT {CHUNK_COLUMNS} FROM unnest($1::integer[], $2::bigint[], $3::bigint[], $4::bigint[])
        AS k (tag_id, first, last, before) JOIN sample_chunks AS c ON c.tag_id = k.tag_id
        AND c.first_time > k.before AND c.first_time <= k.last AND c.last_time >= k.first
    """  # noqa: S608  only names are put in
    before = [max(first - SPAN, FIRST) for _, first, _ in stretches]
    columns = [list(column) for column in zip(*stretches, strict=True)] or [[], [], []]
    chunks = [Chunk._make(row) for row in await connection.fetch(query, *columns, before)]
    return sorted({(chunk.tag_id, chunk.first_time, chunk.first_ordinal): chunk for chunk in chunks}.items())


async def closed_at(connection: Connection, batch: SampleBatch) -> Keyed:
    """Samples in chunks that carry a tag and time of the batch."""
    found = Keyed(*decode([chunk for _, chunk in await chunks_of(connection, clusters(batch))]))
    if not len(found):
        return found
    order = np.lexsort((batch.source_time, batch.tag))
    ours = Keyed(batch.take(order), np.zeros(len(batch), np.int32))
    return found.take(places(ours, found.samples) >= 0)


async def texts_of(connection: Connection, found: Keyed) -> Mapping[Key, str]:
    """Texts by the keys of their samples."""
    if not len(found):
        return {}
    of = found.samples
    bounds = int(of.source_time.min()), int(of.source_time.max())
    query = "SELECT tag_id, source_time, ordinal, text FROM sample_texts WHERE source_time BETWEEN $1 AND $2"
    rows = await connection.fetch(f"{query} AND tag_id = ANY ($3::integer[])", *bounds, np.unique(of.tag).tolist())
    return {(tag, time, ordinal): said(text) for tag, time, ordinal, text in rows}


# --- for the ring ---


async def newest_open(connection: Connection, limit: int, tags: Collection[int] | None) -> tuple[Keyed, Micros | None]:
    """Of the newest ``limit`` rows that are not closed those of ``tags`` (None: all), without their texts.

    And the source time up to which rows are missing (None: it is all that is not closed).
    """
    order = "ORDER BY source_time DESC, tag_id DESC, ordinal DESC"
    missing = await connection.fetchval(f"SELECT source_time FROM samples {order} LIMIT 1 OFFSET $1", limit - 1)  # noqa: S608
    return await select_open(connection, tags, FIRST if missing is None else missing + 1, LAST), missing


async def newest_closed(
    connection: Connection, limit: int, tags: Collection[int], each: int
) -> tuple[Keyed, Mapping[int, Micros]]:
    """Newest samples in chunks, about ``each`` of each tag but at most ``limit`` in all, and a few more.

    And from which source time on that is all of a tag, where it may have older ones.
    """
    query = f"""
        SELECT {CHUNK_COLUMNS} FROM unnest($1::integer[]) AS k (tag_id) CROSS JOIN LATERAL (
          SELECT * FROM sample_chunks WHERE tag_id = k.tag_id
          ORDER BY first_time DESC, first_ordinal DESC LIMIT $2) AS c
    """  # noqa: S608  only names are put in
    most = 1 + min(each, limit // max(len(tags), 1)) // SAMPLES
    chunks = [Chunk._make(row) for row in await connection.fetch(query, sorted(tags), most)]
    by_tag: dict[int, list[Micros]] = {}
    for chunk in chunks:
        by_tag.setdefault(chunk.tag_id, []).append(chunk.first_time)
    # The chunk before the oldest one may end with other values of the time that it begins with.
    since = {tag: min(times) + 1 for tag, times in by_tag.items() if len(times) == most}
    return merged([Keyed(*decode(chunks))]), since


async def corrected_until(connection: Connection) -> Mapping[int, Micros]:
    """Behind the newest corrected sample of each tag that has one: what was there before, only SQL can say."""
    return dict(await connection.fetch("SELECT tag_id, max(source_time) + 1 FROM modified_samples GROUP BY tag_id"))


async def tags_with_text(connection: Connection, after: Micros | None) -> NDArray[np.int32]:
    """Tags of which a sample after that source time (None: any sample) has a text."""
    query = "SELECT DISTINCT tag_id FROM sample_texts WHERE source_time > $1"
    rows = await connection.fetch(query, FIRST if after is None else after)
    return np.array([row[0] for row in rows], np.int32)


# --- the newest ---

# In the order of copying.STORED, like _SELECTED; the numbers are written into them, because COPY takes no parameters.
_NEWEST_OPEN = """
SELECT DISTINCT ON (tag_id) source_time, tag_id, ordinal, coalesce(value, 'NaN'), status, server_delay, received_delay
FROM samples WHERE source_time >= {since} AND {of} ORDER BY tag_id, source_time DESC, ordinal DESC
"""
_NEWEST_KEPT = """
SELECT source_time, tag_id, ordinal, coalesce(value, 'NaN'), status, server_time - source_time,
  received_time - server_time FROM latest_samples WHERE {of}
"""


async def latest_samples(connection: Connection, tags: Iterable[int]) -> SampleBatch:
    """The newest sample of each tag that has one, by tag: of the table, and of rows that may be newer than it."""
    asked = sorted({int(tag) for tag in tags})
    of = _of(asked) if len(asked) < _MANY else "true"
    since = await connection.fetchval("SELECT value FROM bookkeeping WHERE name = 'latest_since'")
    # Rows first: what is closed in between is in the table then.
    newer = await copied(connection, _NEWEST_OPEN.format(since=FIRST if since is None else since, of=of))
    found = newest(await copied(connection, _NEWEST_KEPT.format(of=of)), newer)
    found = found.take(np.isin(found.samples.tag, asked))
    return found.with_texts(await texts_of(connection, found))
